"""A way to weights: where they are kept, of what and by which step they are made, how they are known again.

Each function here describes one step as data. Which step is taken, choosing says; how, making.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from engines.model import hub
from engines.model.hub import HubFile
from engines.model.models import HubRepo, Model, PackageSource
from engines.model.quantization import PLAIN_BITS, QUANTIZATIONS
from harness.contracts import ModelFacts

CALIBRATION = Path(__file__).parent.parent / "calibration" / "general.txt"
CALIBRATION_SEED = 1

# What the gguf package can make: quantization -> bits per weight.
CONVERSIONS: Mapping[str, float] = {
    "fp16": 16.0,
    "bf16": 16.0,
    "gguf-q8_0": 8.5,
    # The embedding, two thirds of a small model, stays at 8.5 bits.
    "gguf-q4_0": 8.5,
}
# The vocabulary's text (262,144 tokens) and the tensors that stay F32.
METADATA_BYTES = 7_000_000

Step = Literal[
    "local", "package", "hub", "from_checkpoint", "convert", "quantize", "checkpoint", "awq", "w4a16"
]
# Raised when a program writes something else than before: what older ones wrote is then made again.
RECIPES: Mapping[Step, int] = {
    "from_checkpoint": 1,
    "convert": 1,
    "quantize": 1,
    "checkpoint": 1,
    "awq": 1,
    "w4a16": 1,
}


@dataclass(frozen=True)
class Way:
    """One step, with those before it in `source`.

    `path`: a file, or a directory for checkpoints and for all that comes from the hub; below the cache's
    weights, but for the user's own files. `identity`: what a manifest must say for the weights to be these,
    and not those of another source or recipe. `size_bytes`: roughly what the step downloads and writes, None
    where nobody knows. `name`: what messages call the model. `parameters` and `facts` are None where only a
    download can tell.
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
        """Return where the weights are, or will be."""
        return cache / "weights" / self.path


def local(path: Path, quantization: str, file_format: str, facts: ModelFacts | None) -> Way:
    """Return the step that takes the user's own GGUF file or checkpoint directory where it is.

    If a GGUF file's header does not count the parameters, its size tells them, right to 1 in 100.
    """
    is_file = file_format == "gguf"
    files = [path] if is_file else sorted(path.glob("*.safetensors"))
    parameters = facts.parameters if facts else None
    if not parameters and is_file and quantization in PLAIN_BITS:
        parameters = int(path.stat().st_size * 8 / PLAIN_BITS[quantization])
    name = path.stem if path.suffix == ".gguf" else path.name
    identity = {"path": str(path), "seen": _seen(files)}
    return Way(
        step="local",
        quantization=quantization,
        file_format=file_format,
        path=path,
        name=name,
        identity=identity,
        size_bytes=0,
        parameters=parameters,
        facts=facts,
    )


def packaged(model: Model, package: PackageSource) -> Way:
    """Return the step that puts a GGUF file together from Python packages."""
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
    """Return the step that downloads a repository's files; the hub says which, and of which commit."""
    folder = Path(model.name) if model else Path("hub", hub.mark(repo))
    parameters = model.facts.parameters if model else None
    size_bytes = sum(each.size_bytes or 0 for each in files) or repo.size_bytes
    if size_bytes is None and parameters:
        size_bytes = int(parameters * QUANTIZATIONS[quantization].bits_per_weight / 8)
    return Way(
        step="hub",
        quantization=quantization,
        file_format=file_format,
        path=folder / (kind_of(quantization) if file_format == "gguf" else repo.repo.partition("/")[2]),
        name=model.name if model else repo.repo,
        identity={"repo": repo.repo, "revision": repo.revision, "asked_files": list(repo.files)},
        size_bytes=size_bytes,
        parameters=parameters,
        facts=model.facts if model else None,
        model=model,
        repo=repo,
        commit=commit,
        files=files,
    )


def gguf_from_checkpoint(source: Way, stored: str) -> Way:
    """Return the step in which llama.cpp's converter writes a GGUF file, in the checkpoint's precision."""
    # The converter reads the shape, the tokenizer and the chat template as well.
    ends = ("*.json", "*.jinja", "*.model", "*.txt")
    beside = [path for end in ends for path in source.path.glob(end)] if source.step == "local" else []
    return _gguf("from_checkpoint", source, stored, PLAIN_BITS[stored], seen_beside=_seen(sorted(beside)))


def converted(source: Way, quantization: str) -> Way:
    """Return the step in which the gguf package writes a GGUF file of another."""
    return _gguf("convert", source, quantization, CONVERSIONS[quantization])


def quantized(source: Way, quantization: str) -> Way:
    """Return the step in which llama-quantize makes a kind that only it can, of a file in 16 or 32 bits."""
    return _gguf("quantize", source, quantization, QUANTIZATIONS[quantization].bits_per_weight)


def checkpoint(source: Way) -> Way:
    """Return the step that writes a 16-bit checkpoint from a packaged GGUF file."""
    template = source.model.chat_template if source.model else None
    path = source.path.with_name(f"{source.name}-bf16")
    more = {"chat_template_sha256": _sha256(template) if template else None}
    return _made("checkpoint", source, "bf16", "safetensors", path, _bytes_of(source, 16.0), **more)


def calibrated(source: Way, quantization: str) -> Way:
    """Return the step that makes a 4-bit checkpoint with AWQ: `awq` by autoawq, `w4a16` by llm-compressor."""
    path = _folder(source).parent / f"{_folder(source).name}-{quantization}"
    if source.step != "local":
        path = source.path.with_name(f"{source.path.name.removesuffix('-bf16')}-{quantization}")
    more = {"calibration_sha256": _sha256(CALIBRATION), "calibration_seed": CALIBRATION_SEED}
    # The embedding stays as it is, which is most of a small model: 10 bits on average.
    step: Step = "w4a16" if quantization == "w4a16" else "awq"
    return _made(step, source, quantization, "safetensors", path, _bytes_of(source, 10.0), **more)


def kind_of(quantization: str) -> str:
    """Return what the GGUF world calls a quantization."""
    plain = {"fp16": "f16", "bf16": "bf16", "fp32": "f32"}
    return plain.get(quantization, quantization.removeprefix("gguf-"))


def _gguf(step: Step, source: Way, quantization: str, bits: float, **more: Any) -> Way:
    size_bytes = _bytes_of(source, bits)
    name = source.name.rpartition("/")[2]  # of a repository without its organisation
    path = _folder(source) / f"{name}-{kind_of(quantization)}.gguf"
    return _made(step, source, quantization, "gguf", path, size_bytes and size_bytes + METADATA_BYTES, **more)


def _made(
    step: Step,
    source: Way,
    quantization: str,
    file_format: str,
    path: Path,
    size_bytes: int | None,
    **more: Any,
) -> Way:
    of = {"source_sha256": source.package.sha256} if source.package else {"made_from": source.identity}
    return Way(
        step=step,
        quantization=quantization,
        file_format=file_format,
        path=path,
        name=source.name,
        identity={**of, "recipe": RECIPES[step], **more},
        size_bytes=size_bytes,
        parameters=source.parameters,
        facts=source.facts,
        model=source.model,
        source=source,
    )


def _bytes_of(source: Way, bits: float) -> int | None:
    return int(source.parameters * bits / 8) if source.parameters else None


def _folder(source: Way) -> Path:
    """Return where what is made of a source is kept: that of the user's own apart from others of its name."""
    if source.step != "local":
        return source.path.parent
    return Path("local", f"{source.name}-{hashlib.sha256(str(source.path).encode()).hexdigest()[:8]}")


def _seen(files: list[Path]) -> list[list[Any]]:
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
