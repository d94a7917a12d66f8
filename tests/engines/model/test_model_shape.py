"""What config.json says of a model's shape, against the parameters that the hub counts in the checkpoints."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from gguf_bytes import entry, gguf, text

from engines.model.gguf_file import gguf_facts, gguf_header
from engines.model.models import MODELS
from engines.model.shape import facts_of
from harness.contracts import ModelFacts


def config(
    kind: str, hidden: int, feed_forward: int, heads: int, vocabulary: int, *, is_tied: bool, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": is_tied,
        **more,
    }


# What the repositories' config.json say, beside what the rows have.
QWEN2 = {"sliding_window": 131_072, "use_sliding_window": False}
GEMMA = {"sliding_window": 512, "sliding_window_pattern": 6, "head_dim": 256}
LISTED = {
    "qwen2.5-0.5b-instruct": config("qwen2", 896, 4864, 14, 151_936, is_tied=True, **QWEN2),
    "qwen2.5-1.5b-instruct": config("qwen2", 1536, 8960, 12, 151_936, is_tied=True, **QWEN2),
    "qwen2.5-7b-instruct": config("qwen2", 3584, 18_944, 28, 152_064, is_tied=False, **QWEN2),
    "qwen2.5-14b-instruct": config("qwen2", 5120, 13_824, 40, 152_064, is_tied=False, **QWEN2),
    "qwen2.5-32b-instruct": config("qwen2", 5120, 27_648, 40, 152_064, is_tied=False, **QWEN2),
    "qwen2.5-72b-instruct": config("qwen2", 8192, 29_568, 64, 152_064, is_tied=False, **QWEN2),
    "qwen3-0.6b": config("qwen3", 1024, 3072, 16, 151_936, is_tied=True, head_dim=128),
    "qwen3-8b": config("qwen3", 4096, 12_288, 32, 151_936, is_tied=False, head_dim=128),
    "qwen3-32b": config("qwen3", 5120, 25_600, 64, 151_936, is_tied=False, head_dim=128),
    "llama-3.2-1b-instruct": config("llama", 2048, 8192, 32, 128_256, is_tied=True, head_dim=64),
    "llama-3.1-8b-instruct": config("llama", 4096, 14_336, 32, 128_256, is_tied=False),
    "llama-3.3-70b-instruct": config("llama", 8192, 28_672, 64, 128_256, is_tied=False),
    "mistral-7b-instruct-v0.3": config(
        "mistral", 4096, 14_336, 32, 32_768, is_tied=False, sliding_window=None
    ),
    "gemma-2-9b-it": {
        **config("gemma2", 3584, 14_336, 16, 256_000, is_tied=True, head_dim=256, sliding_window=4096),
    },
    "gemma-3-1b-it": config("gemma3_text", 1152, 6912, 4, 262_144, is_tied=True, **GEMMA),
    "gemma3-270m": config("gemma3_text", 640, 2048, 4, 262_144, is_tied=True, **GEMMA),
}


def test_every_listed_model_is_checked() -> None:
    assert LISTED.keys() == MODELS.keys()


@pytest.mark.parametrize("name", LISTED)
def test_row_of_a_model_is_what_its_config_says_to_the_last_parameter(name: str) -> None:
    facts = MODELS[name].facts
    shape = {
        "num_hidden_layers": facts.layers,
        "num_key_value_heads": facts.kv_heads,
        "max_position_embeddings": facts.context_length,
    }
    assert facts_of({**LISTED[name], **shape}) == facts


MIXTRAL = {
    **config("mixtral", 4096, 14_336, 32, 32_000, is_tied=False, num_local_experts=8),
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
}
QWEN3_30B_A3B = {
    **config("qwen3_moe", 2048, 6144, 32, 151_936, is_tied=False, num_experts=128, head_dim=128),
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "max_position_embeddings": 40_960,
}
DEEPSEEK_V3 = {
    **config("deepseek_v3", 7168, 18_432, 128, 129_280, is_tied=False, n_routed_experts=256),
    "moe_intermediate_size": 2048,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "topk_method": "noaux_tc",
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "max_position_embeddings": 163_840,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}


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


def test_vocabulary_without_tensors_is_the_tokenizers(tmp_path: Path) -> None:
    words = struct.pack("<IQ", 8, 2) + text("<pad>") + text("é")
    assert header(tmp_path, "llama", entry("tokenizer.ggml.tokens", 9, words)).vocabulary == 2


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
    entries = (
        number("deepseek2.attention.kv_lora_rank", 512),
        number("deepseek2.rope.dimension_count", 64),
    )
    assert header(tmp_path, "deepseek2", *entries).latent_size == 576
