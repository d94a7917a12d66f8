"""What is made of the user's own files. The programs that make it are stand-ins of a few lines, run as the
real ones are; tests/engines/model/weights/test_weights_live.py has those."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import write_checkpoint
from gguf_bytes import entry, gguf, gguf_of_type
from weights_steps import environment, prepared, reason_text

from serving_bench.engines.model.files import FILE_TYPES
from serving_bench.engines.model.weights import can_prepare, find, missing_bytes
from serving_bench.engines.model.weights.ways import METADATA_BYTES
from serving_bench.harness.contracts import InstallSpec, Weights
from serving_bench.harness.errors import MissingError

# Stands for convert_gguf.py and llama-quantize: input, output, kind.
CONVERT = """
import pathlib, sys
kinds = {kinds}
assert pathlib.Path(sys.argv[1]).read_bytes().startswith(b"GGUF")
pathlib.Path(sys.argv[2]).write_bytes(bytes.fromhex(kinds[sys.argv[3].lower()]))
"""
# Stands for quantize_awq.py: input, output, and what it calibrates on.
QUANTIZE = """
import json, pathlib, shutil, sys
source, output = map(pathlib.Path, sys.argv[1:3])
config = json.loads((source / "config.json").read_text())
config["quantization_config"] = {"quant_method": "awq"}
(output / "config.json").write_text(json.dumps(config))
shutil.copy(source / "model.safetensors", output)
"""
GGUF_NAMES = {"fp16": "f16", "bf16": "bf16"}


@pytest.fixture
def converter(tmp_path: Path) -> Path:
    kinds = {
        GGUF_NAMES.get(name, name.removeprefix("gguf-")): gguf_of_type(number).hex()
        for number, name in FILE_TYPES.items()
    }
    return environment(tmp_path / "converter", CONVERT.format(kinds=kinds))


def own_file(folder: Path, file_type: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "own.gguf"
    path.write_bytes(gguf_of_type(file_type) + bytes(2_000))
    return path


def manifest_of(path: Path) -> Mapping[str, Any]:
    manifest: Mapping[str, Any] = json.loads(path.with_name(path.name + ".json").read_text())
    return manifest


@pytest.mark.parametrize("stored", [0, 1, 32], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("quantization", "name"),
    [("gguf-q8_0", "own-q8_0"), ("gguf-q4_0", "own-q4_0"), ("gguf-q5_k_m", "own-q5_k_m")],
)
def test_gguf_file_that_is_not_quantized_is_made_into_others(
    tmp_path: Path, converter: Path, stored: int, quantization: str, name: str
) -> None:
    own = own_file(tmp_path / "models", stored)
    cache = tmp_path / "cache"
    weights = Weights(str(own), quantization, "gguf")
    assert can_prepare(weights) is None
    assert find(weights, cache) is None
    lines: list[str] = []
    made = prepared(weights, cache, lambda spec: converter, lines.append)
    assert lines[0] == f"own: making {quantization} from own.gguf"
    assert made.path.name == f"{name}.gguf"
    assert made.path.is_relative_to(cache / "weights" / "local")
    assert find(weights, cache) == made
    assert missing_bytes(weights, cache) == 0
    assert own.is_file()
    assert made.notes == ()
    manifest = manifest_of(made.path)
    assert manifest["source_sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
    assert manifest["made_by"].endswith("tool 1.2")
    bits = 32 if stored == 0 else 16
    assert manifest["bits_per_weight"] == pytest.approx(made.size_bytes / own.stat().st_size * bits, rel=0.01)


@pytest.mark.parametrize(("stored", "quantization"), [(32, "fp16"), (1, "bf16"), (0, "bf16")])
def test_one_precision_is_made_of_another(tmp_path: Path, converter: Path, stored: int, quantization: str):
    weights = Weights(str(own_file(tmp_path / "models", stored)), quantization, "gguf")
    made = prepared(weights, tmp_path, lambda spec: converter)
    assert made.path.name == f"own-{GGUF_NAMES[quantization]}.gguf"


def test_what_was_made_of_a_file_is_not_taken_for_that_of_another(tmp_path: Path, converter: Path) -> None:
    own, other = own_file(tmp_path / "a", 1), own_file(tmp_path / "b", 1)
    cache = tmp_path / "cache"
    weights = Weights(str(own), "gguf-q8_0", "gguf")
    prepared(weights, cache, lambda spec: converter)
    assert find(Weights(str(other), "gguf-q8_0", "gguf"), cache) is None
    os.utime(own, ns=(1, 1))  # written anew
    assert find(weights, cache) is None


def test_size_of_what_is_made_follows_from_the_file(tmp_path: Path) -> None:
    own = own_file(tmp_path / "models", 0)
    parameters = own.stat().st_size // 4
    expected = parameters * 8.5 / 8 + METADATA_BYTES
    assert missing_bytes(Weights(str(own), "gguf-q8_0", "gguf"), tmp_path) == pytest.approx(expected, abs=2)


def test_one_part_of_several_is_served_but_nothing_is_made_of_it(tmp_path: Path) -> None:
    path = tmp_path / "own-00001-of-00002.gguf"
    count = entry("split.count", 2, struct.pack("<H", 2))
    path.write_bytes(gguf(entry("general.file_type", 4, struct.pack("<I", 1)), count))
    assert can_prepare(Weights(str(path), "fp16", "gguf")) is None
    assert "is one part of several" in reason_text(Weights(str(path), "gguf-q8_0", "gguf"))


def test_gguf_file_cannot_be_made_into_what_no_tool_makes(tmp_path: Path) -> None:
    own = own_file(tmp_path, 1)
    assert "cannot be made as awq" in reason_text(Weights(str(own), "awq", "gguf"))
    assert "takes a checkpoint's directory" in reason_text(Weights(str(own), "bf16", "safetensors"))


def test_converter_that_writes_another_kind_is_not_believed(tmp_path: Path) -> None:
    kinds = {"q8_0": gguf_of_type(15).hex()}
    wrong = environment(tmp_path / "wrong", CONVERT.format(kinds=kinds))
    weights = Weights(str(own_file(tmp_path / "models", 1)), "gguf-q8_0", "gguf")
    with pytest.raises(MissingError, match="says that it is gguf-q4_k_m, not gguf-q8_0"):
        prepared(weights, tmp_path, lambda spec: wrong)
    assert find(weights, tmp_path) is None


def test_awq_of_a_directory_names_the_hash_of_its_safetensors(tmp_path: Path) -> None:
    autoawq = environment(tmp_path / "autoawq", QUANTIZE)
    own = write_checkpoint(tmp_path / "own")
    (own / "notes.txt").write_text("not a weight")
    asked: list[str] = []

    def tool(spec: InstallSpec) -> Path:
        asked.append(spec.environment)
        return autoawq

    weights = Weights(str(own), "awq", "safetensors")
    made = prepared(weights, tmp_path / "cache", tool)
    assert find(weights, tmp_path / "cache") == made
    digest = hashlib.sha256((own / "model.safetensors").read_bytes()).hexdigest()
    # What `sha256sum *.safetensors | sha256sum` prints in that directory.
    expected = hashlib.sha256(f"{digest}  model.safetensors\n".encode()).hexdigest()
    assert manifest_of(made.path)["source_sha256"] == expected
    assert asked[0].startswith("autoawq-")
