"""llama.cpp's converter on a real checkpoint: the one that `bench prepare quantization=bf16` keeps.

`bench install convert` makes the environment.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import safetensors, write_checkpoint
from weights_steps import Workshop

from serving_bench.engines.model.files import gguf_header
from serving_bench.engines.model.weights import find, prepare
from serving_bench.engines.model.weights.tools import CONVERT, GGUF
from serving_bench.harness.contracts import InstallSpec, Weights
from serving_bench.harness.errors import MissingError
from serving_bench.harness.install.install import cache_dir, installed

pytestmark = pytest.mark.engines
# The largest difference of each pair of tensors of the same name, against the largest value.
DIFFERENCES = """
import json, sys
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
files = [{t.name: t for t in GGUFReader(path).tensors} for path in sys.argv[1:]]
one, other = files
assert one.keys() == other.keys()
found = {}
for name in one:
    a, b = (dequantize(each[name].data, each[name].tensor_type) for each in files)
    found[name] = float(np.abs(a - b).max() / np.abs(a).max())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    found = find(Weights("gemma3-270m", "bf16", "safetensors"), cache_dir())
    if found is None:
        pytest.skip("the checkpoint is not here: bench prepare engine=vllm quantization=bf16")
    return found.path


def tool(spec: InstallSpec) -> Path:
    there = installed(cache_dir(), spec)
    if there is None:
        pytest.skip(f"{spec.environment} is not installed")
    return there.folder


@pytest.fixture(scope="module")
def cache(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool(CONVERT)
    return tmp_path_factory.mktemp("cache")


def made(model: Path, quantization: str, cache: Path, said: list[str] | None = None) -> Path:
    on_line = (said if said is not None else []).append
    return prepare(Weights(str(model), quantization, "gguf"), cache, Workshop(tool, on_line)).path


def differences(one: Path, other: Path) -> dict[str, float]:
    python = tool(GGUF) / "bin" / "python"
    argv: Sequence[object] = [python, "-I", "-c", DIFFERENCES, one, other]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_converted_file_has_the_tensors_of_the_file_that_the_checkpoint_came_from(
    checkpoint: Path, cache: Path
) -> None:
    kept = find(Weights("gemma3-270m", "fp16", "gguf"), cache_dir())
    if kept is None:
        pytest.skip("the F16 file is not here: bench prepare engine=llama_cpp quantization=fp16")
    path = made(checkpoint, "bf16", cache)
    assert gguf_header(path).quantization == "bf16"
    found = differences(kept.path, path)
    assert len(found) == 236
    assert max(found.values()) <= 2**-8  # of bf16's rounding


def test_converted_file_says_what_a_server_has_to_know(checkpoint: Path, cache: Path) -> None:
    facts = gguf_header(made(checkpoint, "bf16", cache)).values
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    said = json.loads((checkpoint / "tokenizer_config.json").read_text())
    assert facts["gemma3.attention.sliding_window"] == config["sliding_window"]
    assert facts["gemma3.context_length"] == config["max_position_embeddings"]
    assert facts["tokenizer.ggml.bos_token_id"] == config["bos_token_id"]
    assert facts["tokenizer.ggml.eos_token_id"] == config["eos_token_id"]
    assert facts["tokenizer.chat_template"] == said["chat_template"]


@pytest.mark.parametrize("quantization", ["fp16", "gguf-q8_0", "gguf-q4_k_m"])
def test_other_kinds_are_made_of_the_converted_file(checkpoint: Path, cache: Path, quantization: str) -> None:
    whole = made(checkpoint, "bf16", cache)
    path = made(checkpoint, quantization, cache)
    assert gguf_header(path).quantization == quantization
    assert path.parent == whole.parent
    manifest = json.loads(path.with_name(path.name + ".json").read_text())
    assert manifest["made_from"]["made_from"]["path"] == str(checkpoint)


def test_unknown_architecture_is_the_converters_own_sentence(cache: Path, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own", architectures=["TotallyNewForCausalLM"], model_type="new")
    with pytest.raises(MissingError) as caught:
        made(path, "gguf-q8_0", tmp_path / "cache")
    assert str(caught.value).startswith(f"bf16 could not be made from {path} (exit code 1); the end of its")
    assert str(caught.value).endswith("Model TotallyNewForCausalLM is not supported")
    assert not list((tmp_path / "cache").rglob("*.gguf*"))


def test_code_beside_the_tokenizer_is_not_run(cache: Path, tmp_path: Path) -> None:
    # The converter asks for a Dream model's tokenizer with its code.
    path = write_checkpoint(
        tmp_path / "own", architectures=["DreamModel"], model_type="Dream", vocab_size=100
    )
    (path / "model.safetensors").write_bytes(safetensors({"model.embed_tokens.weight": (100, 64)}))
    named = {"tokenizer_class": "Tiny", "auto_map": {"AutoTokenizer": ["tiny.Tiny", "tiny.Tiny"]}}
    (path / "tokenizer_config.json").write_text(json.dumps(named))
    ran = tmp_path / "ran"
    (path / "tiny.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(MissingError, match="it needs the code that comes with the checkpoint"):
        made(path, "bf16", tmp_path / "cache")
    assert not ran.exists()
