"""KV cache sizes against numbers worked out by hand from published shapes."""

from __future__ import annotations

import pytest

from engines.model import kv_cache
from engines.model.models import MODELS
from harness.contracts import ModelFacts, Reason

GEMMA = MODELS["gemma3-270m"].facts
DEEPSEEK_V3 = ModelFacts("deepseek_v3", 61, 128, 56, 163_840, latent_size=512 + 64)
# 48 layers of which each fourth has attention.
QWEN3_NEXT = ModelFacts("qwen3_next", 48, 2, 256, 262_144, linear_layers=36)


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        (MODELS["llama-3.1-8b-instruct"].facts, 131_072),  # 2 * 32 layers * 8 heads * 128 * 2 bytes: 128 KiB
        (MODELS["llama-3.3-70b-instruct"].facts, 327_680),  # 2 * 80 * 8 * 128 * 2: 320 KiB
        (MODELS["qwen2.5-0.5b-instruct"].facts, 12_288),  # 2 * 24 * 2 * 64 * 2
        (MODELS["qwen2.5-7b-instruct"].facts, 57_344),  # 2 * 28 * 4 * 128 * 2
        (MODELS["qwen3-8b"].facts, 147_456),  # 2 * 36 * 8 * 128 * 2
        (GEMMA, 18_432),  # 2 * 18 * 1 * 256 * 2
        (MODELS["gemma-2-9b-it"].facts, 344_064),  # 2 * 42 * 8 * 256 * 2
        (DEEPSEEK_V3, 70_272),  # 576 * 61 * 2
        (QWEN3_NEXT, 24_576),  # 2 * 12 * 2 * 256 * 2
    ],
    ids=lambda value: value.architecture if isinstance(value, ModelFacts) else None,
)
def test_bytes_of_a_token(facts: ModelFacts, size: int) -> None:
    assert kv_cache.token_bytes(facts) == size


def test_numbers_of_another_width() -> None:
    llama = MODELS["llama-3.1-8b-instruct"].facts
    assert kv_cache.token_bytes(llama, 1.0) == 65_536
    assert kv_cache.token_bytes(llama, 34 / 32) == 69_632  # q8_0: 32 numbers and a scale of 16 bits


def test_conversations_of_full_length() -> None:
    llama = MODELS["llama-3.1-8b-instruct"].facts
    # 32 users of 8,192 tokens: 2^18 tokens of 128 KiB.
    assert kv_cache.needed_bytes(llama, 32, 8192) == 32 * 2**30


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    # 3 layers keep 4,096 tokens, 15 keep 512; a layer's token is 2 * 256 * 2 = 1,024 bytes.
    assert kv_cache.needed_bytes(GEMMA, 1, 4096) == (3 * 4096 + 15 * 512) * 1024
    # Below the window all are alike.
    assert kv_cache.needed_bytes(GEMMA, 2, 500) == 2 * 500 * 18_432


def test_layers_without_keys_and_values_take_none() -> None:
    assert kv_cache.needed_bytes(QWEN3_NEXT, 1, 1000) == 24_576_000
    assert kv_cache.full_layers(QWEN3_NEXT) == 12


@pytest.mark.parametrize(("devices", "size"), [(2, 131_072), (8, 131_072), (16, 262_144)])
def test_devices_share_the_heads_until_there_are_more_of_them(devices: int, size: int) -> None:
    facts = MODELS["llama-3.1-8b-instruct"].facts
    assert kv_cache.token_bytes(facts, tensor_parallel=devices) == size


@pytest.mark.parametrize(
    ("devices", "heads"),
    # Of 8: none is lost, and each device has as many as the one that has most.
    [(1, 8), (3, 9), (5, 10), (7, 14), (8, 8), (12, 12)],
)
def test_no_head_is_lost_where_devices_do_not_divide_them(devices: int, heads: int) -> None:
    facts = MODELS["mistral-7b-instruct-v0.3"].facts
    # 2 * 32 layers * 128 * 2 bytes for each head.
    assert kv_cache.token_bytes(facts, tensor_parallel=devices) == heads * 16_384


def test_heads_are_shared_by_a_divisor_or_repeated_by_a_multiple() -> None:
    facts = MODELS["mistral-7b-instruct-v0.3"].facts
    assert [kv_cache.why_not_shared(facts, devices) for devices in (1, 2, 4, 8, 16)] == [None] * 5
    assert kv_cache.why_not_shared(facts, 3) == Reason(
        "engine.tensor_parallel=3: its 8 KV heads cannot be shared alike; give a divisor or a multiple of 8"
    )
    assert kv_cache.why_not_shared(facts, 12) is not None
    assert kv_cache.why_not_shared(facts, 4, can_repeat=False) is None
    assert kv_cache.why_not_shared(facts, 16, can_repeat=False) == Reason(
        "engine.tensor_parallel=16: its 8 KV heads cannot be shared alike; give a divisor of 8"
    )


def test_a_latent_is_not_shared_by_heads() -> None:
    assert kv_cache.why_not_shared(DEEPSEEK_V3, 3) is None


def test_each_device_has_the_whole_latent() -> None:
    assert kv_cache.token_bytes(DEEPSEEK_V3, tensor_parallel=8) == 8 * 70_272
