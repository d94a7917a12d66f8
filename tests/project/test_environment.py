"""How `make install` makes bench's environment. Runs the real script on a project of one package."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from shell_script import shell_script
from waiting import wait_until
from wheels import make_lock, make_project, make_wheel


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout with the script, what it runs, and a lock of a package of 300 modules."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "serving_bench", folder / "serving_bench", symlinks=True)
    (folder / "harness").symlink_to(ROOT / "harness")
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "environment", folder / ".ci")
    (folder / ".ci" / "build.txt").touch()
    make_project(folder, "tinyproject")
    modules = {f"tinything/m{number:03d}.py": f"N = {number}\n" for number in range(300)}
    wheel = make_wheel(tmp_path, "tinything", {"tinything/__init__.py": "", **modules})
    make_lock(tmp_path, "tinything", wheel).rename(folder / "requirements.lock")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


def begin(project: Path, python: str = sys.executable) -> subprocess.Popen[str]:
    argv = [".ci/environment", python, ".venv", "requirements.lock", ".venv/.ready"]
    return subprocess.Popen(
        argv, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ends_well(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def assert_works(project: Path) -> None:
    code = "import importlib, backend; [importlib.import_module(f'tinything.m{n:03d}') for n in range(300)]"
    subprocess.run([project / ".venv/bin/python", "-I", "-c", code], check=True, cwd="/")
    assert (project / ".venv/.ready").exists()
    assert not (project / ".venv.unfinished").exists()


def test_it_says_what_it_took_and_has_no_installer(project: Path) -> None:
    said = ends_well(begin(project)).strip()
    assert said.startswith("environment: ")
    assert said.endswith(" MB in .venv")
    assert_works(project)
    code = "import pip"
    assert subprocess.run([project / ".venv/bin/python", "-c", code], capture_output=True).returncode == 1


# Kill once this path exists: the environment is begun, has Python, a package is being copied, is copied.
POINTS = (
    ".venv.unfinished",
    ".venv/bin/python",
    ".venv/lib/*/site-packages/tinything/m000.py",
    ".venv/lib/*/site-packages/tinything-1.0.dist-info",
    ".venv/lib/*/site-packages/tinyproject.pth",
)


@pytest.mark.parametrize("point", POINTS)
def test_one_that_was_killed_is_made_again(project: Path, point: str) -> None:
    first = begin(project)
    wait_until(lambda: any(project.glob(point)) or first.poll() is not None)
    was_running = first.poll() is None
    if was_running:
        os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    # A kill at any of these points may also have left this file uncopied.
    for path in project.glob(".venv/lib/*/site-packages/tinything/m299.py"):
        if (project / ".venv.unfinished").exists():
            path.unlink()
    ends_well(begin(project))
    assert_works(project)


def test_of_two_at_once_the_second_waits_and_changes_nothing(project: Path) -> None:
    both = [begin(project), begin(project)]
    said = sorted(map(ends_well, both))
    assert said[0] == ""
    assert said[1].startswith("environment: ")
    assert_works(project)


def test_it_needs_no_program_to_wait_for_another(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = project.parent / "tools"
    tools.mkdir()
    for name in ("sh", "date", "rm", "touch", "du", "cut", "head"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    assert sorted(map(ends_well, [begin(project), begin(project)]))[0] == ""
    assert_works(project)


def test_one_that_was_cut_short_is_mended_under_what_runs_in_it(project: Path) -> None:
    ends_well(begin(project))
    [lacking] = project.glob(".venv/lib/*/site-packages/tinything/m299.py")
    [short] = project.glob(".venv/lib/*/site-packages/tinything/m298.py")
    lacking.unlink()
    short.unlink()  # it may be a link to the cache
    short.write_text("")
    (project / ".venv.unfinished").touch()
    with subprocess.Popen([project / ".venv/bin/python", "-c", "input()"], stdin=subprocess.PIPE) as running:
        before = (project / ".venv/pyvenv.cfg").stat().st_ino
        ends_well(begin(project))
        assert running.poll() is None
        assert (project / ".venv/pyvenv.cfg").stat().st_ino == before
        running.communicate(b"\n")
    assert_works(project)
    assert short.read_text() == "N = 298\n"


def test_what_builds_bench_has_hashes() -> None:
    lock = (ROOT / ".ci" / "build.txt").read_text()
    assert lock.startswith("setuptools==")
    assert "--hash=sha256:" in lock
    assert "--no-build-isolation -e ." in (ROOT / ".ci" / "environment").read_text()


def test_one_whose_python_is_gone_is_made_again(project: Path) -> None:
    ends_well(begin(project))
    python = project / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/absent/python3")
    ends_well(begin(project))
    assert_works(project)


def test_an_old_python_is_refused_before_anything_is_made(project: Path) -> None:
    lines = 'if [ "$1" = --version ]; then echo Python 3.9.19; else exit 1; fi'
    shell_script(project / "python3.9", lines)
    process = begin(project, "./python3.9")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == (
        "PYTHON=./python3.9: Python 3.9.19; Python 3.11 or newer is needed: make PYTHON=/path/to/python3\n"
    )
    assert not list(project.glob(".venv*"))
