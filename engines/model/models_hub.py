"""Rows of models on the Hugging Face hub. Their weights are fetched by `bench prepare`, never by a run.

Facts: each repository's config.json; `parameters` as the hub counts a checkpoint's tensors, tied ones once.
Repositories and file names: as projects that use them name them; what is not named here can be had with
model=hf:organisation/name. Sizes of GGUF files are left to the quantization's bits.
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.model.model_row import HubRepo, Model
from harness.contracts import ModelFacts

APACHE = "Apache License 2.0"
LLAMA = "Llama Community License: https://www.llama.com/llama-downloads"
GEMMA = "Gemma terms of use: https://ai.google.dev/gemma/terms"
QWEN_72B = "Qwen License, on the model's page at the hub"


def _parts(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))


def _qwen25(
    size: str,
    shape: tuple[int, int, int],
    embedding: tuple[int, int],
    parameters: int,
    parts: int = 1,
    licence: str = APACHE,
) -> Model:
    """`shape`: layers, KV heads, head size; `embedding`: vocabulary, hidden size. Its config.json names a
    sliding window and turns it off."""
    repo, stem = f"Qwen/Qwen2.5-{size}-Instruct", f"qwen2.5-{size.lower()}-instruct-q4_k_m"
    files = (f"{stem}.gguf",) if parts == 1 else _parts(stem, parts)
    return Model(
        name=f"qwen2.5-{size.lower()}-instruct",
        licence=licence,
        facts=ModelFacts(
            "qwen2",
            *shape,
            context_length=32_768,
            parameters=parameters,
            vocabulary=embedding[0],
            hidden_size=embedding[1],
            ties_embeddings=size in ("0.5B", "1.5B"),
        ),
        published={
            "bf16": HubRepo(repo),
            "awq": HubRepo(f"{repo}-AWQ"),
            "gptq": HubRepo(f"{repo}-GPTQ-Int4"),
            "gguf-q4_k_m": HubRepo(f"{repo}-GGUF", files),
        },
    )


def _qwen3(size: str, layers: int, hidden_size: int, parameters: int, more: Mapping[str, HubRepo]) -> Model:
    repo = f"Qwen/Qwen3-{size}"
    return Model(
        name=f"qwen3-{size.lower()}",
        licence=APACHE,
        facts=ModelFacts(
            "qwen3",
            layers,
            8,
            128,
            context_length=40_960,
            parameters=parameters,
            vocabulary=151_936,
            hidden_size=hidden_size,
            ties_embeddings=size == "0.6B",
        ),
        published={"bf16": HubRepo(repo), "fp8": HubRepo(f"{repo}-FP8"), **more},
    )


def _qwen3_quantized(size: str) -> Mapping[str, HubRepo]:
    repo = f"Qwen/Qwen3-{size}"
    return {
        "awq": HubRepo(f"{repo}-AWQ"),
        "gguf-q4_k_m": HubRepo(f"{repo}-GGUF", (f"Qwen3-{size}-Q4_K_M.gguf",)),
    }


def _bartowski(name: str) -> Mapping[str, HubRepo]:
    return {"gguf-q4_k_m": HubRepo(f"bartowski/{name}-GGUF", (f"{name}-Q4_K_M.gguf",))}


ROWS = (
    _qwen25("0.5B", (24, 2, 64), (151_936, 896), 494_032_768),
    _qwen25("1.5B", (28, 2, 128), (151_936, 1536), 1_543_714_304),
    _qwen25("7B", (28, 4, 128), (152_064, 3584), 7_615_616_512, parts=2),
    _qwen25("14B", (48, 8, 128), (152_064, 5120), 14_770_033_664, parts=3),
    _qwen25("32B", (64, 8, 128), (152_064, 5120), 32_763_876_352, parts=5),
    _qwen25("72B", (80, 8, 128), (152_064, 8192), 72_706_203_648, parts=12, licence=QWEN_72B),
    _qwen3(
        "0.6B",
        28,
        1024,
        596_049_920,
        {"gguf-q8_0": HubRepo("Qwen/Qwen3-0.6B-GGUF", ("Qwen3-0.6B-Q8_0.gguf",))},
    ),
    _qwen3("8B", 36, 4096, 8_190_735_360, _qwen3_quantized("8B")),
    _qwen3("32B", 64, 5120, 32_762_123_264, _qwen3_quantized("32B")),
    Model(
        name="llama-3.2-1b-instruct",
        licence=LLAMA,
        facts=ModelFacts(
            "llama",
            16,
            8,
            64,
            context_length=131_072,
            parameters=1_235_814_400,
            vocabulary=128_256,
            hidden_size=2048,
            ties_embeddings=True,
        ),
        published={
            "bf16": HubRepo("meta-llama/Llama-3.2-1B-Instruct"),
            **_bartowski("Llama-3.2-1B-Instruct"),
        },
        is_gated=True,
    ),
    Model(
        name="llama-3.1-8b-instruct",
        licence=LLAMA,
        facts=ModelFacts(
            "llama",
            32,
            8,
            128,
            context_length=131_072,
            parameters=8_030_261_248,
            vocabulary=128_256,
            hidden_size=4096,
            ties_embeddings=False,
        ),
        published={
            "bf16": HubRepo("meta-llama/Llama-3.1-8B-Instruct"),
            "awq": HubRepo("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"),
            "fp8": HubRepo("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8"),
            **_bartowski("Meta-Llama-3.1-8B-Instruct"),
        },
        is_gated=True,
    ),
    Model(
        name="llama-3.3-70b-instruct",
        licence=LLAMA,
        facts=ModelFacts(
            "llama",
            80,
            8,
            128,
            context_length=131_072,
            parameters=70_553_706_496,
            vocabulary=128_256,
            hidden_size=8192,
            ties_embeddings=False,
        ),
        published={
            "bf16": HubRepo("meta-llama/Llama-3.3-70B-Instruct"),
            "awq": HubRepo("casperhansen/llama-3.3-70b-instruct-awq"),
            **_bartowski("Llama-3.3-70B-Instruct"),
        },
        is_gated=True,
    ),
    Model(
        name="mistral-7b-instruct-v0.3",
        licence=APACHE,
        facts=ModelFacts(
            "mistral",
            32,
            8,
            128,
            context_length=32_768,
            parameters=7_248_023_552,
            vocabulary=32_768,
            hidden_size=4096,
            ties_embeddings=False,
        ),
        published={
            "bf16": HubRepo("mistralai/Mistral-7B-Instruct-v0.3"),
            "awq": HubRepo("solidrust/Mistral-7B-Instruct-v0.3-AWQ"),
            **_bartowski("Mistral-7B-Instruct-v0.3"),
        },
    ),
    Model(
        name="gemma-2-9b-it",
        licence=GEMMA,
        facts=ModelFacts(
            "gemma2",
            42,
            8,
            256,
            context_length=8_192,
            parameters=9_241_705_984,
            sliding_window=4_096,
            sliding_layers=21,
            vocabulary=256_000,
            hidden_size=3584,
            ties_embeddings=True,
        ),
        published={"bf16": HubRepo("google/gemma-2-9b-it"), **_bartowski("gemma-2-9b-it")},
        is_gated=True,
    ),
    Model(
        name="gemma-3-1b-it",
        licence=GEMMA,
        facts=ModelFacts(
            "gemma3_text",
            26,
            1,
            256,
            context_length=32_768,
            parameters=999_885_952,
            sliding_window=512,
            sliding_layers=22,
            vocabulary=262_144,
            hidden_size=1152,
            ties_embeddings=True,
        ),
        published={
            "bf16": HubRepo("google/gemma-3-1b-it"),
            "gguf-q4_k_m": HubRepo("ggml-org/gemma-3-1b-it-GGUF", ("gemma-3-1b-it-Q4_K_M.gguf",)),
        },
        is_gated=True,
    ),
)
