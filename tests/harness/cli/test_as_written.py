"""Whatever reads a run says in a line which of its files are not as they were written."""

import fcntl
import shutil
from pathlib import Path

import pytest
from bench_command import Place, told
from reference_claim import CLAIM

TABLE = "cells/001/requests.parquet"
COMMANDS = (
    "report run", "report run --format json --output told.json", "report run --charts",
    "report run --table cells --output cells.csv",
    "compare run whole", "compare whole run", "gate whole run:reference", "claim claim.yaml --from run",
    "rerun run --plan", "run --resume run",
)  # fmt: skip


@pytest.fixture
def place(run_copy: Path) -> Place:
    """A run, and the same once more."""
    shutil.copytree(run_copy, run_copy.with_name("whole"))
    (run_copy.parent / "claim.yaml").write_text(CLAIM)
    return Place(run_copy.parent)


def damage(place: Place) -> None:
    """Change what a reader cannot tell from what was measured."""
    table, record = place.run_dir / TABLE, place.run_dir / "cells/002/cell.json"
    table.write_bytes(table.read_bytes().replace(b"ok", b"OK", 1))
    record.write_text(record.read_text().replace('"seed": ', '"seed": 1'))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_changed_file_is_named(place: Place, words: str) -> None:
    assert "bench verify" not in told(place, *words.split()).stderr
    damage(place)
    done = told(place, *words.split())
    said = f"run: {TABLE} is changed, and 1 more; see `bench verify run`"
    assert done.stderr.splitlines().count(said) == 1, done.stderr


def test_a_page_that_was_changed_is_written_again_without_a_word(place: Place) -> None:
    (place.run_dir / "report.html").write_text("mine")
    done = told(place, "report", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert told(place, "verify", "run").returncode == 0


def test_a_run_that_goes_on_is_not_compared_with_its_checksums(place: Place) -> None:
    damage(place)
    with (place.run_dir / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert told(place, "report", "run").stderr == ""


def test_a_list_that_cannot_be_read_is_said(place: Place) -> None:
    (place.run_dir / "SHA256SUMS").unlink()
    (place.run_dir / "SHA256SUMS").mkdir()
    done = told(place, "report", "run", "--charts")
    assert done.returncode == 0
    assert done.stderr.startswith("run: its files could not be compared with their checksums (")
    assert done.stderr.count("\n") == 1
