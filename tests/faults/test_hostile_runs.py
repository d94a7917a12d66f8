"""Whatever a results directory holds, each command that reads it ends with an answer or one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench_command import Place, begun, bench, ended, quick, told
from good_run import ASKED, CLAIM, good_run
from places import ROOT, TESTS
from waiting import wait_until

SUPPORT = TESTS / "support"
# Two numbers of users, the fewest that can be searched.
SEARCHED = quick("slo.success=90%", "search.lowest=1", "search.highest=2", "search.trials=1")
SEARCH = ["search", *(word for word in SEARCHED if not word.startswith("load.concurrency"))]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_run(tmp_path_factory.mktemp("good") / "run")


def read(good: Path, scratch: Path, which: str, most: int) -> str:
    paths = [ROOT, TESTS, *(SUPPORT / name for name in ("commands", "faults", "runs", "servers"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    script = [sys.executable, SUPPORT / "faults/read_hostile.py", good, scratch, which, str(most)]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "faults" in done.stderr
    return done.stdout


def test_a_sample_of_damaged_runs_ends_no_command_otherwise(good: Path, tmp_path: Path) -> None:
    assert read(good, tmp_path, "0:180", 2) == ""


def test_each_bomb_is_refused_for_its_size(good: Path, tmp_path: Path) -> None:
    assert read(good, tmp_path, "bombs", 1) == ""


@pytest.mark.parametrize(
    "words", ["claim claim.yaml --from run", f"run --resume run {' '.join(ASKED)}", "report run"]
)
def test_no_command_names_a_page_that_cannot_be_written(good: Path, tmp_path: Path, words: str) -> None:
    shutil.copytree(good, tmp_path / "run")
    (tmp_path / "run/report.html/in-the-way").mkdir(parents=True)
    (tmp_path / "claim.yaml").write_text(CLAIM)
    done = told(Place(tmp_path), *words.split())
    assert done.returncode != 0
    assert "report.html" not in done.stdout
    assert "report.html" in done.stderr


@pytest.mark.faults
@pytest.mark.parametrize(
    ("before", "words"),
    [(["run", *quick(), "--output", "first"], ["rerun", "first"]), (["--version"], SEARCH)],
)
def test_what_measures_names_no_page_that_cannot_be_written(tmp_path, before: list[str], words: list[str]):
    place = Place(tmp_path)
    assert bench(place, *before).returncode == 0
    run = tmp_path / "again"
    with begun(place, *words, "--output", run) as process:
        wait_until(lambda: (run / "run.json").exists(), 30)  # its folder must be empty before
        (run / "report.html/in-the-way").mkdir(parents=True)
        done = ended(process)
    assert done.returncode not in (0, None), done.stderr
    assert "report.html" not in done.stdout
    assert "report.html" in done.stderr


@pytest.mark.faults
@pytest.mark.parametrize("which", ["0:2", "1:2"])
def test_no_damaged_run_ends_a_command_otherwise(good: Path, tmp_path: Path, which: str) -> None:
    assert read(good, tmp_path, which, 2) == ""


@pytest.mark.faults_long
@pytest.mark.parametrize("which", ["0:4", "1:4", "2:4", "3:4"])
def test_no_damaged_run_ends_any_command_otherwise(good: Path, tmp_path: Path, which: str) -> None:
    assert read(good, tmp_path, which, 99) == ""
