"""Describe the machine and the software for the record of a run. Knows no engine."""

import ctypes
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from serving_bench.harness.contracts import Reason, Scalar, masked_values
from serving_bench.harness.sampling import gpu

# The prefixes of environment variables that affect a server.
_OF_SERVERS = (
    "ATTENTION", "CUDA_", "DOCKER_HOST", "FLASHINFER_", "GGML_", "GLIBC_TUNABLES", "GOMP_", "HF_HOME",
    "HF_HUB_", "HIP_", "HSA_", "KMP_", "LD_", "LLAMA_", "MALLOC_", "MKL_", "NCCL_", "NVIDIA_", "OLLAMA_",
    "OMP_", "OPENBLAS_", "PYTHON", "PYTORCH_", "ROCR_", "SGLANG_", "SGL_", "TOKENIZERS_", "TORCH", "TRITON_",
    "VLLM_",
)  # fmt: skip
_PACKAGES = (
    "serving-bench", "locust", "gevent", "pyarrow", "pandas", "plotly", "msgspec", "psutil", "nvidia-ml-py",
)  # fmt: skip

# What is read in a pass, more than a processor's caches hold: by each thread, and by all together.
_READ_BYTES, _READ_TOTAL_BYTES = 2**26, 2**29
_PASSES = 5

_CHECKOUT = Path(__file__).resolve().parents[2]


def facts() -> dict[str, Any]:
    devices = gpu.devices()
    return {
        "machine": machine_facts(),
        "devices": str(devices) if isinstance(devices, Reason) else devices,
        "packages": {name: _version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
        "variables": of_server({}),
        "clock": {"monotonic_ns": time.monotonic_ns(), "realtime_ns": time.time_ns()},
    }


def machine_facts() -> dict[str, Scalar]:
    uname = platform.uname()
    return {
        "os": _os_name(),
        "kernel": f"{uname.system} {uname.release}",
        "architecture": uname.machine,
        "cpu_model": _cpu_model(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_usable": _cores_usable(),
        "memory_bytes": psutil.virtual_memory().total,
        "swap_bytes": psutil.swap_memory().total,
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def read_bytes_per_s() -> float | None:
    """Return how fast the usable cores together read the host's memory: the fastest of five passes over
    512 MiB or more, at most an eighth of what is free. Blocks for half a second. None without libc's memchr.

    This bounds decoding, which reads all weights for a token. The method is STREAM's (McCalpin 1995).
    """
    threads = _cores_usable() or os.cpu_count() or 1
    free = psutil.virtual_memory().available // 8
    size = min(max(_READ_BYTES, _READ_TOTAL_BYTES // threads), free // threads)
    try:
        memchr = ctypes.CDLL(None).memchr
    except (OSError, TypeError, AttributeError):
        return None
    memchr.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t)
    blocks = [b"x" * size for _ in range(threads)]

    # It reads each byte once, since none is 0, and ctypes releases the GIL.
    def read(block: bytes) -> None:
        memchr(block, 0, size)

    with ThreadPoolExecutor(threads) as pool:
        times_ns = []
        for _ in range(_PASSES):
            begin_ns = time.monotonic_ns()
            list(pool.map(read, blocks))
            times_ns.append(time.monotonic_ns() - begin_ns)
    return size * threads / (min(times_ns) / 1e9)


def of_server(added: Mapping[str, str], *, inherits: bool = True) -> dict[str, str]:
    """Return the variables set for a server, and those it `inherits` that affect it, without secrets."""
    ours = {n: value for n, value in os.environ.items() if inherits and n.startswith(_OF_SERVERS)}
    return dict(masked_values(dict(sorted({**ours, **added}.items()))))


def _cores_usable() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _cpu_model() -> str | None:
    with suppress(OSError):
        match = re.search(r"^model name\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return match[1].strip() if match else None
    return platform.processor() or None


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _git_commit() -> str | None:
    command = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip() or None
    return None
