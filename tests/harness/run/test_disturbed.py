"""What the guard found disturbed is measured again, as far as the run's budget has time for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_run
import pytest
from begun_run import Told, begin
from make_run import S

from serving_bench.harness.contracts import GuardFinding, PlannedStart, quoted
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.run.next_starts import and_again
from serving_bench.harness.store import store
from serving_bench.harness.store.disturbed import Disturbed, disturbed
from serving_bench.harness.store.store import Kept

DURING = GuardFinding("foreign_load", quoted("other programs used 60 % of the cores"), "during", "suspect")
HIT = "on a machine that was busy or not fit"
BEFORE = GuardFinding("foreign_load", quoted("other programs used 60 % of the cores"), "before", "suspect")


def measured(
    directory: Path, starts: Sequence[PlannedStart], found: dict[int, GuardFinding]
) -> Iterator[PlannedStart]:
    """Yield the starts, each measured when the next one is asked for."""
    for start in starts:
        yield start
        make_run.write_start(directory, make_run.start_record(start, S))
        for cell in start.cells:
            guard = (found[cell.number],) if cell.number in found else ()
            make_run.write_cell(directory, cell, start, [], make_run.summary(S), guard=guard)


def again(
    tmp_path: Path, found: dict[int, GuardFinding], budget_s: float | None = None
) -> tuple[Iterator[PlannedStart], Told, int]:
    directory, record, planned = begin(tmp_path / "run")
    run, told = Kept(directory / "run.json", record), Told()
    budget = Budget(budget_s, planned.starts)
    starts = and_again(run, measured(directory, planned.starts, found), budget, told)
    return starts, told, len(planned.starts)


def test_a_start_is_measured_again_with_its_disturbed_cells_under_a_new_number(tmp_path):
    starts, told, planned = again(tmp_path, {2: DURING, 3: BEFORE})
    [*first, more] = starts
    assert len(first) == planned
    assert (more.index, more.repeat, [cell.number for cell in more.cells]) == (planned + 1, 0, [2])
    assert told.lines == [
        "1 start more: reference label=a, repeat 1: the machine was busy or not fit, so it is measured again"
    ]


@pytest.mark.parametrize("found", [{}, {1: BEFORE}])
def test_what_was_not_disturbed_in_its_window_is_not(tmp_path, found):
    starts, told, planned = again(tmp_path, found)
    assert len(list(starts)) == planned
    assert told.lines == []


def test_what_the_budget_has_no_time_for_is_counted(tmp_path):
    starts, told, planned = again(tmp_path, {1: DURING, 3: DURING}, 1.0)
    assert len(list(starts)) == planned
    said = "no time for another start (about 16 s) in the 1 s left of run.budget (1 s)"
    assert told.lines == [f"2 starts {HIT}, not measured again: {said}"]


def test_what_lasts_is_measured_again_twice_at_most(tmp_path):
    starts, told, planned = again(tmp_path, dict.fromkeys((1, 3, 5, 7), DURING))
    assert len(list(starts)) == planned + 2
    assert told.lines[2:] == [f"2 starts {HIT}, not measured again: the machine is still busy"]


def test_what_does_not_last_is_measured_again_to_the_end(tmp_path):
    starts, told, planned = again(tmp_path, dict.fromkeys((1, 3, 5, 7), DURING))
    for number, start in enumerate(starts):
        if number >= planned:  # this time it is quiet
            [cell] = start.cells
            make_run.write_cell(tmp_path / "run", cell, start, [], make_run.summary(S))
    assert number == planned + 3
    assert len(told.lines) == 4


def test_what_falls_on_one_deployment_alone_is_not_measured_again(tmp_path):
    _, _, planned = begin(tmp_path / "other")
    first = planned.starts[0].deployment.label
    of_first = [
        cell.number for start in planned.starts if start.deployment.label == first for cell in start.cells
    ]
    starts, told, count = again(tmp_path, dict.fromkeys(of_first, DURING))
    assert len(list(starts)) == count
    [line] = told.lines
    assert line.startswith(f"{first} was disturbed in ")


def judged(directory: Path, change: Callable[[PlannedStart], Mapping[str, Any]]) -> Disturbed:
    """Judge a run of which each start's cells have these changes."""
    _, _, planned = begin(directory)
    for start in planned.starts:
        for cell in start.cells:
            make_run.write_cell(directory, cell, start, [], make_run.summary(S), **change(start))
    return disturbed(store.read_cells(directory))


def test_what_was_disturbed_is_not_forgotten_when_it_is_measured_again(tmp_path):
    """Both were disturbed in all starts. One was calm when it was measured again."""

    def mended(start: PlannedStart) -> Mapping[str, Any]:
        return {"was_disturbed": True} if "label=a" in start.deployment.label else {"guard": (DURING,)}

    found = judged(tmp_path / "both", mended)
    assert (found.at_one, len(found.cells)) == ({}, 4)
    alone = judged(
        tmp_path / "one", lambda start: {} if "label=a" in start.deployment.label else mended(start)
    )
    assert (alone.at_one, alone.cells) == ({"reference label=b": (2, 2)}, frozenset())


def test_a_window_that_strict_made_invalid_is_measured_again_also_of_one_deployment_alone(tmp_path):
    refused = {"guard": (replace(DURING, validity="invalid"),), "validity": "invalid"}
    found = judged(tmp_path, lambda start: refused if "label=a" in start.deployment.label else {})
    assert (found.at_one, len(found.cells)) == ({}, 4)
