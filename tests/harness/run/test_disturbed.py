"""What the guard found disturbed is measured again, within a share of the time that the run took."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import make_run
import pytest
from begun_run import Told, begin
from make_run import S

from harness.contracts import GuardFinding, PlannedStart
from harness.run.next_starts import and_again
from harness.store.store import Kept

DURING = GuardFinding("foreign_load", "other programs used 60 % of the cores", "during", "suspect")
BEFORE = GuardFinding("foreign_load", "other programs used 60 % of the cores", "before", "suspect")


def measured(directory: Path, starts: Sequence[PlannedStart], found: dict[int, GuardFinding], took_s: float):
    """Yield the starts, each measured when the next one is asked for."""
    for start in starts:
        yield start
        time.sleep(took_s / len(starts))
        make_run.write_start(directory, make_run.start_record(start, S))
        for cell in start.cells:
            guard = (found[cell.number],) if cell.number in found else ()
            make_run.write_cell(directory, cell, start, [], make_run.summary(S), guard=guard)


def again(
    tmp_path: Path, found: dict[int, GuardFinding], share: float
) -> tuple[Iterator[PlannedStart], Told, int]:
    directory, record, planned = begin(tmp_path / "run")
    run, told = Kept(directory / "run.json", record), Told()
    starts = and_again(run, measured(directory, planned.starts, found, 0.4), share, told)  # type: ignore[arg-type]
    return starts, told, len(planned.starts)


def test_a_start_is_measured_again_with_its_disturbed_cells_under_a_new_number(tmp_path):
    starts, told, planned = again(tmp_path, {2: DURING, 3: BEFORE}, 1.0)
    [*first, more] = starts
    assert len(first) == planned
    assert (more.index, more.repeat, [cell.number for cell in more.cells]) == (planned + 1, 0, [2])
    assert told.lines == ["1 starts: reference label=a, repeat 1, was disturbed and is measured again"]


@pytest.mark.parametrize("found", [{}, {1: BEFORE}])
def test_what_was_not_disturbed_in_its_window_is_not(tmp_path, found):
    starts, told, planned = again(tmp_path, found, 1.0)
    assert len(list(starts)) == planned
    assert told.lines == []


def test_what_the_budget_has_no_time_for_is_counted(tmp_path):
    starts, told, planned = again(tmp_path, {1: DURING, 7: DURING}, 0.1)
    assert len(list(starts)) == planned
    assert told.lines == ["2 disturbed starts not measured again: no time left"]
