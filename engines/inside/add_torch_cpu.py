"""Part of installing transformers for a CPU: adds PyTorch, in its CPU build where pip's settings offer that.

It is no part of the lock, for PyPI has no CPU build. The one there is for CUDA, and is not imported without
CUDA's libraries, GPU or not: with them it is 4 GB more, but serves on a CPU as well. That is taken only where
pip reached all its indexes and found no CPU build, where there is room for it, and where the user asked for
the install: a run sets BENCH_INSTALL_LIMIT_BYTES. pip's lines are indented: they are for the log.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "locks"
CPU_BUILD = LOCKS / "transformers-cpu-torch.txt"
# The same packages as in the CPU's lock, of the same versions, and PyPI's PyTorch with all it needs.
FROM_PYPI = LOCKS / "transformers-cuda.txt"
FROM_PYPI_BYTES = 4_000_000_000
LIMIT = "BENCH_INSTALL_LIMIT_BYTES"
INDENT = "  "
NOT_FOUND = "No matching distribution found"
# Only pip's own log has it, since pip goes on as if there were no such package. An index that answers 404 has
# none.
UNREACHED = re.compile(r"Could not fetch URL (?!.*\b404 Client Error).*")


@dataclass(frozen=True)
class Attempt:
    """`unreached`: pip's words on an index that did not answer, if any."""

    code: int
    is_absent: bool
    unreached: str | None


def main() -> None:
    first = install(CPU_BUILD)
    if first.code == 0:
        return
    if first.unreached:
        sys.exit(first.unreached)
    if not first.is_absent:
        sys.exit(first.code)  # pip's words stand above
    print("pip's settings offer no CPU build of PyTorch", flush=True)
    if refusal := why_not_from_pypi(os.environ.get(LIMIT), shutil.disk_usage(sys.prefix).free):
        sys.exit(refusal)
    print(f"taking PyPI's, with CUDA's libraries ({FROM_PYPI_BYTES / 1e9:.0f} GB more)", flush=True)
    sys.exit(install(FROM_PYPI).code)


def why_not_from_pypi(limit_bytes: str | None, free_bytes: int) -> str | None:
    """A sentence where it is not wanted or has no room."""
    size = f"PyPI's, with CUDA's libraries, is {FROM_PYPI_BYTES / 1e9:.0f} GB more"
    if limit_bytes is not None and int(limit_bytes) < FROM_PYPI_BYTES:
        return f"{size}: `bench install transformers` takes it"
    if free_bytes < FROM_PYPI_BYTES:
        return f"{size}, and {free_bytes / 1e9:.1f} GB are free under {sys.prefix}"
    return None


def install(lock: Path) -> Attempt:
    """By this environment's pip; its lines are passed on."""
    handle, log = tempfile.mkstemp(suffix=".log")
    os.close(handle)
    pip = [sys.executable, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
    pip += ["--disable-pip-version-check", "--require-hashes", f"--log={log}", "-r", str(lock)]
    is_absent = False
    with subprocess.Popen(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(INDENT + line.rstrip(), flush=True)
            is_absent |= NOT_FOUND in line
    unreached = UNREACHED.search(Path(log).read_text(encoding="utf-8", errors="replace"))
    Path(log).unlink()
    return Attempt(process.returncode, is_absent, unreached[0] if unreached else None)


if __name__ == "__main__":
    main()
