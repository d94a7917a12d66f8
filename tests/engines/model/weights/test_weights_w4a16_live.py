"""w4a16 as llm-compressor made it: `bench prepare quantization=bf16,w4a16` makes what is looked at here."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from tensor_script import LOAD
from weights_steps import tensor_shapes

from serving_bench.engines.model.weights import find
from serving_bench.engines.model.weights.kept import files_below, sha256_of
from serving_bench.engines.model.weights.tools import CHECKPOINT
from serving_bench.harness.contracts import Weights, WeightsFile
from serving_bench.harness.install.install import cache_dir, installed

pytestmark = pytest.mark.engines
MODEL = "gemma3-270m"
# How much of each input channel of a matrix is left in its quantized form: the median over channels; taken
# with the norm before it where AWQ moves scales into that. Source of the layout: compressed-tensors'
# pack_to_int32: eight columns in an int32, the first in the lowest bits, each 8 more than its value.
SLOPES = (
    LOAD
    + """def kept(path, matrix):
    packed, scales = (load(path, f"{matrix}.weight_{part}") for part in ("packed", "scale"))
    values = ((packed[:, :, None] >> np.arange(0, 32, 4)) & 15).reshape(packed.shape[0], -1) - 8
    return values * scales.repeat(128, axis=1)
whole, quantized = sys.argv[1:]
slopes = {}
for norm, matrix in [(None, "self_attn.q_proj"), ("pre_feedforward_layernorm", "mlp.gate_proj")]:
    layer = "model.layers.5."
    before, after = load(whole, f"{layer}{matrix}.weight"), kept(quantized, f"{layer}{matrix}")
    if norm:
        before = before * (1 + load(whole, f"{layer}{norm}.weight"))
        after = after * (1 + load(quantized, f"{layer}{norm}.weight"))
    slopes[matrix] = float(np.median((before * after).sum(0) / np.maximum((before * before).sum(0), 1e-9)))
print(json.dumps(slopes))
"""
)


def weights_of(quantization: str) -> WeightsFile:
    found = find(Weights(MODEL, quantization, "safetensors"), cache_dir())
    if found is None:
        pytest.skip(f"{MODEL} at {quantization} is not here: bench prepare quantization={quantization}")
    return found


def manifest_of(found: WeightsFile) -> Mapping[str, Any]:
    manifest: Mapping[str, Any] = json.loads(found.path.with_name(found.path.name + ".json").read_text())
    return manifest


def test_the_layers_are_quantized_and_the_rest_is_kept() -> None:
    found, source = weights_of("w4a16"), weights_of("bf16")
    shapes = tensor_shapes(found.path / "model.safetensors")
    # Four matrices of attention and three of the feed-forward part in each of 18 layers.
    assert sum(name.endswith(".weight_packed") for name in shapes) == 18 * 7
    assert shapes["model.layers.17.mlp.down_proj.weight_packed"] == (640, 2048 // 8)
    assert shapes["model.layers.17.mlp.down_proj.weight_scale"] == (640, 2048 // 128)
    assert shapes["model.embed_tokens.weight"] == (262_144, 640)
    config = json.loads((found.path / "config.json").read_text())
    about = config.pop("quantization_config")
    assert (about["quant_method"], about["ignore"]) == ("compressed-tensors", ["lm_head"])
    weights = about["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 128, True)
    assert config == json.loads((source.path / "config.json").read_text())
    names = {path.name for path in found.path.iterdir()}
    assert names == {path.name for path in source.path.iterdir()}
    for name in names - {"config.json", "model.safetensors"}:
        assert (found.path / name).read_bytes() == (source.path / name).read_bytes()


def test_scales_are_moved_into_the_norm_before_and_nowhere_else() -> None:
    tools = installed(cache_dir(), CHECKPOINT)
    if tools is None:
        pytest.skip(f"{CHECKPOINT.environment} is not installed")
    paths = [weights_of(quantization).path / "model.safetensors" for quantization in ("bf16", "w4a16")]
    argv = [tools.folder / "bin" / "python", "-P", "-c", SLOPES, *paths]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    slopes = json.loads(done.stdout)
    assert slopes == {
        "self_attn.q_proj": pytest.approx(1, abs=0.05),
        "mlp.gate_proj": pytest.approx(1, abs=0.05),
    }


def test_manifest_names_source_tool_and_calibration() -> None:
    found = weights_of("w4a16")
    manifest = manifest_of(found)
    assert manifest["source_sha256"] == weights_of("bf16").sha256
    assert manifest["made_by"] == "llmcompressor 0.14.0.1"
    assert (manifest["calibration"], manifest["calibrated_on"]) == ("general.txt", "8 blocks of 512 tokens")
    # 100 of 268 million weights are quantized; the embedding keeps its 16 bits.
    assert manifest["bits_per_weight"] == pytest.approx(11.6, abs=0.2)
    assert {path.relative_to(found.path).as_posix(): sha256_of(path) for path in files_below(found.path)} == {
        name: each["sha256"] for name, each in manifest["files"].items()
    }
