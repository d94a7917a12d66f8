"""Part of installing transformers for a CPU: adds PyTorch, in its CPU build where pip's settings offer that.

It is no part of the lock, for PyPI has no CPU build. The one there is for CUDA, and is not imported without
CUDA's libraries, GPU or not: with them it is 4 GB more, but serves on a CPU as well.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "locks"
CPU_BUILD = LOCKS / "transformers-cpu-torch.txt"
# The same packages as in the CPU's lock, of the same versions, and PyPI's PyTorch with all it needs.
FROM_PYPI = LOCKS / "transformers-cuda.txt"


def main() -> None:
    pip = [sys.executable, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
    pip += ["--disable-pip-version-check", "--require-hashes", "-r"]
    done = subprocess.run([*pip, str(CPU_BUILD)], capture_output=True, text=True)
    if done.returncode == 0:
        print(done.stdout.strip().splitlines()[-1])
        return
    said = (done.stderr.strip().splitlines() or ["no word from pip"])[-1]
    print(f"no CPU build of PyTorch: {said}", flush=True)
    print("taking PyPI's, with CUDA's libraries (4 GB more)", flush=True)
    sys.exit(subprocess.run([*pip, str(FROM_PYPI)]).returncode)


if __name__ == "__main__":
    main()
