"""What config.json says of a model's shape, against the parameters that the hub counts in the checkpoints."""

import struct
from pathlib import Path
from typing import Any

import pytest
from gguf_bytes import entry, gguf, text
from model_configs import DEEPSEEK_V3, LISTED, MIXTRAL, QWEN3_30B_A3B

from serving_bench.engines.model.files import gguf_facts, gguf_header
from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.shape import facts_of
from serving_bench.harness.contracts import ModelFacts


def test_every_listed_model_is_checked() -> None:
    assert LISTED.keys() == MODELS.keys()


@pytest.mark.parametrize("name", LISTED)
def test_row_of_a_model_is_what_its_config_says_to_the_last_parameter(name: str) -> None:
    assert facts_of(LISTED[name]) == MODELS[name].facts


@pytest.mark.parametrize(
    ("found", "parameters"),
    [
        (MIXTRAL, 46_702_792_704),  # the hub's count of mistralai/Mixtral-8x7B-Instruct-v0.1
        (QWEN3_30B_A3B, 30_532_122_624),  # of Qwen/Qwen3-30B-A3B
        # 671.0 billion: DeepSeek-V3's README, "671B of the Main Model weights".
        (DEEPSEEK_V3, 671_026_419_200),
    ],
    ids=["mixtral", "qwen3-moe", "deepseek-v3"],
)
def test_experts_are_counted(found: dict[str, Any], parameters: int) -> None:
    facts = facts_of(found)
    assert facts is not None
    assert facts.parameters == parameters


def test_latent_attention_keeps_its_rank_and_the_positions() -> None:
    facts = facts_of(DEEPSEEK_V3)
    assert facts is not None
    assert facts.latent_size == 512 + 64


def test_parameters_of_an_unknown_kind_of_model_are_unknown() -> None:
    facts = facts_of({**MIXTRAL, "model_type": "new_moe"})
    assert facts is not None
    assert facts.parameters is None
    assert facts.vocabulary == 32_000


@pytest.mark.parametrize(
    ("more", "linear"),
    [
        ({}, 0),
        ({"layer_types": ["linear_attention"] * 6 + ["full_attention"] * 2}, 6),
        ({"layers_block_type": ["mamba", "attention"] * 4}, 4),
        ({"full_attention_interval": 4}, 6),
        ({"model_type": "qwen3_next"}, 6),
        ({"hybrid_override_pattern": "M-M*M-M*"}, 6),
        ({"attn_type_list": [0, 0, 0, 1, 0, 0, 0, 1]}, 6),
        ({"attn_layer_period": 4, "attn_layer_offset": 3}, 6),
        ({"layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 128}, 0),
    ],
)
def test_layers_without_keys_and_values_are_counted(more: dict[str, Any], linear: int) -> None:
    facts = facts_of({**MIXTRAL, "num_hidden_layers": 8, **more})
    assert facts is not None
    assert facts.linear_layers == linear


def test_chunks_of_attention_are_a_window() -> None:
    kinds = ["chunked_attention"] * 3 + ["full_attention"]
    more = {"num_hidden_layers": 4, "layer_types": kinds, "attention_chunk_size": 8192}
    facts = facts_of({**MIXTRAL, **more})
    assert facts is not None
    assert (facts.sliding_window, facts.sliding_layers) == (8192, 3)


# --- GGUF headers


def number(key: str, value: int) -> bytes:
    return entry(key, 4, struct.pack("<I", value))


def numbers(key: str, values: list[int]) -> bytes:
    return entry(key, 9, struct.pack(f"<IQ{len(values)}I", 4, len(values), *values))


def tensor(name: str, *shape: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)


def header(tmp_path: Path, architecture: str, *entries: bytes, tensors: tuple[bytes, ...] = ()) -> ModelFacts:
    shape = {"block_count": 4, "embedding_length": 64, "attention.head_count": 8, "context_length": 2048}
    known = [number(f"{architecture}.{key}", value) for key, value in shape.items()]
    data = bytearray(gguf(entry("general.architecture", 8, text(architecture)), *known, *entries))
    struct.pack_into("<Q", data, 8, len(tensors))
    path = tmp_path / "a.gguf"
    path.write_bytes(bytes(data) + b"".join(tensors))
    facts = gguf_facts(gguf_header(path))
    assert facts is not None
    return facts


EMBEDDING, OUTPUT = tensor("token_embd.weight", 64, 1000), tensor("output.weight", 64, 1000)


def test_embedding_and_parameters_are_read_from_the_tensors(tmp_path: Path) -> None:
    facts = header(tmp_path, "llama", tensors=(EMBEDDING, tensor("output_norm.weight", 64)))
    assert (facts.vocabulary, facts.hidden_size, facts.ties_embeddings) == (1000, 64, True)
    assert facts.parameters == 64_064
    untied = header(tmp_path, "llama", tensors=(EMBEDDING, OUTPUT))
    assert (untied.ties_embeddings, untied.parameters) == (False, 128_000)


def test_first_of_several_files_does_not_count_the_parameters(tmp_path: Path) -> None:
    facts = header(tmp_path, "llama", number("split.count", 2), tensors=(EMBEDDING,))
    assert (facts.parameters, facts.ties_embeddings) == (None, None)


@pytest.mark.parametrize(
    ("architecture", "pattern", "sliding"),
    [
        ("gemma2", (), (512, 2)),  # llama.cpp's own pattern: each second of four layers
        ("newer", (), (None, 0)),
        ("newer", (number("newer.attention.sliding_window_pattern", 4),), (512, 3)),
        ("newer", (numbers("newer.attention.sliding_window_pattern", [1, 1, 0, 1]),), (512, 3)),
    ],
)
def test_windows_are_the_headers_or_the_architectures(
    tmp_path: Path, architecture: str, pattern: tuple[bytes, ...], sliding: tuple[int | None, int]
) -> None:
    window = number(f"{architecture}.attention.sliding_window", 512)
    facts = header(tmp_path, architecture, window, *pattern)
    assert (facts.sliding_window, facts.sliding_layers) == sliding


def test_layers_without_kv_heads_keep_a_state(tmp_path: Path) -> None:
    facts = header(tmp_path, "lfm2", numbers("lfm2.attention.head_count_kv", [0, 2, 0, 2]))
    assert (facts.kv_heads, facts.linear_layers) == (2, 2)


def test_layers_of_different_heads_are_unknown_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    header(tmp_path, "odd")
    data = bytearray(path.read_bytes()) + numbers("odd.attention.head_count_kv", [1, 2, 1, 2])
    struct.pack_into("<Q", data, 16, 6)
    path.write_bytes(bytes(data))
    assert gguf_facts(gguf_header(path)) is None


def test_latent_attention_of_a_gguf_file(tmp_path: Path) -> None:
    entries = (number("deepseek2.attention.kv_lora_rank", 512), number("deepseek2.rope.dimension_count", 64))
    assert header(tmp_path, "deepseek2", *entries).latent_size == 576
