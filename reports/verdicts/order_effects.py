"""Whether values depend on when they were measured: on a start's place in its block, a load's place in its
start, or how far the run had come.

Reads the order of a run's starts and cells and each cell's values; judges nothing, draws nothing.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.over_starts import withheld
from reports.measures.values import values_of
from reports.stats.intervals import Estimate

METRICS = ("output_tokens_per_s", "ttft_s.p50", "tpot_s.p50")
# Fewer make an interval that only a huge effect could leave.
DEGREES_NEEDED = 4.0
Kind = Literal["place of a start in its block", "place of a load in its start", "time since the run began"]


@dataclass(frozen=True)
class Effect:
    """How a metric's values change from the first place to the last: `change` is of logarithms, with its
    error, beside what deployments, loads and (of places) blocks or starts make of them."""

    kind: Kind
    metric: str
    change: Estimate

    @property
    def p(self) -> float:
        """Probability of a change as large, either way, if there is none."""
        other = replace(self.change, mean=-self.change.mean)
        return min(1.0, 2 * min(self.change.p_beyond(0.0), other.p_beyond(0.0)))


@dataclass(frozen=True)
class _Value:
    """The logarithm of a cell's value, what it is of (deployment, scenario, load), and when it was taken: on
    which start, and its places as planned. `is_in_place`: it was measured there, and not anew on a start that
    --resume added."""

    log: float
    group: Hashable
    deployment: str
    block: int
    start: int
    place_in_block: int
    place_in_start: int
    is_in_place: bool


def effects(run: Run) -> list[Effect]:
    """All that the run has enough starts for; none of a server that was not restarted, and none of a search,
    which chooses its loads."""
    if run.record.search is not None or any(record.attached for record in run.start_records):
        return []
    return [effect for metric in METRICS for effect in _of_metric(metric, list(_values(run, metric)))]


def _of_metric(metric: str, values: Sequence[_Value]) -> Iterator[Effect]:
    placed = [each for each in values if each.is_in_place]
    starts, all_starts = list(_start_means(placed)), list(_start_means(values))
    found: dict[Kind, Estimate | None] = {
        "place of a start in its block": change(
            [each.log for each in starts],
            [each.place_in_block for each in starts],
            [[each.deployment for each in starts], [each.block for each in starts]],
        ),
        "place of a load in its start": change(
            [each.log for each in placed],
            [each.place_in_start for each in placed],
            [[each.group for each in placed], [each.start for each in placed]],
        ),
        "time since the run began": change(
            [each.log for each in all_starts],
            [each.start for each in all_starts],
            [[each.deployment for each in all_starts]],
        ),
    }
    yield from (Effect(kind, metric, estimate) for kind, estimate in found.items() if estimate)


def change(
    logs: Sequence[float], places: Sequence[int], factors: Sequence[Sequence[Hashable]]
) -> Estimate | None:
    """By least squares, how far values change from the first place to the last, beside the factors' levels.

    None where the factors determine the place, or leave fewer than DEGREES_NEEDED degrees of freedom.
    """
    if len(set(places)) < 2:
        return None
    others = np.column_stack([_indicators(levels) for levels in factors])
    x, y = (_rest(np.asarray(each, dtype=float), others) for each in (places, logs))
    df = len(logs) - int(np.linalg.matrix_rank(others)) - 1
    size = float(x @ x)
    if df < DEGREES_NEEDED or size < 1e-9 * len(logs):
        return None
    slope = float(x @ y) / size
    error = math.sqrt(float(((y - slope * x) ** 2).sum()) / df / size)
    way = max(places) - min(places)
    return Estimate(slope * way, error * way, float(df), len(logs), is_log=True)


def _indicators(levels: Sequence[Hashable]) -> np.ndarray:
    """A column per level, 1 where it is."""
    names = list(dict.fromkeys(levels))
    return np.array([[float(level == name) for name in names] for level in levels])


def _rest(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What of values the columns do not explain."""
    solved = np.linalg.lstsq(others, values, rcond=None)[0]
    return np.asarray(values - others @ solved)


def _values(run: Run, metric: str) -> Iterator[_Value]:
    cells = [cell for cell in run.planned_cells if cell.counts]
    indexes = {(cell.planned.repeat, cell.start.index) for cell in run.planned_cells}
    for cell in cells:
        found = values_of(run)[cell.number].get(metric)
        if found is None or found.value is None or found.value <= 0 or withheld(run, cell.key, metric):
            continue
        block, index, record = cell.planned.repeat, cell.start.index, run.start_of(cell)
        yield _Value(
            log=math.log(found.value),
            group=cell.key,
            deployment=cell.label,
            block=block,
            start=record.index if record else index,
            place_in_block=sum(other == block and number < index for other, number in indexes),
            place_in_start=_place_in_start(cell),
            is_in_place=record is None or record.index == index,
        )


def _place_in_start(cell: Cell) -> int:
    return sum(other.number < cell.number for other in cell.start.cells)


def _start_means(values: Sequence[_Value]) -> Iterator[_Value]:
    """One value per start, the mean of its cells' distances from their groups' means: cells of a start share
    its luck, and are no repeats of each other."""
    of_group: dict[Hashable, list[float]] = {}
    for each in values:
        of_group.setdefault(each.group, []).append(each.log)
    by_start: dict[int, list[_Value]] = {}
    for each in values:
        by_start.setdefault(each.start, []).append(each)
    for start in sorted(by_start):
        found = by_start[start]
        rest = [each.log - float(np.mean(of_group[each.group])) for each in found]
        yield replace(found[0], log=float(np.mean(rest)))
