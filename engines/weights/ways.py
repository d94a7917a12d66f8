"""How weights come to be: used where they are, taken from packages or the hub, or made from others.

Data, and what follows from it: where the weights are kept, how they are known again, how large they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.model_row import HubRepo, Model, PackageSource
from engines.quantization import QUANTIZATIONS
from harness.contracts import ModelFacts

HERE = Path(__file__).parent.parent
CALIBRATION = HERE / "calibration" / "general.txt"
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
# Raised when a script writes something else than before: what older ones wrote is then made again.
RECIPES = {"convert": 1, "quantize": 1, "checkpoint": 1, "awq": 1}
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
class Converted:
    """A GGUF file written anew by the gguf package."""

    source: Packaged
    quantization: str


@dataclass(frozen=True)
class Quantized:
    """A GGUF file of a kind that only llama-quantize can make, from the F16 one."""

    source: Converted
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
    """An AWQ checkpoint made from a 16-bit one."""

    source: Checkpoint | Published | Local


Way = Local | Packaged | Converted | Quantized | Checkpoint | Published | Awq


def is_cast(stored: str, wanted: str) -> bool:
    """Whether a checkpoint is one that engines turn into the wanted precision while they load it."""
    return wanted in SIXTEEN_BIT and stored in (*SIXTEEN_BIT, "fp32")


def model_of(way: Way) -> Model | None:
    if isinstance(way, Packaged | Published):
        return way.model
    return None if isinstance(way, Local) else model_of(way.source)


def facts_known(way: Way) -> ModelFacts | None:
    """Of the model's row, or read from the user's own files; None where only a download can tell."""
    if isinstance(way, Local):
        return way.facts
    if isinstance(way, Awq) and isinstance(way.source, Local):
        return way.source.facts
    model = model_of(way)
    return model.facts if model else None


def path_of(way: Way, cache: Path) -> Path:
    """Where it is kept: a file, or a directory for checkpoints and for all that comes from the hub."""
    weights = cache / "weights"
    match way:
        case Local(path):
            return path
        case Packaged(model, source):
            return weights / model.name / f"{model.name}-{source.quantization.removeprefix('gguf-')}.gguf"
        case Converted(source, quantization):
            return path_of(source, cache).with_name(
                f"{source.model.name}-{CONVERSIONS[quantization][0]}.gguf"
            )
        case Quantized(source, quantization):
            kind = quantization.removeprefix("gguf-")
            return path_of(source, cache).with_name(f"{source.source.model.name}-{kind}.gguf")
        case Checkpoint(source):
            return path_of(source, cache).with_name(f"{source.model.name}-bf16")
        case Published(name, repo, file_format, quantization):
            is_gguf = file_format == "gguf"
            return weights / name / (quantization.removeprefix("gguf-") if is_gguf else _folder_of(repo))
        case Awq(Local(path)):
            mark = hashlib.sha256(str(path).encode()).hexdigest()[:8]
            return weights / "local" / f"{path.name}-{mark}-awq"
        case Awq(source):
            of_source = path_of(source, cache)
            return of_source.with_name(of_source.name.removesuffix("-bf16") + "-awq")


def identity_of(way: Way) -> Mapping[str, Any]:
    """What a manifest must say for its weights to be these, and not those of another source or recipe."""
    match way:
        case Local(path):
            files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
            seen = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
            return {"path": str(path), "seen": seen}
        case Packaged(_, source):
            return {"sha256": source.sha256}
        case Converted(source):
            return {"source_sha256": source.source.sha256, "recipe": RECIPES["convert"]}
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
        case Awq(source):
            return {
                "made_from": identity_of(source),
                "recipe": RECIPES["awq"],
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
        case Converted(source, quantization):
            weights = source.model.facts.parameters or 0
            return int(weights * CONVERSIONS[quantization][1] / 8) + METADATA_BYTES
        case Published(_, repo, _, quantization, model):
            parameters = model.facts.parameters if model else None
            if repo.size_bytes is not None or parameters is None:
                return repo.size_bytes
            return int(parameters * QUANTIZATIONS[quantization].bits_per_weight / 8)
        case Quantized(source, quantization):
            weights = source.source.model.facts.parameters or 0
            return int(weights * QUANTIZATIONS[quantization].bits_per_weight / 8) + METADATA_BYTES
        case _:
            facts = facts_known(way)
            if facts is None or facts.parameters is None:
                return None
            # AWQ leaves the embedding as it is: of a small model most of it, so reckon with half.
            return int(facts.parameters * (16.0 if isinstance(way, Checkpoint) else 10.0) / 8)


def _folder_of(repo: HubRepo) -> str:
    return repo.repo.partition("/")[2]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
