"""Makes an environment for bench over a Python that has PyTorch and transformers already; `make test-gpu`.

`over_torch.py VENV [WHEELS]`: what this Python lacks comes from pip's index, or from the folder WHEELS, then
without any network. `over_torch.py --wheels WHEELS` fills that folder on a machine with an index and a Python
of the same version. It leaves out the packages in LARGE, which the other machine must have.
"""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
# 110 MB of wheels that a machine with PyTorch usually has.
LARGE = ("numpy", "pandas", "pyarrow", "scipy")
# Needed to run the tests, and to install bench.
TOO = ("hypothesis", "iniconfig", "pluggy", "pytest", "setuptools", "sortedcontainers")


def pinned() -> list[str]:
    """Return what bench and the tests need, as pip reads it: names, versions and for which Pythons."""
    wanted = _pins("requirements.lock")
    wanted += [
        pin for lock in ("requirements-dev.lock", ".ci/build.txt") for pin in _pins(lock) if pin[0] in TOO
    ]
    return list(dict.fromkeys(name + version for name, version in wanted if name not in LARGE))


def _pins(lock: str) -> list[tuple[str, str]]:
    """Return each package's name and the rest of its line, without what goes on."""
    return re.findall(r"^([\w.-]+)(==[^\\\n]*[^\\\s])", (ROOT / lock).read_text(), re.MULTILINE)


def fill(wheels: Path) -> None:
    """Download the wheels, and build those that are not published."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels]
    subprocess.run([*pip, *pinned()], check=True)
    size = sum(path.stat().st_size for path in wheels.glob("*.whl"))
    print(f"{size / 1e6:.0f} MB of wheels in {wheels}")


def make(venv: Path, wheels: Path | None) -> None:
    """Make the environment, which finds all packages of this Python."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet"]
    pip += ["--no-index", "--find-links", wheels] if wheels else []
    # First, since what builds it must not be what this Python has.
    subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # --system-site-packages would be those of the Python below, if this is one of a virtual environment.
    below = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (venv / "lib" / version / "site-packages" / "below.pth").write_text(below)
    subprocess.run([*pip, "serving-bench", "pytest", "hypothesis"], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--wheels":
        fill(Path(sys.argv[2]))
    else:
        make(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
