"""Evaluates expressions over harness.sampling.gpu, with the real nvidia-ml-py and a small NVML library.

Each is evaluated in its own process, because the library's path must be set before Python starts.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import TESTS

GIB = 2**30
PRELUDE = """
import dataclasses, json, os, subprocess, sys, threading, time
from pathlib import Path
from serving_bench.harness.sampling import gpu, sampling
from serving_bench.harness.sampling.device_sample import DeviceReader
from serving_bench.harness.contracts import Reason
from serving_bench.harness.errors import UserError
def plain(value):
    return json.dumps(value, default=lambda v: str(v) if isinstance(v, Reason) else dataclasses.asdict(v))
def refused(device):
    try: return f"not refused: {gpu.select(device)}"
    except UserError as error: return str(error)
@dataclasses.dataclass
class Tree:
    pids: set
    def among(self, listed):
        return None if self.pids is None else listed & self.pids
def sampled(indices, pids, enough=lambda rows: len(rows) >= 4):
    tick = threading.Event()
    with sampling.Sampling(DeviceReader(indices, Tree(pids)), hz=100) as running:
        while not enough(running.rows()): tick.wait(0.01)
    return {"rows": running.rows(), "notes": running.notes, "error": running.error}
"""


def build_library(folder: Path) -> Path:
    """Compile nvml_stub.c as libnvidia-ml.so.1 into the folder, and return the folder.

    Skips the test if there is no compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler to build the NVML stub with")
    target = folder / "libnvidia-ml.so.1"
    source = TESTS / "support/devices/nvml_stub.c"
    options = ("-shared", "-fPIC", "-Wall", "-pthread", "-Wl,-soname,libnvidia-ml.so.1")
    subprocess.run([compiler, *options, "-o", target, source], check=True)
    return folder


def ask(
    library: str | Path | None,
    expression: str,
    *,
    define: str = "",
    before: tuple[str, ...] = (),
    limit_s: float = 30,
    **environment: object,
) -> Any:
    """Return the value of an expression under the library, decoded from JSON.

    `define` is source that runs first, `before` the words of a command that starts Python.
    """
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    variables["LD_LIBRARY_PATH"] = str(library or "")
    source = f"{PRELUDE}\n{define}\nprint(plain({expression}))"
    answer = subprocess.run(
        [*before, sys.executable, "-W", "error", "-c", source],
        env=variables,
        capture_output=True,
        timeout=limit_s,
    )
    assert answer.returncode == 0, answer.stderr.decode()
    return json.loads(answer.stdout)
