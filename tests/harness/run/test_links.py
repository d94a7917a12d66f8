"""No link in a run that somebody handed over leads to a file elsewhere that is then written."""

import shutil
from pathlib import Path

import pytest
from bench_command import Place, told
from planted_links import LINKS, plant
from reference_claim import CLAIM

from serving_bench.harness.errors import StoreError
from serving_bench.harness.run import session

_NOT_OURS = r"strange \(.*a link, .*\); remove it$"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder of the user's, which no command may change."""
    folder = tmp_path / "private"
    (folder / "000").mkdir(parents=True)
    for name in ("diary.txt", "000/load.board", f"diary.txt.{'a' * 16}.part"):
        (folder / name).write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", [*LINKS, "cells", "cells/001", "charts", "run.json", ".lock", "SHA256SUMS", "starts/x/server.log"]
)
def test_a_run_with_a_link_is_not_taken_for_writing(run_copy: Path, private: Path, name: str) -> None:
    (run_copy / "starts/x").mkdir()
    before = contents(private)
    link = plant(run_copy, name, private / "diary.txt" if Path(name).suffix else private)
    with pytest.raises(StoreError, match=f"^{link}: {_NOT_OURS}"), session.sole_writer(run_copy):
        pytest.fail("it was taken")
    assert contents(private) == before


def test_what_a_user_has_beside_a_run_may_be_a_link(run_copy: Path, private: Path) -> None:
    before = contents(private)
    plant(run_copy, "notes", private)
    (run_copy / f"x.{'b' * 16}.part").symlink_to(private / "diary.txt")
    with session.sole_writer(run_copy):
        pass
    assert contents(private) == before


@pytest.mark.parametrize("command", ["run", "search"])
def test_a_run_with_a_link_does_not_go_on(run_copy: Path, private: Path, command: str) -> None:
    shutil.rmtree(run_copy / "cells/002")
    plant(run_copy, "cells/002", private)
    before = contents(private)
    done = told(Place(run_copy.parent), command, "--resume", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run/cells/002: strange (not a file of bench's: a link, ")
    assert done.stderr.count("\n") == 1
    assert contents(private) == before


@pytest.mark.parametrize(
    "words", ["report run", "report run --format md --output run/charts/x.md", "claim claim.yaml --from run"]
)
def test_what_reads_a_run_writes_through_no_link(run_copy: Path, private: Path, words: str) -> None:
    before = contents(private)
    for name in ("report.html", "claim.json", "headline.json", "SHA256SUMS"):
        plant(run_copy, name, private / "diary.txt")
    (run_copy.parent / "claim.yaml").write_text(CLAIM)
    told(Place(run_copy.parent), *words.split())
    assert contents(private) == before


def test_no_picture_is_drawn_where_a_link_leads(run_copy: Path, private: Path) -> None:
    plant(run_copy, "charts", private)
    done = told(Place(run_copy.parent), "report", "run", "--format", "svg", "--chart", "all")
    said = "run/charts: is a link, which is not followed; remove it, or give --output DIR"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{said}\n")
