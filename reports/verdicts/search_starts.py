"""What a search found on each start: the highest load that kept the objectives, and the bracket around it.

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
    """One load on one start: its windows in order, and what they came to; None where they say nothing."""

    level: float
    load: str
    cells: tuple[Cell, ...]
    judged: Judged | None

    @property
    def keeps(self) -> bool | None:
        """Whether it counts as kept, clear or not; None where nothing is known."""
        if self.judged is None:
            return None
        return self.judged.verdict == "kept" or (self.judged.verdict == "unclear" and self.judged.meets)


@dataclass(frozen=True)
class Answer:
    """The answer of one start.

    `kept`: the highest load that kept every objective below all that did not; `broken`: the lowest that did
    not; None where there is none. `proven_kept`, `proven_broken`: the same by intervals. `is_whole`: the
    search came to its end on this start. `limit`: the highest load that it was allowed.
    """

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
        """The ends of the bracket that shares decided, since their intervals do not."""
        ends = (self.kept, self.broken)
        return [t for t in self.tried if t.level in ends and t.judged and t.judged.verdict == "unclear"]

    @property
    def is_at_limit(self) -> bool:
        return self.broken is None and self.kept is not None and self.kept == self.limit

    @property
    def bracket(self) -> tuple[float, float] | None:
        """Highest kept and lowest broken load; None where either is missing."""
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
    """Return a level with its unit: `12 users`, `2.5/s`. `half`: as in level_words."""
    if family == "closed loop":
        return f"{level_words(level, half)} user{'' if level == 1 else 's'}"
    return f"{level_words(level, half)}/s"


def level_words(level: float, half: float = 0.0) -> str:
    """Return a level without the digits that an uncertainty of `half` makes noise (0: not known)."""
    # A mean of logarithms misses a whole number by its rounding.
    if round(level, 9).is_integer():
        return f"{level:,.0f}"
    size = half / 5 if half > 0 else level / 100
    places = max(0, -math.floor(math.log10(size)))
    return f"{level:,.{min(places, 6)}f}"


def answers_of(run: Run) -> list[Answer]:
    """Return the answer of each start, by deployment and scenario in the plan's order."""
    by_start: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in run.planned_cells:
        key = (cell.label, cell.planned.scenario.label, cell.planned.repeat)
        by_start.setdefault(key, []).append(cell)
    order = list(run.deployments)
    keys = sorted(by_start, key=lambda key: (order.index(key[0]), key[1], key[2]))
    return [_answer(run, by_start[key]) for key in keys]


def ends_of(tried: Sequence[Tried]) -> tuple[float | None, float | None]:
    """Return the highest load kept below all that are broken, and the lowest broken; None for none.

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
    """Return a start's value of a metric over its windows that count at the highest load that it kept."""
    cells = [cell for tried in answer.tried if tried.level == answer.kept for cell in tried.cells]
    found = [values_of(run)[cell.number].get(metric, Value(None, 0)) for cell in cells if cell.counts]
    return value_of_start(found).value if found else None
