"""What `make test-gpu` makes before it tests: from wheels, without a network, and in a bounded time."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT
from shell_script import shell_script
from wheels import make_project, make_wheel

PROGRAM = ROOT / "tests" / "gpu" / "over_torch.py"
LARGE = {"numpy", "pandas", "pyarrow", "scipy"}


# --- what is pinned --------------------------------------------------------------------------------


def needed(name: str, seen: set[str]) -> Iterator[str]:
    """Names of a package that is installed here, and of all that it needs."""
    if name in seen:
        return
    seen.add(name)
    yield name
    for each in map(Requirement, metadata.requires(name) or ()):
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            yield from needed(canonicalize_name(each.name), seen)


def test_all_that_bench_and_its_tests_need_is_pinned_as_in_the_locks_but_what_is_large() -> None:
    found = [Requirement(line) for line in runpy.run_path(str(PROGRAM))["pinned"]()]
    pins = {each.name: str(each.specifier) for each in found}
    locks = "".join((ROOT / name).read_text() for name in ("requirements-dev.lock", ".ci/build.txt"))
    assert all(f"\n{name}{version} " in f"\n{locks}" for name, version in pins.items())
    assert not LARGE & pins.keys()
    seen: set[str] = set()
    wanted = {name for root in ("serving-bench", "pytest", "hypothesis") for name in needed(root, seen)}
    assert wanted - LARGE - {"serving-bench"} <= pins.keys()
    assert "setuptools" in pins


# --- what is made ----------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with the program and locks of its own, which needs tinything."""
    folder = tmp_path / "project"
    for name in ("tests/gpu", ".ci"):
        (folder / name).mkdir(parents=True)
    shutil.copy(PROGRAM, folder / "tests" / "gpu")
    make_project(folder, "serving-bench", "tinything")
    pin = "{}==1.0 \\\n    --hash=sha256:0\n"
    (folder / "requirements.lock").write_text("# locked\n" + pin.format("tinything") + pin.format("numpy"))
    (folder / "requirements-dev.lock").write_text(pin.format("tinything") + pin.format("ruff"))
    (folder / ".ci" / "build.txt").touch()
    make_wheel(tmp_path, "tinything", {"tinything.py": ""})
    return folder


def over_torch(project: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, project / "tests" / "gpu" / "over_torch.py", *words]
    return subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True)


def test_wheels_are_those_that_are_pinned(project: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    done = over_torch(project, "--wheels", wheels, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in wheels.iterdir()] == ["tinything-1.0-py3-none-any.whl"]
    assert done.stdout == f"0 MB of wheels in {wheels}\n"


def test_an_environment_has_the_checkout_the_wheels_and_what_python_had(project: Path, tmp_path: Path):
    venv = tmp_path / "venv"
    done = over_torch(project, venv, tmp_path)
    assert done.returncode == 0, done.stderr
    code = "import backend, pytest, tinything; print(backend.__file__, pytest.__file__, tinything.__file__)"
    said = subprocess.run([venv / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    checkout, below, wheel = said.stdout.split()
    assert checkout == str(project / "backend.py")
    assert below == pytest.__file__
    assert Path(wheel).is_relative_to(venv)


def test_a_wheel_that_is_not_there_is_named(project: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = over_torch(project, tmp_path / "venv", tmp_path / "none")
    assert done.returncode != 0
    assert "No matching distribution found for tinything" in done.stderr


# --- how long it may take --------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("timeout"), reason="needs coreutils, as on the machine with the card")
@pytest.mark.parametrize(
    ("limit", "what"), [("GPU_MAKING", "making its environment"), ("GPU_TESTING", "testing")]
)
def test_what_takes_too_long_is_ended_and_said(tmp_path: Path, limit: str, what: str) -> None:
    hangs = shell_script(tmp_path / "hangs", "exec sleep 600")
    python = tmp_path / "venv-gpu" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(hangs)
    first = hangs if limit == "GPU_MAKING" else "true"
    words = [f"PYTHON={first}", f"VENV={tmp_path / 'venv'}", f"{limit}=0.2s"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "test-gpu", *words], cwd=ROOT, env=plain, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert (
        f"test-gpu: {what} took longer than 0.2s and was ended; {limit}=TIME gives it longer" in done.stderr
    )


def test_all_of_it_ends_within_8_minutes() -> None:
    limits = re.findall(r"^GPU_(?:MAKING|TESTING) \?= (\d+)m$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sum(map(int, limits)) == 8
