"""What a search found on each start: the highest load that kept the objectives, and the bracket around the
truth. Draws nothing.

Recomputed from the requests on reading, by the rules that the search went by.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.data.cells import Cell, load_family, load_level
from reports.data.run import Run
from reports.measures.metrics import Value, value_of_start
from reports.measures.slo import Judged, judged_cells
from reports.measures.values import values_of


@dataclass(frozen=True)
class Tried:
    """One load on one start: its windows in the order of their measurement, and what they came to together;
    None where they say nothing."""

    level: float
    load: str
    cells: tuple[Cell, ...]
    judged: Judged | None

    @property
    def keeps(self) -> bool | None:
        """Clear or not, whether it counts as kept; None where nothing is known."""
        if self.judged is None:
            return None
        return self.judged.verdict == "kept" or (self.judged.verdict == "unclear" and self.judged.meets)


@dataclass(frozen=True)
class Answer:
    """Of one start. `kept`: the highest load that kept every objective below all that did not, None where
    none did; `broken`: the lowest that did not, None where none was found. `proven_kept` and `proven_broken`
    are those whose intervals say so. `is_whole`: the search came to its end on this start. `limit`: the
    highest load that the search was allowed."""

    deployment: str
    scenario: str
    start: str
    repeat: int
    family: str
    tried: tuple[Tried, ...]
    kept: float | None
    broken: float | None
    proven_kept: float | None
    proven_broken: float | None
    is_whole: bool
    limit: float | None

    @property
    def uncertain(self) -> list[Tried]:
        """The ends of the bracket that were decided by their shares alone, intervals notwithstanding."""
        ends = (self.kept, self.broken)
        return [t for t in self.tried if t.level in ends and t.judged and t.judged.verdict == "unclear"]

    @property
    def is_at_limit(self) -> bool:
        """Whether the highest load that was allowed is kept: the answer is that or more."""
        return self.broken is None and self.kept is not None and self.kept == self.limit

    @property
    def bracket(self) -> tuple[float, float] | None:
        """Highest kept and lowest broken, between which the truth lies; None where either is missing."""
        if not self.is_whole or self.kept is None or self.broken is None:
            return None
        return self.kept, self.broken

    @property
    def words(self) -> str:
        """`12 users`, `12/s`, `64 users or more`, `none`, `not known`."""
        if not self.is_whole:
            return "not known"
        if self.kept is None:
            return "none"
        return load_words(self.family, self.kept) + (" or more" if self.is_at_limit else "")


def load_words(family: str, level: float, half: float = 0.0) -> str:
    """A level with its unit: `12 users`, `2.5/s`. A mean over starts may be no whole number of users. `half`:
    how uncertain it is, 0 where that is not known."""
    if family == "closed loop":
        return f"{level_words(level, half)} user{'' if level == 1 else 's'}"
    return f"{level_words(level, half)}/s"


def level_words(level: float, half: float = 0.0) -> str:
    """Without its unit, and without the digits that `half` makes noise: the last is worth a fifth of it at
    most. Three significant digits where that is not known."""
    # A mean of logarithms misses a whole number by its rounding.
    if round(level, 9).is_integer():
        return f"{level:,.0f}"
    size = half / 5 if half > 0 else level / 100
    places = max(0, -math.floor(math.log10(size)))
    return f"{level:,.{min(places, 6)}f}"


def answers_of(run: Run) -> list[Answer]:
    """Of each deployment and scenario, in the plan's order, and its starts."""
    by_start: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in run.planned_cells:
        key = (cell.label, cell.planned.scenario.label, cell.planned.repeat)
        by_start.setdefault(key, []).append(cell)
    order = list(run.deployments)
    keys = sorted(by_start, key=lambda key: (order.index(key[0]), key[1], key[2]))
    return [_answer(run, by_start[key]) for key in keys]


def ends_of(tried: Sequence[Tried]) -> tuple[float | None, float | None]:
    """The highest load kept below all that are broken, and the lowest broken; None where there is none.

    The search goes by the same rule (harness/run/search.py), to which tests/harness/run/test_bisection.py
    holds both.
    """
    broken = min((each.level for each in tried if each.keeps is False), default=None)
    below = math.inf if broken is None else broken
    return max((each.level for each in tried if each.keeps and each.level < below), default=None), broken


def _answer(run: Run, cells: Sequence[Cell]) -> Answer:
    by_level: dict[float, list[Cell]] = {}
    for cell in cells:
        by_level.setdefault(load_level(cell.load), []).append(cell)
    tried = tuple(
        Tried(level, each[0].load_label, tuple(each), judged_cells(run, each))
        for level, each in sorted(by_level.items())
    )
    kept, broken = ends_of(tried)
    below = math.inf if broken is None else broken
    clear = [(each.level, each.judged.verdict) for each in tried if each.judged]
    record = run.start_of(cells[0])
    return Answer(
        deployment=cells[0].label,
        scenario=cells[0].planned.scenario.label,
        start=record.name if record else cells[0].start.name,
        repeat=cells[0].planned.repeat,
        family=load_family(cells[0].load),
        tried=tried,
        kept=kept,
        broken=broken,
        proven_kept=max((v for v, said in clear if said == "kept" and v < below), default=None),
        proven_broken=min((v for v, said in clear if said == "broken"), default=None),
        is_whole=record is not None and record.status == "completed",
        limit=run.record.search.highest if run.record.search else None,
    )


def at_highest(run: Run, answer: Answer, metric: str) -> float | None:
    """A start's value of a metric at the highest load that it kept, by its windows there that count; None
    where it has none."""
    cells = [cell for tried in answer.tried if tried.level == answer.kept for cell in tried.cells]
    found = [values_of(run)[cell.number].get(metric, Value(None, 0)) for cell in cells if cell.counts]
    return value_of_start(found).value if found else None
