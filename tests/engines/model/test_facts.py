"""A model's shape without its weights: of a table, a config.json, a GGUF header, a hub on this machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, write_checkpoint
from gguf_bytes import entry, text
from hub_server import Hub, serving

from engines.model.facts import known_facts, most_context
from engines.model.models import MODELS
from engines.model.shape import ties_embeddings
from harness.errors import MissingError, UserError

# What each listed model's config.json says of its matrices: hidden_size, intermediate_size,
# num_attention_heads, vocab_size.
MATRICES: Mapping[str, tuple[int, int, int, int]] = {
    "gemma3-270m": (640, 2048, 4, 262_144),
    "qwen2.5-0.5b-instruct": (896, 4864, 14, 151_936),
    "qwen2.5-1.5b-instruct": (1536, 8960, 12, 151_936),
    "qwen2.5-7b-instruct": (3584, 18944, 28, 152_064),
    "qwen2.5-14b-instruct": (5120, 13824, 40, 152_064),
    "qwen2.5-32b-instruct": (5120, 27648, 40, 152_064),
    "qwen2.5-72b-instruct": (8192, 29568, 64, 152_064),
    "qwen3-0.6b": (1024, 3072, 16, 151_936),
    "qwen3-8b": (4096, 12288, 32, 151_936),
    "qwen3-32b": (5120, 25600, 64, 151_936),
    "llama-3.2-1b-instruct": (2048, 8192, 32, 128_256),
    "llama-3.1-8b-instruct": (4096, 14336, 32, 128_256),
    "llama-3.3-70b-instruct": (8192, 28672, 64, 128_256),
    "mistral-7b-instruct-v0.3": (4096, 14336, 32, 32_768),
    "gemma-2-9b-it": (3584, 14336, 16, 256_000),
    "gemma-3-1b-it": (1152, 6912, 4, 262_144),
}
TIED = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen3-0.6b", "llama-3.2-1b", "gemma")


def config_of(name: str, model_type: str | None = None) -> dict[str, Any]:
    """A listed model's config.json, as far as its shape goes."""
    facts = MODELS[name].facts
    hidden, intermediate, heads, vocabulary = MATRICES[name]
    return {
        "model_type": model_type or facts.architecture,
        "num_hidden_layers": facts.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_size,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": facts.context_length,
        "tie_word_embeddings": name.startswith(TIED),
    }


def written(folder: Path, config: Mapping[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder / "config.json")


@pytest.mark.parametrize("name", MODELS)
def test_every_listed_model_has_its_matrices_here(name: str) -> None:
    assert name in MATRICES


@pytest.mark.parametrize("name", MATRICES)
def test_parameters_of_a_config_are_those_of_the_model_to_two_percent(name: str, tmp_path: Path) -> None:
    known = known_facts(written(tmp_path, config_of(name)))
    assert known.facts.parameters == pytest.approx(MODELS[name].facts.parameters, rel=0.02)
    assert not known.is_estimated


@pytest.mark.parametrize("name", MATRICES)
def test_an_unknown_architecture_is_estimated_to_two_percent_and_said_so(name: str, tmp_path: Path) -> None:
    config = config_of(name, "newest")
    known = known_facts(written(tmp_path, config))
    assert known.facts.parameters == pytest.approx(MODELS[name].facts.parameters, rel=0.02)
    assert known.is_estimated
    assert "estimated" in known.source
    assert ties_embeddings(config) is name.startswith(TIED)


# As the hub counts them. Source: each model's config.json and its page at the hub.
EXPERTS = [
    (
        "Mixtral-8x7B",
        {"model_type": "mixtral", "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096,
         "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "num_local_experts": 8,
         "max_position_embeddings": 32768, "tie_word_embeddings": False},
        46_702_792_704,
    ),
    (
        "Qwen3-30B-A3B",
        {"model_type": "qwen3_moe", "num_hidden_layers": 48, "num_attention_heads": 32, "hidden_size": 2048,
         "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
         "num_experts": 128, "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936,
         "max_position_embeddings": 40960, "tie_word_embeddings": False},
        30_532_122_624,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config", "parameters"), EXPERTS, ids=[each[0] for each in EXPERTS])
@pytest.mark.parametrize("model_type", [None, "newest"])
def test_experts_are_counted(
    name: str, config: dict[str, Any], parameters: int, model_type: str | None, tmp_path: Path
) -> None:
    known = known_facts(written(tmp_path, {**config, "model_type": model_type or config["model_type"]}))
    assert known.facts.parameters == pytest.approx(parameters, rel=0.02)


def test_a_listed_model_is_known_without_any_file() -> None:
    known = known_facts("llama-3.3-70b-instruct")
    assert known.facts is MODELS["llama-3.3-70b-instruct"].facts


def test_a_directory_needs_no_weights(tmp_path: Path) -> None:
    by_file = known_facts(written(tmp_path, config_of("qwen3-8b")))
    assert known_facts(str(tmp_path)) == by_file


def test_the_weights_of_a_directory_are_counted(tmp_path: Path) -> None:
    known = known_facts(str(write_checkpoint(tmp_path / "tiny", vocab_size=8, intermediate_size=8)))
    assert known.facts.parameters == 100
    assert known.source == "its config.json, parameters counted by its files"


def test_packed_weights_are_not_counted(tmp_path: Path) -> None:
    config = {**config_of("qwen3-8b"), "quantization_config": {"quant_method": "awq"}}
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
    with pytest.raises(UserError, match=r"tiny-00002-of-00002\.gguf, another part of it, is"):
        known_facts(str(first))
    (tmp_path / "tiny-00002-of-00002.gguf").write_bytes(a_gguf(("blk.0.attn_q.weight", (32, 32))))
    assert known_facts(str(first)).facts.parameters == 32 * 100 + 32 * 32


def without_shape(tmp_path: Path) -> str:
    return written(tmp_path, {"model_type": "mamba"})


MISTAKES = {
    "nope": "model=nope: no such model; choose from gemma3-270m, ",
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
    [("{", "cannot be read as JSON"), ("[]", "not an object"), ('{"model_type": "mamba"}', "tells no shape")],
)
def test_a_config_that_tells_nothing_is_a_mistake(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        known_facts(str(path))
    assert str(error.value).count("\n") == 0


def test_a_directory_without_a_config_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint: it has no config\.json"):
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


def test_of_a_quantized_checkpoint_the_hubs_count_is_not_believed(hub: Hub) -> None:
    awq = {**SHAPE, "quantization_config": {"quant_method": "awq"}}
    hub.files = {"config.json": json.dumps(awq).encode()}
    known = known_facts("hf:org/tiny")
    # Twice 1,000 x 64; 4 layers of 64 x 64 x 2.5 of attention, 3 x 64 x 256 and 2 x 64; a norm of 64.
    assert known.facts.parameters == 2 * 64_000 + 4 * (10_240 + 49_152 + 128) + 64
    assert "worked out from the shape" in known.source


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
    known = known_facts(written(tmp_path / "gemma3-270m", config_of("qwen3-8b")))
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
    written(tmp_path, {**config_of("qwen3-8b"), **change})
    assert MODELS["qwen3-8b"].facts.context_length == 40_960
    assert most_context(str(tmp_path)) == most_tokens


def test_the_most_context_of_a_listed_model_and_of_a_file_is_told_without_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(a_gguf(("token_embd.weight", (32, 100))))
    assert [most_context(model) for model in ("gemma3-270m", str(path))] == [32_768, 2048]
    assert [most_context(model) for model in ("hf:org/tiny", "nope", "/absent")] == [None, None, None]


def test_what_is_there_but_is_no_file_is_called_so() -> None:
    with pytest.raises(UserError, match=r"^model=/dev/null: neither a file nor a directory$"):
        known_facts("/dev/null")
