"""How transformers' environment gets PyTorch: the real script and pip, on locks of tiny wheels."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_http import fake_http
from places import ROOT
from wheels import make_lock, make_wheel

SCRIPT = ROOT / "engines" / "inside" / "add_torch_cpu.py"
ABSENT = f"tinyabsent==1.0+cpu --hash=sha256:{'0' * 64}\n"


@dataclass(frozen=True)
class Environment:
    """A venv, and beside it the script with locks of its own."""

    folder: Path

    def locks(self, cpu_build: str | None = None) -> None:
        """`cpu_build`: another text of the CPU build's lock."""
        locks = self.folder / "locks"
        for name, lock in (("tinycpu", "transformers-cpu-torch"), ("tinypypi", "transformers-cuda")):
            made = make_lock(locks, name, make_wheel(locks, name, {f"{name}.py": ""}))
            made.rename(locks / f"{lock}.txt")
        if cpu_build is not None:
            (locks / "transformers-cpu-torch.txt").write_text(cpu_build)

    def add(self, **settings: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "BENCH_"))}
        defaults = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_RETRIES": "0"}
        if "PIP_INDEX_URL" in settings:
            del defaults["PIP_NO_INDEX"]
        argv = [self.folder / "venv" / "bin" / "python", "-I", self.folder / "inside" / SCRIPT.name]
        environment = {**kept, **defaults, "TMPDIR": str(self.folder / "tmp"), **settings}
        return subprocess.run(argv, env=environment, capture_output=True, text=True)

    def has(self) -> set[str]:
        return {path.stem for path in self.folder.glob("venv/lib/*/site-packages/tiny*.py")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("torch")
    for name in ("inside", "locks", "tmp"):
        (folder / name).mkdir()
    subprocess.run([sys.executable, "-I", "-m", "venv", folder / "venv"], check=True)
    shutil.copy(SCRIPT, folder / "inside")
    return Environment(folder)


@pytest.fixture
def environment(made: Environment) -> Iterator[Environment]:
    made.locks()
    yield made
    for path in made.folder.glob("venv/lib/*/site-packages/tiny*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert list((made.folder / "tmp").iterdir()) == []


@pytest.fixture
def index_without_packages() -> Iterator[str]:
    """A package index that answers 404 to all."""
    with fake_http({}) as server:
        yield f"{server.url}/simple"


def test_the_cpu_build_is_taken_where_there_is_one_and_pips_lines_are_indented(environment: Environment):
    done = environment.add()
    assert (done.returncode, environment.has()) == (0, {"tinycpu"})
    assert all(line.startswith("  ") for line in done.stdout.splitlines())
    assert "Successfully installed tinycpu-1.0" in done.stdout


def test_where_pip_knows_no_cpu_build_pypis_is_taken(environment: Environment, index_without_packages: str):
    environment.locks(ABSENT)
    done = environment.add(PIP_INDEX_URL=index_without_packages)
    assert (done.returncode, environment.has()) == (0, {"tinypypi"}), done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert said == [
        "pip's settings offer no CPU build of PyTorch",
        "taking PyPI's, with CUDA's libraries (4 GB more)",
    ]


def test_an_index_that_does_not_answer_is_an_error_and_no_reason_for_a_large_download(
    environment: Environment,
) -> None:
    environment.locks(ABSENT)
    done = environment.add(PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert (done.returncode, environment.has()) == (1, set())
    assert "Could not fetch URL http://127.0.0.1:9/simple/tinyabsent/" in done.stderr


def test_a_wrong_hash_is_an_error_in_pips_words(environment: Environment) -> None:
    folder = environment.folder / "locks"
    lock = make_lock(folder, "tinycpu", folder / "tinycpu-1.0-py3-none-any.whl", digest="0" * 64)
    environment.locks(lock.read_text())
    done = environment.add()
    assert (done.returncode, environment.has()) == (1, set())
    assert "DO NOT MATCH THE HASHES" in done.stdout


def test_a_run_does_not_fetch_pypis(environment: Environment) -> None:
    environment.locks(ABSENT)
    done = environment.add(BENCH_INSTALL_LIMIT_BYTES=str(2 << 30))
    assert (done.returncode, environment.has()) == (1, set())
    assert "4 GB more: `bench install transformers` takes it" in done.stderr


def test_room_is_looked_for_before_pypis_is_fetched() -> None:
    why_not = runpy.run_path(str(SCRIPT))["why_not_from_pypi"]
    assert why_not(None, 5_000_000_000) is None
    assert why_not(None, 3_000_000_000).startswith(
        "PyPI's, with CUDA's libraries, is 4 GB more, and 3.0 GB are free under "
    )
