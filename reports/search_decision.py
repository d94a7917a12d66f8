"""The decision of a search: at each load that a deployment keeps the SLO up to, which others do, and of those
the one that takes the most load, the cheapest and the smallest, each at its own highest load. Draws nothing.

Starts' answers are told apart by the intervals of their means; the ratios to the baseline, with verdicts, are
reports/searches.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reports.caveats import stand_ins
from reports.cells import Aggregate
from reports.decision import COST, PEAK, Column, Row, over_starts
from reports.picks import Pick, Standing, State, by_intervals, pick
from reports.searches import Answer, Capacity, capacities_of, load_words

if TYPE_CHECKING:
    from reports.frames import Run

# The highest load that keeps the SLO, in users or conversations per second.
CAPACITY = "capacity"


def search_rows(run: Run) -> list[Row]:
    """From the lowest load to the highest, one for each that a deployment kept the SLO up to on all of its
    starts; nothing of a run that is no search."""
    if run.record.search is None:
        return []
    found = capacities_of(run)
    cases = dict.fromkeys((each.scenario, run.deployments[each.deployment].model) for each in found)
    rows: list[Row] = []
    for scenario, model in cases:
        own = [
            each
            for each in found
            if each.scenario == scenario and run.deployments[each.deployment].model == model
        ]
        rows += [_row(run, own, scenario, model, level) for level in _levels(own)]
    return rows


def _levels(found: Sequence[Capacity]) -> list[float]:
    kept = [[answer.kept for answer in each.answers] for each in found if each.estimate is not None]
    return sorted({min(level for level in levels if level is not None) for levels in kept})


def _row(run: Run, found: Sequence[Capacity], scenario: str, model: str, level: float) -> Row:
    standings = tuple(Standing(each.deployment, _state(each, level)) for each in found)
    words = load_words(found[0].family, level)
    return Row(scenario, model, words, standings, dict(_picks(run, found, standings)))


def _state(each: Capacity, level: float) -> State:
    """By all of its starts. One whose search was cut short says nothing."""
    if not all(answer.is_whole for answer in each.answers):
        return "unknown"
    kept = [answer.kept is not None and answer.kept >= level for answer in each.answers]
    if all(kept):
        return "kept"
    return "unclear" if any(kept) else "broken"


def _picks(
    run: Run, found: Sequence[Capacity], standings: Sequence[Standing]
) -> Iterator[tuple[Column, Pick]]:
    own = [each for each in found if each.deployment not in stand_ins(run)]
    most = {each.deployment: value for each in own if (value := _capacity(each))}
    if chosen := pick(CAPACITY, standings, most, "higher", by_intervals):
        yield "most load", chosen
    for column, metric in (("cheapest", COST), ("smallest", PEAK)):
        values = {each.deployment: value for each in own if (value := _at_highest(run, each, metric))}
        if chosen := pick(metric, standings, values, "lower", by_intervals):
            yield ("cheapest" if column == "cheapest" else "smallest"), chosen


def _capacity(each: Capacity) -> Aggregate | None:
    if each.estimate is None:
        return None
    return over_starts([answer.kept for answer in each.answers if answer.kept is not None])


def _at_highest(run: Run, each: Capacity, metric: str) -> Aggregate | None:
    """Starts' values at the highest load that each kept, the mean of its windows; None where one has none."""
    values = [_value(run, answer, metric) for answer in each.answers]
    known = [value for value in values if value is not None and value > 0]
    return over_starts(known) if known and len(known) == len(values) else None


def _value(run: Run, answer: Answer, metric: str) -> float | None:
    cells = [cell for tried in answer.tried if tried.level == answer.kept for cell in tried.cells]
    found = [run.values[cell.number][metric].value for cell in cells if cell.number in run.values]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None
