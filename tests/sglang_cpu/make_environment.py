"""Makes an environment in which SGLang serves on a CPU without its kernels: a fixture for tests.

`python tests/sglang_cpu/make_environment.py [DIR]`; run by `make sglang-cpu-env`. It is no part of `bench
install`, and nothing measured in it is a speed of SGLang: sgl_kernel.py stands in for the compiled kernels.
"""

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from serving_bench.harness.install.install import cache_dir

HERE = Path(__file__).parent
LOCK = HERE / "sglang-cpu.txt"
STAND_IN = HERE / "sgl_kernel.py"
DEFAULT = Path("engines-by-hand", "sglang-cpu")
# Written last: what the environment was made from. Without it the environment is made anew.
MARKER = "made-from.sha256"
NEEDED_BYTES = 3_600_000_000
CHECK = "import sglang.launch_server, sglang.srt.entrypoints.http_server, sglang.srt.models.gemma3_causal"
NEEDS = (
    "It needs torch 2.13.0+cpu and torchvision 0.28.0+cpu: name PyTorch's index of CPU builds, or a folder "
    "with the two wheels, in pip's settings (extra-index-url, find-links)."
)


def main() -> int:
    """0: the environment is there. 1: a step failed, and has said why. 2: it cannot be made here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=cache_dir() / DEFAULT, metavar="DIR")
    folder = parser.parse_args().folder.expanduser().absolute()
    reason = _refusal(folder)
    if reason:
        print(f"sglang-cpu-env: {reason}", file=sys.stderr)
        return 2
    if not is_made(folder):
        began_s = time.monotonic()
        try:
            make(folder)
        except subprocess.CalledProcessError as error:
            step = shlex.join(map(str, error.cmd))
            print(f"sglang-cpu-env: exit code {error.returncode} of: {step}\n{NEEDS}", file=sys.stderr)
            return 1
        print(f"made in {time.monotonic() - began_s:.0f} s, {size_bytes(folder) / 1e9:.1f} GB")
    print(f"SGLang on the CPU, without its kernels: sglang.environment={folder}")
    return 0


def is_made(folder: Path) -> bool:
    """Whether the environment is whole, and of today's lock and stand-in."""
    marker = folder / MARKER
    return marker.is_file() and marker.read_text() == _made_from() and _python(folder).exists()


def make(folder: Path) -> None:
    """Make it, replacing what is there; blocks for minutes. CalledProcessError: a step failed."""
    (folder / MARKER).unlink(missing_ok=True)
    print(f"making {folder}", flush=True)
    subprocess.run([sys.executable, "-I", "-m", "venv", "--clear", str(folder)], check=True)
    python = str(_python(folder))
    # Of sglang's own requirements, torch 2.14.1 and all that is for CUDA are left out: hence --no-deps.
    pip = [python, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([python, "-I", "-c", where], check=True, capture_output=True, text=True)
    shutil.copy(STAND_IN, said.stdout.strip())
    subprocess.run(["env", "SGLANG_USE_CPU_ENGINE=1", python, "-P", "-c", CHECK], check=True)
    (folder / MARKER).write_text(_made_from())


def size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _refusal(folder: Path) -> str | None:
    if sys.version_info[:2] != (3, 11):
        return f"the lock is for Python 3.11, this is {sys.version.split()[0]}"
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        return f"{folder} is no virtual environment: name another directory"
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if not is_made(folder) and free < NEEDED_BYTES:
        return f"{NEEDED_BYTES / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free"
    return None


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _made_from() -> str:
    return hashlib.sha256(LOCK.read_bytes() + STAND_IN.read_bytes()).hexdigest() + "\n"


if __name__ == "__main__":
    sys.exit(main())
