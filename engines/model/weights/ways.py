"""How weights come to be: used where they are, taken from packages or the hub, or made from others.

Data, and what follows from it: where the weights are kept, how they are known again, how large they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.model.model_row import HubRepo, Model, PackageSource
from engines.model.quantization import QUANTIZATIONS
from harness.contracts import ModelFacts

HERE = Path(__file__).parents[2]
CALIBRATION = HERE / "model" / "calibration" / "general.txt"
CALIBRATION_SEED = 1

# What the gguf package can make: quantization -> (its kind, bits per weight).
CONVERSIONS: Mapping[str, tuple[str, float]] = {
    "fp16": ("f16", 16.0),
    "bf16": ("bf16", 16.0),
    "gguf-q8_0": ("q8_0", 8.5),
    # The embedding, two thirds of a small model, stays at 8.5 bits.
    "gguf-q4_0": ("q4_0", 8.5),
}
SIXTEEN_BIT = ("fp16", "bf16")
# What is made by calibrating a 16-bit checkpoint.
CALIBRATED = ("awq", "w4a16")
PLAIN_BITS: Mapping[str, int] = {"fp16": 16, "bf16": 16, "fp32": 32}
# Raised when a script writes something else than before: what older ones wrote is then made again.
RECIPES = {"convert": 1, "quantize": 1, "from_checkpoint": 1, "checkpoint": 1, "awq": 1, "w4a16": 1}
# A vocabulary of 262,144 tokens and the tensors that stay F32.
METADATA_BYTES = 7_000_000


@dataclass(frozen=True)
class Local:
    """The user's own file or checkpoint directory."""

    path: Path
    quantization: str
    facts: ModelFacts | None


@dataclass(frozen=True)
class Packaged:
    """A GGUF file put together from Python packages."""

    model: Model
    source: PackageSource


@dataclass(frozen=True)
class FromCheckpoint:
    """A GGUF file that llama.cpp's converter writes from a checkpoint, in the precision that is stored."""

    source: Local | Published
    quantization: str


@dataclass(frozen=True)
class Converted:
    """A GGUF file written anew by the gguf package."""

    source: Packaged | Local | FromCheckpoint
    quantization: str


@dataclass(frozen=True)
class Quantized:
    """A GGUF file of a kind that only llama-quantize can make, from one that is not quantized."""

    source: Converted | Local | FromCheckpoint
    quantization: str


@dataclass(frozen=True)
class Checkpoint:
    """A 16-bit checkpoint written from a GGUF file."""

    source: Packaged


@dataclass(frozen=True)
class Published:
    """From the hub. `name` is the folder it is kept in; `quantization` None: whatever the repository's
    config.json turns out to say."""

    name: str
    repo: HubRepo
    file_format: str
    quantization: str
    model: Model | None = None


@dataclass(frozen=True)
class Awq:
    """A 4-bit checkpoint made from a 16-bit one with AWQ: `awq` by autoawq, `w4a16` by llm-compressor."""

    source: Checkpoint | Published | Local
    quantization: str


Way = Local | Packaged | FromCheckpoint | Converted | Quantized | Checkpoint | Published | Awq


def is_cast(stored: str, wanted: str) -> bool:
    """Whether a checkpoint is one that engines turn into the wanted precision while they load it."""
    return wanted in SIXTEEN_BIT and stored in (*SIXTEEN_BIT, "fp32")


def model_of(way: Way) -> Model | None:
    if isinstance(way, Packaged | Published):
        return way.model
    return None if isinstance(way, Local) else model_of(way.source)


def facts_known(way: Way) -> ModelFacts | None:
    """Of the model's row, or read from the user's own files; None where only a download can tell."""
    local = local_of(way)
    if local is not None:
        return local.facts
    model = model_of(way)
    return model.facts if model else None


def local_of(way: Way) -> Local | None:
    """The user's own files that it is, or is made from."""
    if isinstance(way, Local):
        return way
    return None if isinstance(way, Packaged | Published) else local_of(way.source)


def parameters_of(way: Way) -> int | None:
    """Of a GGUF file of the user's, whose header does not count them, what its size says: right to 1 in
    100 without its vocabulary's text."""
    facts = facts_known(way)
    local = local_of(way)
    if facts is not None and facts.parameters:
        return facts.parameters
    if local is None or local.quantization not in PLAIN_BITS or not local.path.is_file():
        return None
    return int(local.path.stat().st_size * 8 / PLAIN_BITS[local.quantization])


def name_of(way: Way) -> str:
    """What messages and files call its model."""
    model, local = model_of(way), local_of(way)
    if model is not None:
        return model.name
    if local is not None:
        return local.path.stem if local.path.suffix == ".gguf" else local.path.name
    assert not isinstance(way, Local | Packaged)
    return way.repo.repo if isinstance(way, Published) else name_of(way.source)


def kind_of(quantization: str) -> str:
    """What the GGUF world calls it."""
    if quantization == "fp32":
        return "f32"
    return CONVERSIONS.get(quantization, (quantization.removeprefix("gguf-"), 0.0))[0]


def path_of(way: Way, cache: Path) -> Path:
    """Where it is kept: a file, or a directory for checkpoints and for all that comes from the hub."""
    weights = cache / "weights"
    match way:
        case Local(path):
            return path
        case Packaged(model, source):
            return weights / model.name / f"{model.name}-{source.quantization.removeprefix('gguf-')}.gguf"
        case FromCheckpoint(_, quantization) | Converted(_, quantization) | Quantized(_, quantization):
            name = name_of(way).rpartition("/")[2]  # of one on the hub without its organisation
            return _folder_of_model(way, cache) / f"{name}-{kind_of(quantization)}.gguf"
        case Checkpoint(source):
            return path_of(source, cache).with_name(f"{source.model.name}-bf16")
        case Published(name, repo, file_format, quantization):
            is_gguf = file_format == "gguf"
            return weights / name / (quantization.removeprefix("gguf-") if is_gguf else _folder_of(repo))
        case Awq(Local(path), quantization):
            return weights / "local" / f"{_marked(path)}-{quantization}"
        case Awq(source, quantization):
            of_source = path_of(source, cache)
            return of_source.with_name(f"{of_source.name.removesuffix('-bf16')}-{quantization}")


def identity_of(way: Way) -> Mapping[str, Any]:
    """What a manifest must say for its weights to be these, and not those of another source or recipe."""
    match way:
        case Local(path):
            files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
            seen = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
            return {"path": str(path), "seen": seen}
        case Packaged(_, source):
            return {"sha256": source.sha256}
        case FromCheckpoint(source):
            return {
                "checkpoint": identity_of(source),
                "seen_beside": _seen_beside(source.path) if isinstance(source, Local) else None,
                "from_checkpoint_recipe": RECIPES["from_checkpoint"],
            }
        case Converted(Packaged(_, source)):
            return {"source_sha256": source.sha256, "recipe": RECIPES["convert"]}
        case Converted(source):
            return {"made_from": identity_of(source), "recipe": RECIPES["convert"]}
        case Quantized(Local() | FromCheckpoint() as source):
            return {"made_from": identity_of(source), "quantize_recipe": RECIPES["quantize"]}
        case Quantized(source):
            return {**identity_of(source), "quantize_recipe": RECIPES["quantize"]}
        case Checkpoint(source):
            template = source.model.chat_template
            return {
                "source_sha256": source.source.sha256,
                "recipe": RECIPES["checkpoint"],
                "chat_template_sha256": _sha256(template) if template else None,
            }
        case Published(_, repo):
            return {"repo": repo.repo, "revision": repo.revision, "asked_files": list(repo.files)}
        case Awq(source, quantization):
            return {
                "made_from": identity_of(source),
                "recipe": RECIPES[quantization],
                "calibration_sha256": _sha256(CALIBRATION),
                "calibration_seed": CALIBRATION_SEED,
            }


def written_bytes(way: Way) -> int | None:
    """Roughly what having it takes, downloaded and written, without its source; None: nobody knows."""
    match way:
        case Local():
            return 0
        case Packaged(_, source):
            return source.download_bytes + source.size_bytes
        case FromCheckpoint(_, quantization):
            parameters = parameters_of(way)
            return int(parameters * PLAIN_BITS[quantization] / 8) + METADATA_BYTES if parameters else None
        case Converted(_, quantization):
            return int((parameters_of(way) or 0) * CONVERSIONS[quantization][1] / 8) + METADATA_BYTES
        case Published(_, repo, _, quantization, model):
            parameters = model.facts.parameters if model else None
            if repo.size_bytes is not None or parameters is None:
                return repo.size_bytes
            return int(parameters * QUANTIZATIONS[quantization].bits_per_weight / 8)
        case Quantized(_, quantization):
            bits = QUANTIZATIONS[quantization].bits_per_weight
            return int((parameters_of(way) or 0) * bits / 8) + METADATA_BYTES
        case _:
            facts = facts_known(way)
            if facts is None or facts.parameters is None:
                return None
            # AWQ leaves the embedding as it is: of a small model most of it, so reckon with half.
            return int(facts.parameters * (16.0 if isinstance(way, Checkpoint) else 10.0) / 8)


def _folder_of_model(way: Way, cache: Path) -> Path:
    local, model = local_of(way), model_of(way)
    if local is not None:
        return cache / "weights" / "local" / _marked(local.path)
    if model is not None:
        return cache / "weights" / model.name
    assert not isinstance(way, Local | Packaged)
    return path_of(way, cache).parent if isinstance(way, Published) else _folder_of_model(way.source, cache)


def _seen_beside(folder: Path) -> list[list[Any]]:
    """What the converter reads besides the weights: the shape, the tokenizer, the chat template."""
    files = [path for end in ("*.json", "*.jinja", "*.model", "*.txt") for path in folder.glob(end)]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)]


def _marked(path: Path) -> str:
    """A name for what is made from the user's own file, apart from others of that name elsewhere."""
    name = path.stem if path.suffix == ".gguf" else path.name
    return f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _folder_of(repo: HubRepo) -> str:
    return repo.repo.partition("/")[2]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
