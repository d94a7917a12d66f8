"""Cells that are measured again, on real servers: what counts stays, and the end tells what stands."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from bench_command import Place, begun, ended, quick, side_by_side
from waiting import wait_until

FINDING = {"kind": "foreign_load", "text": "others used 60 %", "when": "during", "validity": "suspect"}
Ended = tuple[Place, CompletedProcess[str]]


def disturb(place: Place, number: int) -> None:
    """Write into a stored cell what the guard writes when others load the machine in its window."""
    path = place.run_dir / "cells" / f"{number:03d}" / "cell.json"
    changes = {
        "guard": [FINDING],
        "guard_mode": "mark",
        "validity": "suspect",
        "reasons": ["others used 60 %"],
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut_short(end: Callable[[Place, int], None]) -> Callable[[Place], Ended]:
    """Return a run of two starts; the first was disturbed, and ends early when it is measured again."""

    def story(place: Place) -> Ended:
        words = quick("repeats=2", "load.duration=2s")
        with begun(place, "run", *words, "--output", "run", "--json") as process:
            wait_until(lambda: 1 in place.cells(), 60)
            disturb(place, 1)
            wait_until(lambda: len(list(place.run_dir.glob("cells/*/cell.json"))) >= 2, 60)
            wait_until(lambda: len(place.starts()) == 3 and bool(rows(place)), 60)
            end(place, process.pid)
            return place, ended(process)

    return story


def rows(place: Place) -> list[Path]:
    return [path for path in place.run_dir.glob("cells/001*/rows.jsonl") if path.stat().st_size]


def kill_server(place: Place, _: int) -> None:
    os.kill(place.starts()[2]["pid"], signal.SIGKILL)


def mended(place: Place) -> Ended:
    """Two starts; the server of the first is killed in a disturbed window, and it is measured again."""
    with begun(place, "run", *quick("repeats=2", "load.duration=2s"), "--output", "run", "--json") as process:
        wait_until(lambda: place.rows_so_far(1) >= 2, 60)
        os.kill(place.starts()[0]["pid"], signal.SIGKILL)
        wait_until(lambda: 1 in place.cells(), 60)
        disturb(place, 1)
        return place, ended(process)


STORIES: dict[str, Callable[[Place], Ended]] = {
    "crash": cut_short(kill_server),
    "interrupt": cut_short(lambda _, pid: os.kill(pid, signal.SIGINT)),
    "mended": mended,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with side_by_side(tmp_path_factory.mktemp("again"), STORIES) as runs:
        yield runs


@pytest.mark.parametrize(
    ("story", "status", "code"), [("crash", "failed", 0), ("interrupt", "interrupted", 130)]
)
def test_a_cell_that_counts_stays_when_its_second_measurement_does_not(runs, story, status, code) -> None:
    place, done = runs[story].result()
    cell = place.cells()[1]
    assert (cell["status"], cell["validity"], cell["start"]) == (
        "completed",
        "suspect",
        place.starts()[0]["name"],
    )
    assert done.returncode == code, done.stderr
    assert "cell 001: its earlier attempt was no worse and is kept" in done.stderr
    assert json.loads(done.stdout)["cells"] == {"planned": 2, "counted": 2, "failed": []}
    again = json.loads((place.run_dir / "cells" / "001.attempt1" / "cell.json").read_text())
    assert (again["status"], again["start"]) == (status, place.starts()[2]["name"])


def test_the_end_tells_what_stands_after_a_failed_cell_was_mended(runs) -> None:
    place, done = runs["mended"].result()
    first = json.loads((place.run_dir / "cells" / "001.attempt1" / "cell.json").read_text())
    assert first["status"] == "failed"
    assert [cell["validity"] for cell in place.cells().values()] == ["valid", "valid"]
    said = json.loads(done.stdout)
    assert (done.returncode, said["exit_code"], said["cells"]["failed"]) == (0, 0, []), done.stderr
    assert "failed or are invalid" not in done.stderr
