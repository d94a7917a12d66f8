"""A model's shape without its weights: of a table, a config.json, a GGUF header, a hub on this machine."""

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, write_checkpoint
from gguf_bytes import entry, text
from hub_server import Hub, serving
from model_configs import LISTED, MIXTRAL, QWEN3_30B_A3B
from weights_steps import Workshop

from serving_bench.engines.model import facts
from serving_bench.engines.model.facts import known_facts, most_context
from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.weights.tools import TOOLS
from serving_bench.harness.contracts import InstallSpec
from serving_bench.harness.errors import MissingError, UserError


def written(folder: Path, config: Mapping[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder / "config.json")


@pytest.mark.parametrize("name", LISTED)
def test_parameters_of_an_unknown_architecture_are_estimated_to_two_percent(name: str, tmp_path: Path):
    assert not known_facts(written(tmp_path, LISTED[name])).is_estimated
    guess = known_facts(written(tmp_path, {**LISTED[name], "model_type": "newest"}))
    assert guess.facts.parameters == pytest.approx(MODELS[name].facts.parameters, rel=0.02)
    assert guess.is_estimated
    assert "estimated" in guess.source


@pytest.mark.parametrize("config", [MIXTRAL, QWEN3_30B_A3B], ids=["mixtral", "qwen3-moe"])
def test_experts_are_estimated_as_well(config: dict[str, Any], tmp_path: Path) -> None:
    counted = known_facts(written(tmp_path, config)).facts.parameters
    guess = known_facts(written(tmp_path, {**config, "model_type": "newest"}))
    assert guess.facts.parameters == pytest.approx(counted, rel=0.02)


def test_a_listed_model_is_known_without_any_file() -> None:
    assert known_facts("llama-3.3-70b-instruct").facts is MODELS["llama-3.3-70b-instruct"].facts


def test_a_directory_needs_no_weights(tmp_path: Path) -> None:
    by_file = known_facts(written(tmp_path, LISTED["qwen3-8b"]))
    assert known_facts(str(tmp_path)) == by_file


def test_the_weights_of_a_directory_are_counted(tmp_path: Path) -> None:
    known = known_facts(str(write_checkpoint(tmp_path / "tiny", vocab_size=8, intermediate_size=8)))
    assert known.facts.parameters == 100
    assert known.source == "its config.json, parameters counted by its files"


def test_packed_weights_are_not_counted(tmp_path: Path) -> None:
    config = {**LISTED["qwen3-8b"], "quantization_config": {"quant_method": "awq"}}
    known = known_facts(str(write_checkpoint(tmp_path / "tiny", config)))
    assert known.facts.parameters == pytest.approx(8_190_735_360, rel=0.001)


def a_gguf(*tensors: tuple[str, tuple[int, ...]], **numbers: int) -> bytes:
    """A header with these tensors."""
    shape = {"block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2,
             "embedding_length": 32, "context_length": 2048}  # fmt: skip
    entries = [entry("general.architecture", 8, text("tiny"))]
    entries += [entry(f"tiny.{key}", 4, struct.pack("<I", value)) for key, value in shape.items()]
    entries += [entry(key.replace("_", "."), 4, struct.pack("<I", value)) for key, value in numbers.items()]
    infos = b"".join(
        text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + bytes(12)
        for name, dims in tensors
    )
    return (
        b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + infos + bytes(32)
    )


def test_a_gguf_file_tells_its_shape_and_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(a_gguf(("token_embd.weight", (32, 100)), ("blk.0.attn_q.weight", (32, 32))))
    known = known_facts(str(path))
    assert (known.facts.layers, known.facts.kv_heads, known.facts.head_size) == (2, 2, 8)
    assert known.facts.parameters == 32 * 100 + 32 * 32


def test_a_gguf_file_in_parts_is_counted_over_all_of_them(tmp_path: Path) -> None:
    first = tmp_path / "tiny-00001-of-00002.gguf"
    first.write_bytes(a_gguf(("token_embd.weight", (32, 100)), split_count=2))
    with pytest.raises(UserError, match="1 of its 2 parts are there"):
        known_facts(str(first))
    (tmp_path / "tiny-00002-of-00002.gguf").write_bytes(a_gguf(("blk.0.attn_q.weight", (32, 32))))
    assert known_facts(str(first)).facts.parameters == 32 * 100 + 32 * 32


def without_shape(tmp_path: Path) -> str:
    return written(tmp_path, {"model_type": "mamba"})


MISTAKES = {
    "nope": "model=nope: no such model; see `bench list models`, or give a path",
    "/absent/config.json": "model=/absent/config.json: no such file or directory; give a config.json",
    "hf:nonsense": "model=hf:nonsense: write hf:organisation/name",
}


@pytest.mark.parametrize("model", MISTAKES)
def test_a_model_that_is_not_there_is_a_mistake(model: str) -> None:
    with pytest.raises(UserError) as error:
        known_facts(model)
    assert str(error.value).startswith(MISTAKES[model])


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ("[]", "not an object"), ('{"model_type": "mamba"}', "tells no shape")],
)
def test_a_config_that_tells_nothing_is_a_mistake(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        known_facts(str(path))
    assert str(error.value).count("\n") == 0


def test_a_directory_without_a_config_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a checkpoint: it has no config\.json"):
        known_facts(str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(a_gguf())
    with pytest.raises(
        UserError, match=rf"is a directory; give a file in it, such as model={tmp_path}/a\.gguf"
    ):
        known_facts(str(tmp_path))


# --- the hub ---------------------------------------------------------------------------------------

SHAPE = {**CONFIG, "vocab_size": 1000, "intermediate_size": 256}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    files = {"config.json": json.dumps(SHAPE).encode(), "model.safetensors": bytes(200_000)}
    with serving(Hub("org/tiny", files, counted={"BF16": 400_000, "F32": 64})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


def test_of_the_hub_only_the_config_and_the_count_are_had(hub: Hub) -> None:
    known = known_facts("hf:org/tiny")
    assert (known.facts.layers, known.facts.parameters) == (4, 400_064)
    assert known.source == "config.json on the hub, parameters counted by the hub"
    asked = {path.rpartition("/")[2] for _, path, _ in hub.seen}
    assert asked == {"main", "config.json"}
    assert hub.tokens
    assert set(hub.tokens) == {None}


def test_the_hubs_program_runs_in_a_tools_environment_where_bench_has_none(hub: Hub, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="tool-hub is not installed; run `bench install hub`"):
        known_facts("hf:org/tiny")
    asked: list[InstallSpec] = []

    def tool(spec: InstallSpec) -> Path:
        asked.append(spec)
        return Path(sys.prefix)

    assert known_facts("hf:org/tiny", Workshop(tool)).facts.layers == 4
    assert asked == [TOOLS["hub"]]


def test_no_tool_is_installed_for_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    tools: list[InstallSpec] = []
    with pytest.raises(
        MissingError, match=r"127\.0\.0\.1:9 cannot be reached from here \(Connection refused"
    ):
        known_facts("hf:org/tiny", Workshop(tools.append))
    assert tools == []


def test_of_a_quantized_checkpoint_the_hubs_count_is_not_believed(hub: Hub) -> None:
    awq = {**SHAPE, "quantization_config": {"quant_method": "awq"}}
    hub.files = {"config.json": json.dumps(awq).encode()}
    known = known_facts("hf:org/tiny")
    # Twice 1,000 x 64; 4 layers of 64 x 64 x 2.5 of attention, 3 x 64 x 256 and 2 x 64; a norm of 64.
    assert known.facts.parameters == 2 * 64_000 + 4 * (10_240 + 49_152 + 128) + 64
    assert "computed from the shape" in known.source


def test_without_the_hubs_count_the_shape_tells(hub: Hub) -> None:
    hub.counted = None
    assert known_facts("hf:org/tiny").facts.parameters == 2 * 64_000 + 4 * (10_240 + 49_152 + 128) + 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 401, "error_code": "GatedRepo"}, "is gated: accept its terms"),
        ({"status": 404, "error_code": "RepoNotFound"}, "no such repository, or a private one"),
        ({"status": 404, "error_code": "RevisionNotFound"}, "has no revision main"),
        ({"status": 503}, "answered 503"),
        ({"files": {"config.json": b"{"}}, "no config.json that can be read"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_line(hub: Hub, change: dict[str, Any], said: str) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    with pytest.raises(MissingError, match=said) as error:
        known_facts("hf:org/tiny")
    assert str(error.value).startswith("model=hf:org/tiny: ")
    assert "\n" not in str(error.value)


def test_a_forbidden_hub_is_not_called(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE forbids"):
        known_facts("hf:org/tiny")
    assert not hub.seen


def test_facts_of_a_row_are_not_those_of_a_path(tmp_path: Path) -> None:
    """A file that is called like a listed model is named by its path."""
    known = known_facts(written(tmp_path / "gemma3-270m", LISTED["qwen3-8b"]))
    assert known.facts == replace(known.facts, architecture="qwen3")


@pytest.mark.parametrize(
    ("change", "most_tokens"),
    [
        ({}, 40_960),
        ({"rope_scaling": None}, 40_960),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 40_960),
        ({"rope_parameters": {"rope_type": "default"}}, 40_960),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, None),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, None),
        ({"num_attention_heads": 0}, None),
    ],
)
def test_the_most_context_is_told_unless_positions_are_stretched(
    tmp_path: Path, change: dict[str, Any], most_tokens: int | None
) -> None:
    written(tmp_path, {**LISTED["qwen3-8b"], **change})
    assert MODELS["qwen3-8b"].facts.context_length == 40_960
    assert most_context(str(tmp_path)) == most_tokens


def test_the_most_context_of_a_listed_model_and_of_a_file_is_told_without_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(a_gguf(("token_embd.weight", (32, 100))))
    assert [most_context(model) for model in ("gemma3-270m", str(path))] == [32_768, 2048]
    assert [most_context(model) for model in ("hf:org/tiny", "nope", "/absent")] == [None, None, None]


def test_what_is_there_but_is_no_file_is_called_so() -> None:
    with pytest.raises(UserError, match=r"^model=/dev/null: no such file or directory; give a config.json"):
        known_facts("/dev/null")
