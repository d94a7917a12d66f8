"""w4a16: a 4-bit checkpoint as compressed-tensors, recognised where it is and made by llm-compressor. The
program that makes it is a stand-in of a few lines; tests/engines/model/weights/test_weights_w4a16_live.py has
the real one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import write_checkpoint
from weights_steps import environment, prepared

from serving_bench.engines.model.shape import quantization_of
from serving_bench.engines.model.sizes import QUANTIZATIONS
from serving_bench.engines.model.weights import can_prepare, find
from serving_bench.engines.model.weights.choosing import way_of
from serving_bench.engines.model.weights.tools import LLMCOMPRESSOR, TOOLS
from serving_bench.engines.model.weights.ways import Way
from serving_bench.harness.contracts import InstallSpec, Reason, Weights

# As llm-compressor 0.14.0.1 writes it for gemma3-270m, shortened.
GROUP: Mapping[str, Any] = {
    "format": "pack-quantized",
    "input_activations": None,
    "output_activations": None,
    "targets": ["Linear"],
    "weights": {"group_size": 128, "num_bits": 4, "strategy": "group", "symmetric": True, "type": "int"},
}
QUANTIZED: Mapping[str, Any] = {
    "config_groups": {"group_0": GROUP},
    "format": "pack-quantized",
    "ignore": ["lm_head"],
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
}
QUANTIZE = """
import json, pathlib, shutil, sys
source, output, text = map(pathlib.Path, sys.argv[1:4])
assert text.name == "general.txt" and sys.argv[4] == "1"
config = json.loads((source / "config.json").read_text())
config["quantization_config"] = {quantized}
(output / "config.json").write_text(json.dumps(config))
shutil.copy(source / "model.safetensors", output)
(output / "recipe.yaml").write_text("of the program's own")
print("w4a16: part 1 of 1")
print("w4a16: calibrated on 8 blocks of 512 tokens")
"""


def group(**more: Any) -> Mapping[str, Any]:
    return {**QUANTIZED, "config_groups": {"group_0": {**GROUP, **more}}}


def weights_of(model: object, quantization: str = "w4a16") -> Weights:
    return Weights(str(model), quantization, "safetensors")


@pytest.fixture
def quantizer(tmp_path: Path) -> Path:
    return environment(tmp_path / "environment", QUANTIZE.format(quantized=dict(QUANTIZED)))


@pytest.mark.parametrize(
    ("quantized", "name"),
    [
        (QUANTIZED, "w4a16"),
        # Older writers name the format once for all groups.
        (group(format=None), "w4a16"),
        (group(weights={**GROUP["weights"], "symmetric": False}), "w4a16"),
        (group(weights={**GROUP["weights"], "num_bits": 8}), "compressed-tensors"),
        (group(input_activations={"num_bits": 8, "type": "int"}), "compressed-tensors"),
        (group(format="marlin-24"), "compressed-tensors"),
        (
            group(format="nvfp4-pack-quantized", weights={"type": "float", "num_bits": 4}),
            "compressed-tensors",
        ),
        (group(format="float-quantized", weights={"type": "float", "num_bits": 8}), "fp8"),
        ({**QUANTIZED, "config_groups": {}}, "compressed-tensors"),
    ],
)
def test_only_packed_4_bit_weights_alone_are_w4a16(quantized: Mapping[str, Any], name: str) -> None:
    assert quantization_of({"quantization_config": quantized}) == name


def test_a_mixed_checkpoint_is_none() -> None:
    eight = {**GROUP, "weights": {**GROUP["weights"], "num_bits": 8}}
    mixed = {**QUANTIZED, "config_groups": {"group_0": GROUP, "group_1": eight}}
    assert quantization_of({"quantization_config": mixed}) == "compressed-tensors"


def test_own_checkpoint_is_served_as_it_is(tmp_path: Path) -> None:
    own = write_checkpoint(tmp_path / "own", quantization_config=QUANTIZED)
    found = find(weights_of(own), tmp_path / "cache")
    assert found is not None
    assert found.path == own
    assert can_prepare(weights_of(own, "awq")) == Reason(f"model={own} is w4a16, not awq")


def test_it_is_made_of_a_16_bit_directory_by_llm_compressor(tmp_path: Path, quantizer: Path) -> None:
    own, cache = write_checkpoint(tmp_path / "own"), tmp_path / "cache"
    (own / "tokenizer.json").write_text("{}")
    asked: list[str] = []
    lines: list[str] = []

    def tool(spec: InstallSpec) -> Path:
        asked.append(spec.environment)
        return quantizer

    made = prepared(weights_of(own), cache, tool, lines.append)
    assert find(weights_of(own), cache) == made
    assert set(asked) <= {spec.environment for spec in LLMCOMPRESSOR.values()}
    assert lines[0] == "own: making w4a16 from own; on a CPU a small model takes minutes, a large one hours"
    assert "w4a16: part 1 of 1" in lines
    manifest = json.loads(made.path.with_name(f"{made.path.name}.json").read_text())
    assert manifest["made_by"] == "tool 1.2"
    assert manifest["quantization"] == "w4a16"
    assert manifest["calibration"] == "general.txt"
    assert manifest["calibrated_on"] == "8 blocks of 512 tokens"
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    config = json.loads((made.path / "config.json").read_text())
    assert config == {**json.loads((own / "config.json").read_text()), "quantization_config": QUANTIZED}


def test_awq_and_w4a16_of_one_model_are_kept_apart() -> None:
    ways = [way_of(weights_of("gemma3-270m", name)) for name in ("awq", "w4a16")]
    assert [way.path.name for way in ways if isinstance(way, Way)] == ["gemma3-270m-awq", "gemma3-270m-w4a16"]


def test_it_is_made_of_a_published_16_bit_checkpoint() -> None:
    way, source = (way_of(weights_of("qwen2.5-0.5b-instruct", name)) for name in ("w4a16", "bf16"))
    assert isinstance(way, Way)
    assert isinstance(source, Way)
    assert way.source == source
    assert way.identity["made_from"] == source.identity


def test_it_is_no_gguf_file() -> None:
    reason = can_prepare(Weights("gemma3-270m", "w4a16", "gguf"))
    assert reason == Reason("gemma3-270m cannot be made as w4a16")


def test_bits_are_those_of_its_groups_without_zeros() -> None:
    assert QUANTIZATIONS["w4a16"].bits_per_weight == (128 * 4 + 16) / 128


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_its_environments_are_tools_of_their_own(device: str) -> None:
    spec = TOOLS[f"llmcompressor-{device}"]
    assert spec.environment == f"llmcompressor-{device}"
    assert spec.lock is not None
    pins = spec.lock.read_text()
    assert "\nllmcompressor==0.14.0.1 \\\n" in pins
    assert f"\ntorch==2.13.0{'+cpu' if device == 'cpu' else ''} \\\n" in pins
    assert "http" not in pins.replace("httpcore", "").replace("httpx", "")
