"""What a search found, and which deployments keep the SLO at each load of a run or a search.

Computed from the requests on reading. What one start kept follows the search's own rule; what is known
follows an interval over starts. Loads are steps of a grid without variance, so they are never tested.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from serving_bench.harness.contracts import SUCCESS, Fact, because, bracket
from serving_bench.reports.data import (
    NOT_RESTARTED,
    Cell,
    Group,
    Run,
    first_that_holds,
    grouped,
    load_level,
    once,
)
from serving_bench.reports.measures.slo import Judged, judged_cells
from serving_bench.reports.stats.intervals import CONFIDENCE, STARTS_NEEDED


@dataclass(frozen=True)
class Tried:
    """One load that a search tried on one start: its windows in order and their judgement; None if there is
    none."""

    level: float
    load: str
    cells: tuple[Cell, ...]
    judged: Judged | None

    @property
    def keeps(self) -> bool | None:
        """Whether it counts as kept, clearly or not; None if nothing is known."""
        if self.judged is None:
            return None
        return self.judged.verdict == "kept" or (self.judged.verdict == "unclear" and self.judged.meets)


@dataclass(frozen=True)
class Answer:
    """The answer of one start of a search."""

    start: str
    tried: tuple[Tried, ...]
    kept: float | None  # the highest load that kept every objective below `broken`; None if none did
    broken: float | None  # the lowest load that did not; None if all did
    is_whole: bool  # the search was finished on this start
    is_at_limit: bool  # it kept the highest load that was allowed

    @property
    def words(self) -> str:
        """`12 users`, `12/s`, `64 users (the highest tried)`, `none`, `not known`."""
        if not self.is_whole:
            return "not known"
        load = next((each.load for each in self.tried if each.level == self.kept), "none")
        return f"{load} (the highest tried)" if self.is_at_limit else load


@dataclass(frozen=True)
class Capacity:
    """The highest load that a deployment is known to keep."""

    group: Group  # its cells at `level`, otherwise at `measured`, otherwise at the lowest load
    answers: tuple[Answer, ...]
    level: float | None  # the highest load that it is known to keep
    measured: float | None  # the highest load that every start kept as measured
    broken: float | None  # the lowest load that it is known to break
    why: Fact | None  # why `level` is not known

    @property
    def deployment(self) -> str:
        return self.group.deployment

    @property
    def scenario(self) -> str:
        return self.group.scenario

    @property
    def is_at_limit(self) -> bool:
        """Whether every start kept the highest load that was allowed."""
        return all(answer.is_at_limit for answer in self.answers)

    @property
    def is_least(self) -> bool:
        """Whether it is known to keep the highest load that was allowed."""
        return self.level is not None and self.is_at_limit

    @property
    def load(self) -> str:
        """`12 users`, or `64 users or more` if every start kept the highest load that was allowed."""
        return f"{self.group.load} or more" if self.is_at_limit else self.group.load

    @property
    def words(self) -> str:
        """`12 users`, `64 users (the highest tried)`, `not known (12 users as measured)`, `not known`."""
        if self.level is not None:
            return f"{self.group.load} (the highest tried)" if self.is_least else self.group.load
        return "not known" if self.measured is None else f"not known ({self.load} as measured)"

    @property
    def brackets(self) -> str:
        """`12 – 16; 12 – 18`: for each start the highest load that it kept and the lowest that it did not, or
        its words; only once if all are the same."""
        clauses = [
            f"{'none' if answer.kept is None else f'{answer.kept:g}'} – {answer.broken:g}"
            if answer.is_whole and answer.broken is not None
            else answer.words
            for answer in self.answers
        ]
        return "; ".join(clauses) if len(set(clauses)) > 1 else clauses[0]

    @property
    def cells_at_highest(self) -> list[Cell]:
        """The counted cells at the highest load that each start kept."""
        kept = (tried for a in self.answers for tried in a.tried if tried.level == a.kept)
        return [cell for tried in kept for cell in tried.cells if cell.counts]


@once
def capacities_of(run: Run) -> tuple[Capacity, ...]:
    """Return what each deployment keeps, by scenario in the plan's order; empty if the run is no search."""
    groups = run.groups if run.record.search is not None else ()
    return tuple(
        _capacity(run, groups_of_one)
        for groups_of_one in grouped(groups, lambda g: (g.scenario, g.deployment)).values()
    )


def _capacity(run: Run, groups: Sequence[Group]) -> Capacity:
    """Return what a deployment keeps. `groups`: its loads in one scenario, ascending."""
    cells = grouped((cell for group in groups for cell in group.cells), lambda cell: cell.planned.repeat)
    answers = tuple(_answer(run, groups_at) for _, groups_at in sorted(cells.items()))
    ends = [answer.kept for answer in answers if answer.kept is not None]
    cut, none = sum(not answer.is_whole for answer in answers), len(answers) - len(ends)
    measured = None if cut or none else min(ends)
    confidence = 1 - (1 - CONFIDENCE) / len(groups)  # the loads are a family
    by_level = {each.level: each for each in groups}
    below = [level for level in by_level if measured is not None and level <= measured]
    kept = [level for level in below if _is_known(run, answers, level, "kept", confidence)]
    broken = [level for level in by_level if _is_known(run, answers, level, "broken", confidence)]
    at, starts = by_level[max(kept or below or [groups[0].level])], len(answers)
    why = first_that_holds(
        {
            because("search_unfinished", cut=cut, starts=starts): cut,
            because("nothing_kept", none=none, starts=starts): none,
            NOT_RESTARTED: not run.is_restarted(at.deployment),
            because("interval_needs_starts", needed=STARTS_NEEDED): not kept and starts < STARTS_NEEDED,
            because("interval_below_share"): not kept,
        }
    )
    return Capacity(at, answers, max(kept, default=None), measured, min(broken, default=None), why)


def _is_known(
    run: Run, answers: Sequence[Answer], level: float, state: Literal["kept", "broken"], confidence: float
) -> bool:
    """Return whether an interval over starts says that a load is kept or broken.

    More load never helps. So if a start did not try the load, the next higher one can show that it is kept,
    and the next lower one that it is broken.
    """
    sign = 1 if state == "kept" else -1
    beyond = ([e for e in answer.tried if e.judged and sign * (e.level - level) >= 0] for answer in answers)
    used = [min(judgements, key=lambda each: sign * each.level) for judgements in beyond if judgements]
    if len(used) < STARTS_NEEDED or not run.is_restarted(used[0].cells[0].label):
        return False
    judged = judged_cells(run, [cell for each in used for cell in each.cells], confidence)
    return judged is not None and judged.verdict == state


def _answer(run: Run, cells: Sequence[Cell]) -> Answer:
    tried = tuple(
        Tried(level, cells_at[0].load_label, tuple(cells_at), judged_cells(run, cells_at))
        for level, cells_at in sorted(grouped(cells, lambda cell: load_level(cell.load)).items())
    )
    kept, broken = bracket({each.level: each.keeps for each in tried})
    record, terms = run.start_of(cells[0]), run.record.search
    return Answer(
        start=record.name if record else cells[0].start.name,
        tried=tried,
        kept=kept,
        broken=broken,
        is_whole=record is not None and record.status == "completed",
        is_at_limit=broken is None and kept is not None and terms is not None and kept == terms.highest,
    )


def slo_metrics(run: Run) -> list[str]:
    """Return the metrics of the objectives. Their marks also stand at the shares that met them."""
    return ["success_share" if each.metric == SUCCESS else each.metric for each in run.record.slo]


# --- who keeps the SLO at a load -------------------------------------------------------------------

State = Literal["kept", "unclear", "broken", "unknown"]


@dataclass(frozen=True)
class Standing:
    """Whether a deployment keeps the SLO at a load.

    `group`: its cells there, if it was measured there. `judged`: the judgement over all its starts; None if
    there is none, and in a search.
    """

    label: str
    state: State
    group: Group | None = None
    judged: Judged | None = None


@dataclass(frozen=True)
class SloRow:
    """A load of a scenario and model, and which deployments keep the SLO there. `family`: see load_family."""

    scenario: str
    model: str
    family: str
    load: str
    standings: tuple[Standing, ...]

    def labels(self, *states: State) -> list[str]:
        return [each.label for each in self.standings if each.state in states]


@once
def slo_rows(run: Run) -> tuple[SloRow, ...]:
    """Return a row for each load of each scenario and model, ascending; none without an SLO.

    In a search the loads are those that a deployment is known to keep at most, otherwise the lowest tried.
    """
    rows = _of_loads(run) if run.record.search is None else _of_search(run)
    return tuple(rows) if run.record.slo else ()


def _of_loads(run: Run) -> Iterator[SloRow]:
    by_case = grouped(run.groups, lambda g: (g.scenario, g.model, g.family, g.level, g.load))
    loads = Counter(key[:3] for key in by_case)
    for key, groups in sorted(by_case.items(), key=lambda item: item[0]):
        # The loads of a scenario are a family, since the data choose the highest that is kept.
        confidence = 1 - (1 - CONFIDENCE) / loads[key[:3]]
        judgements = [(group, judged_cells(run, group.cells, confidence)) for group in groups]
        standings = [Standing(g.deployment, j.verdict if j else "unknown", g, j) for g, j in judgements]
        yield SloRow(*key[:3], key[4], tuple(standings))


def _of_search(run: Run) -> Iterator[SloRow]:
    groups = {group.key: group for group in run.groups}
    cases = grouped(capacities_of(run), lambda each: (each.scenario, each.group.model, each.group.family))
    for case, loads_of_case in cases.items():
        load_at = {each.level: each.group.load for each in loads_of_case if each.level is not None}
        for level, load in sorted(
            (load_at or {loads_of_case[0].group.level: loads_of_case[0].group.load}).items()
        ):
            standings = [
                Standing(e.deployment, _state(e, level), groups.get((e.deployment, e.scenario, load)))
                for e in loads_of_case
            ]
            yield SloRow(*case, load, tuple(standings))


def _state(each: Capacity, level: float) -> State:
    states: dict[State, bool] = {
        "unknown": not all(answer.is_whole for answer in each.answers),
        "kept": each.level is not None and each.level >= level,
        "broken": each.broken is not None and each.broken <= level,
    }
    return first_that_holds(states) or "unclear"
