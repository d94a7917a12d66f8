"""What a search found: on each start the highest load that kept the objectives, and what all starts kept.

Recomputed from the requests on reading, by the rules that the search went by. Loads are steps of a grid and
have no variance: they order deployments, and are never tested.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.contracts import SUCCESS
from reports.data.cells import Cell, Group, grouped, load_level
from reports.data.run import Run, once
from reports.measures.slo import Judged, judged_cells


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
    search came to its end on this start. `is_at_limit`: it kept the highest load that was allowed.
    """

    start: str
    repeat: int
    tried: tuple[Tried, ...]
    kept: float | None
    broken: float | None
    proven_kept: float | None
    proven_broken: float | None
    is_whole: bool
    is_at_limit: bool

    @property
    def words(self) -> str:
        """`12 users`, `12/s`, `64 users or more`, `none`, `not known`."""
        if not self.is_whole:
            return "not known"
        load = next((each.load for each in self.tried if each.level == self.kept), "none")
        return f"{load} or more" if self.is_at_limit else load


@dataclass(frozen=True)
class Capacity:
    """The highest load that a deployment keeps: the least of its starts' answers.

    None where that is not known, and `why` says why. `group`: its cells at that load, else at the lowest one.
    """

    group: Group
    answers: tuple[Answer, ...]
    level: float | None
    why: str | None

    @property
    def deployment(self) -> str:
        return self.group.deployment

    @property
    def scenario(self) -> str:
        return self.group.scenario

    @property
    def is_least(self) -> bool:
        """Whether every start kept the highest load that was allowed."""
        return all(answer.is_at_limit for answer in self.answers)

    @property
    def words(self) -> str:
        """`12 users`, `64 users or more`, `not known`."""
        if self.level is None:
            return "not known"
        return f"{self.group.load} or more" if self.is_least else self.group.load

    @property
    def cells_at_highest(self) -> list[Cell]:
        """The cells that count at the highest load that each start kept."""
        kept = [tried for a in self.answers for tried in a.tried if tried.level == a.kept]
        return [cell for tried in kept for cell in tried.cells if cell.counts]


@once
def capacities_of(run: Run) -> tuple[Capacity, ...]:
    """Return what each deployment keeps, by scenario and in the plan's order; nothing of a run."""
    groups = run.groups if run.record.search is not None else ()
    return tuple(
        _capacity(run, own) for own in grouped(groups, lambda g: (g.scenario, g.deployment)).values()
    )


def _capacity(run: Run, groups: Sequence[Group]) -> Capacity:
    """`groups`: the loads of one deployment and scenario, from the lowest on."""
    cells = grouped((cell for group in groups for cell in group.cells), lambda cell: cell.planned.repeat)
    answers = tuple(_answer(run, own) for _, own in sorted(cells.items()))
    known = [answer.kept for answer in answers if answer.kept is not None]
    if cut := sum(not answer.is_whole for answer in answers):
        why = f"the search did not come to its end on {cut} of {len(answers)} starts"
    elif none := len(answers) - len(known):
        why = f"no load that was tried kept the objectives on {none} of {len(answers)} starts"
    else:
        least = min(known)
        return Capacity(next(each for each in groups if each.level == least), answers, least, None)
    return Capacity(groups[0], answers, None, why)


def _answer(run: Run, cells: Sequence[Cell]) -> Answer:
    by_level = sorted(grouped(cells, lambda cell: load_level(cell.load)).items())
    tried = tuple(
        Tried(level, own[0].load_label, tuple(own), judged_cells(run, own)) for level, own in by_level
    )
    kept, broken = ends_of(tried)
    below = math.inf if broken is None else broken
    clear = [(each.level, each.judged.verdict) for each in tried if each.judged]
    record, terms = run.start_of(cells[0]), run.record.search
    return Answer(
        start=record.name if record else cells[0].start.name,
        repeat=cells[0].planned.repeat,
        tried=tried,
        kept=kept,
        broken=broken,
        proven_kept=max((v for v, said in clear if said == "kept" and v < below), default=None),
        proven_broken=min((v for v, said in clear if said == "broken"), default=None),
        is_whole=record is not None and record.status == "completed",
        is_at_limit=broken is None and kept is not None and terms is not None and kept == terms.highest,
    )


def ends_of(tried: Sequence[Tried]) -> tuple[float | None, float | None]:
    """Return the highest load kept below all that are broken, and the lowest broken; None for none.

    The search goes by the same rule (harness/run/search.py), to which tests/harness/run/test_bisection.py
    holds both.
    """
    broken = min((each.level for each in tried if each.keeps is False), default=None)
    below = math.inf if broken is None else broken
    return max((each.level for each in tried if each.keeps and each.level < below), default=None), broken


def slo_metrics(run: Run) -> list[str]:
    """Return the metrics of the objectives, whose marks the shares bear."""
    return ["success_share" if each.metric == SUCCESS else each.metric for each in run.record.slo]
