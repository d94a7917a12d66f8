"""Who installs packages, and that pip's settings hold for uv as well."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_http import fake_http, files_in
from places import ROOT
from small_disk import run_on_small_disk
from wheels import make_lock, make_wheel

from serving_bench.harness.install import packages
from serving_bench.harness.install.packages import installer, pip_settings, uv_environment

MODULE = "serving_bench.harness.install.packages"
PASSWORD = "secret-of-the-index"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("PIP_", "UV_", "SSL_")):
            monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://general\nfind-links =\n    /wheels\n    https://wheels\n"
        f"[install]\nindex-url = https://me:{PASSWORD}@here/simple\nno_index = yes\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a https://b")


def test_pips_files_and_variables_become_uvs_variables_and_no_argument(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_CONSTRAINT", "/constraints.txt")
    argv, environment = installer(sys.executable)
    assert argv[1:] == ["pip", "install", "--no-config", "--no-index", "--python", sys.executable]
    assert environment["UV_DEFAULT_INDEX"] == f"https://me:{PASSWORD}@here/simple"
    assert environment["UV_INDEX"] == "https://a https://b"
    assert environment["UV_FIND_LINKS"] == "/wheels,https://wheels"
    # A lock names every version, and uv refuses constraints that have no hash.
    assert "/constraints.txt" not in environment.values()


def test_what_the_user_set_for_uv_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine")
    found = uv_environment({"index-url": "https://pips", "cert": "/ca.pem"})
    assert ("UV_DEFAULT_INDEX" in found, found["SSL_CERT_FILE"]) == (False, "/ca.pem")


def test_a_user_without_a_home_to_write_in_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "absent"))
    assert "UV_NO_CACHE" not in uv_environment({})
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert uv_environment({})["UV_NO_CACHE"] == "1"


def test_without_uv_pip_installs_by_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "uv_program", lambda: None)
    argv, environment = installer(sys.executable)
    assert (argv[:5], environment) == ([sys.executable, "-I", "-m", "pip", "install"], {})


def test_a_python_without_pip_has_no_settings_of_pips(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    assert pip_settings(str(tmp_path / "bare" / "bin" / "python")) == {}


def test_it_runs_before_anything_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make install` runs it: with the standard library alone, for an environment without pip."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    python = bare_python(tmp_path)
    lock = make_lock(tmp_path, "tinything", make_wheel(tmp_path, "tinything", {"tinything.py": ""}))
    done = installed_by(Path(sys.executable), python, lock)
    assert done.returncode == 0, done.stderr
    subprocess.run([python, "-I", "-c", "import tinything"], check=True)


# What answers in place of a package index, and what is said of it.
ANSWERS = {
    "page": "the package index answers, but not with this package",
    "nobody": "the package index does not answer; check the network",
    "silence": "the package index does not answer; check the network",
    "other": "hash of a fetched file is not the pinned one",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_index_that_gives_no_package_is_said_in_a_line(tmp_path, monkeypatch, what: str):
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tinything==1.0 --hash=sha256:{'0' * 64}\n")
    with index(tmp_path, what) as url:
        said = refused_by(Path(sys.executable), bare_python(tmp_path), lock, url, monkeypatch)
    assert said.startswith("bench: packages could not be installed: ")
    assert ANSWERS[what] in said
    assert "PIP_INDEX_URL" in said


def test_uv_that_cannot_be_fetched_is_said_and_nothing_counts_as_made(tmp_path, monkeypatch):
    """Bench's Python has no uv here, as after `make install`."""
    python = bare_python(tmp_path)
    with index(tmp_path, "nobody") as url:
        said = refused_by(python, python, tmp_path / "lock.txt", url, monkeypatch)
    assert said.startswith("bench: uv could not be fetched: the package index does not answer")
    assert not (tmp_path / "cache" / "installer" / "installed").exists()


def test_a_full_disk_is_said_with_what_moves_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    wheel = make_wheel(tmp_path, "large", {"large.py": "#" * 1_000_000})
    lock, disk = make_lock(tmp_path, "large", wheel), tmp_path / "disk"
    script = '"$0" -I -m venv --without-pip "$1" && exec "$0" -m "$2" "$1/bin/python" "${@:3}"'
    arguments = [sys.executable, disk / "venv", MODULE, "--require-hashes", "--no-deps", "-r", lock]
    done = run_on_small_disk(disk, "500k", ["bash", "-c", script, *arguments])
    assert (done.returncode, done.stderr) == (
        2,
        "bench: packages could not be installed: the disk is full; free some of it, or name another place: "
        "make VENV=DIR, and UV_CACHE_DIR=DIR for what uv downloads\n",
    )


def bare_python(folder: Path) -> Path:
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", folder / "bare"], check=True)
    return folder / "bare" / "bin" / "python"


def installed_by(runs: Path, python: Path, lock: Path) -> subprocess.CompletedProcess[str]:
    argv = [runs, "-m", MODULE, python, "--require-hashes", "--no-deps", "-r", lock]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)


def refused_by(runs: Path, python: Path, lock: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install from this index, which fails with exit code 2, and return the last line."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(lock.parent / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL")
    for name, value in {"PIP_INDEX_URL": url, "PIP_DEFAULT_TIMEOUT": "1", "PIP_RETRIES": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    done = installed_by(runs, python, lock)
    assert (done.returncode, done.stdout) == (2, "")
    *before, last = done.stderr.splitlines()
    assert len(before) <= 1, done.stderr
    return last


@pytest.mark.parametrize(
    ("variable", "program"),
    [
        ("BENCH_CACHE_DIR", ["serving_bench", "list", "engines"]),
        ("XDG_CACHE_HOME", ["serving_bench", "list", "engines"]),
        ("XDG_CACHE_HOME", [MODULE, sys.executable]),
    ],
)
def test_a_cache_of_a_home_directory_that_there_is_none_of_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, program: list[str]
) -> None:
    monkeypatch.delenv("BENCH_CACHE_DIR", raising=False)
    monkeypatch.setenv(variable, "~nouser")
    argv = [sys.executable, "-m", *program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    said = f"{variable}=~nouser: no such home directory; give the path without ~\n"
    assert (done.returncode, done.stderr.removeprefix("bench: ")) == (2, said)


@contextmanager
def index(folder: Path, what: str) -> Iterator[str]:
    """An index at this URL: a page of something else, none at all, one that never answers, another file."""
    if what == "silence":
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        return
    page = folder / "simple" / "tinything" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<!doctype html><html><body><h1>Sign in to this network</h1></body></html>")
    if what == "other":
        wheel = make_wheel(page.parent, "tinything", {"tinything.py": ""})
        page.write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    with fake_http(files_in(folder)) as server:
        if what != "nobody":
            yield f"{server.url}/simple"
    if what == "nobody":
        yield f"{server.url}/simple"
