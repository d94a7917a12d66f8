"""Facts of the machine and the software that are recorded with each run. Knows no engine."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.contracts import Reason, masked_environment
from harness.sampling import gpu, host

# How the names of variables begin that bear on a server.
_OF_SERVERS = (
    "ATTENTION", "CUDA_", "DOCKER_HOST", "GGML_", "GOMP_", "HF_HOME", "HF_HUB_", "KMP_", "LD_", "LLAMA_",
    "MALLOC_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PYTORCH_", "SGLANG_", "SGL_", "TOKENIZERS_",
    "TORCH", "TRITON_", "VLLM_",
)  # fmt: skip

_PACKAGES = (
    "serving-bench",
    "locust",
    "gevent",
    "pyarrow",
    "pandas",
    "plotly",
    "msgspec",
    "psutil",
    "nvidia-ml-py",
)


def facts() -> dict[str, Any]:
    """Return machine, devices, packages, git commit, and both clocks at one moment."""
    devices = gpu.devices()
    return {
        "machine": host.machine_facts(),
        "devices": devices.text if isinstance(devices, Reason) else [asdict(device) for device in devices],
        "packages": {name: _version(name) for name in _PACKAGES},
        "git_commit": git_commit(),
        "clock": {"monotonic_ns": time.monotonic_ns(), "realtime_ns": time.time_ns()},
    }


def of_server(added: Mapping[str, str], *, inherits: bool = True) -> dict[str, str]:
    """Return what is set for a server and, if it `inherits` our own environment, what of that bears on it.

    Secrets are masked (harness/contracts/secrets.py).
    """
    ours = {n: value for n, value in os.environ.items() if inherits and n.startswith(_OF_SERVERS)}
    whole = {**ours, **added}
    return masked_environment({name: whole[name] for name in sorted(whole)})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Return the checkout's commit, with `-dirty` if files differ, None outside a checkout."""
    root = Path(__file__).parent.parent.parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
