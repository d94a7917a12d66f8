"""Adds PyTorch to the environment of transformers on a CPU: its CPU build, where pip's settings offer one.

PyPI's own has 4 GB more, for CUDA. It is taken only where pip found no CPU build, where there is room, and
where the user asked for the install (a run sets BENCH_INSTALL_LIMIT_BYTES).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import indent

LOCKS = Path(__file__).parent.parent / "locks"
CPU_BUILD = LOCKS / "transformers-cpu-torch.txt"
# The same packages as in the CPU's lock, of the same versions, and PyPI's PyTorch with all it needs.
FROM_PYPI = LOCKS / "transformers-cuda.txt"
FROM_PYPI_BYTES = 4_000_000_000
# Only pip's own log has it: pip goes on as if there were no such package. An index that answers 404 has none.
UNREACHED = re.compile(r"Could not fetch URL (?!.*\b404 Client Error).*")


def main() -> None:
    code, log = install(CPU_BUILD)
    if code == 0:
        return
    if unreached := UNREACHED.search(log):
        sys.exit(unreached[0])
    if "No matching distribution found" not in log:
        sys.exit(code)  # pip's words stand above
    print("pip's settings offer no CPU build of PyTorch", flush=True)
    if refusal := why_not_from_pypi(
        os.environ.get("BENCH_INSTALL_LIMIT_BYTES"), shutil.disk_usage(sys.prefix).free
    ):
        sys.exit(refusal)
    print(f"taking PyPI's, with CUDA's libraries ({FROM_PYPI_BYTES / 1e9:.0f} GB more)", flush=True)
    sys.exit(install(FROM_PYPI)[0])


def why_not_from_pypi(limit_bytes: str | None, free_bytes: int) -> str | None:
    size = f"PyPI's, with CUDA's libraries, is {FROM_PYPI_BYTES / 1e9:.0f} GB more"
    if limit_bytes is not None and int(limit_bytes) < FROM_PYPI_BYTES:
        return f"{size}: `bench install transformers` takes it"
    if free_bytes < FROM_PYPI_BYTES:
        return f"{size}, and {free_bytes / 1e9:.1f} GB are free under {sys.prefix}"
    return None


def install(lock: Path) -> tuple[int, str]:
    """Install by this environment's pip and pass its lines on; return its exit code and its own log."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        pip = [sys.executable, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
        pip += ["--disable-pip-version-check", "--require-hashes", f"--log={log}", "-r", str(lock)]
        done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(indent(done.stdout, "  "), end="", flush=True)
        return done.returncode, log.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
