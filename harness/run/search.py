"""One `bench search`: starts whose next load depends on what was measured on them.

Each trial is in run.json before it begins. Knows no terminal and no statistic: the command hands in who
judges a load's windows.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.contracts import Load, Plan, PlannedCell, PlannedStart, SearchTerms
from harness.errors import CellError, UserError
from harness.plan import plan as planning
from harness.plan.terms import FEWEST, needed
from harness.run import resume
from harness.run.bisection import Trial, Verdict, bracket, next_load
from harness.run.site import Observer
from harness.settings.config import Settings
from harness.settings.units import counted
from harness.store import store
from harness.store.store import CellRecord, Kept, RunRecord

# A server may reserve memory for each that it serves at once (see plan/terms.py).
MOST_SEQUENCES = 64
# A trial ends once more of its last requests have failed: where every objective asks for a larger share than
# the rest, none of them can be kept. What is measured to its end otherwise is the queue of a broken server.
MOST_FAILED_SHARE = 0.5


@dataclass(frozen=True)
class Judged:
    """What all windows of one load come to, also in words. `problem` says why nothing can be said."""

    verdict: Verdict
    meets: bool
    words: str
    problem: str | None = None


# Judges the cells of these numbers, all at one load of one start.
Judge = Callable[[Path, Sequence[int]], Judged]


# --- before it begins ------------------------------------------------------------------------------


def prepared(settings: Settings, terms: SearchTerms) -> Settings:
    """Return the settings with what a search takes otherwise than a run, unless the user gave it.

    That is how many requests servers serve at once, and load.max_failed. Raises UserError for loads that are
    a sweep.
    """
    if len(settings.loads) > 1:
        raise UserError("bench search looks for one load: give one value of each load.* key, or search again")
    [load] = settings.loads
    if load.kind == "trace":
        raise UserError(
            "scenario=trace: comes as it was recorded, so there is no load to search; use `bench run`"
        )
    may_end = all(objective.share > 1 - MOST_FAILED_SHARE for objective in settings.slo)
    if "load.max_failed" not in settings.given and may_end:
        load = replace(load, max_failed_share=MOST_FAILED_SHARE)
    # What the highest load needs; of users the fewest, unless the user says how many are searched for.
    slots = FEWEST
    if terms.over == "rate":
        highest = replace(load, concurrency=None, rate_per_s=terms.highest)
        slots = min(max(needed(highest, each).count for each in settings.scenarios), MOST_SEQUENCES)
    elif "search.highest" in settings.given and terms.highest:
        slots = min(int(terms.highest), MOST_SEQUENCES)
    terms_of_servers = tuple(
        point
        if point.value.base_url or point.value.fairness == "stock" or point.value.concurrent_sequences
        else replace(point, value=replace(point.value, concurrent_sequences=slots))
        for point in settings.terms
    )
    return replace(settings, loads=(load,), terms=terms_of_servers)


def starts_left(directory: Path, record: RunRecord, whole: Plan) -> tuple[RunRecord, list[PlannedStart]]:
    """Return the starts that did not come to their end, to be begun again, and the record with them.

    The cells of their first attempt stay on disk and leave the plan. Raises StoreError if today's bench would
    begin a start otherwise, and on another machine (resume.check_same).
    """
    # Each start as it was before its first trial: without the cells that the search has added.
    first = max((len(start.cells) for start in whole.starts), default=0)
    starts = tuple(replace(start, cells=start.cells[:first]) for start in record.plan.starts)
    resume.check_same(directory, record, replace(record.plan, starts=starts), whole)
    status = {start.name: start.status for start in store.read_starts(directory)}
    numbers = itertools.count(_last_number(record.plan) + 1)
    cells = []
    for start, was in zip(whole.starts, starts, strict=True):
        planned = () if status.get(was.name) == "completed" else zip(start.cells, was.cells, strict=True)
        cells.append(
            tuple(
                replace(cell, number=next(numbers) if was.name in status else old.number)
                for cell, old in planned
            )
        )
    left = resume.renumbered(directory, record, whole, cells)
    kept = tuple(new if new.cells else was for new, was in zip(left, record.plan.starts, strict=True))
    return replace(record, plan=replace(record.plan, starts=kept)), [start for start in left if start.cells]


def _last_number(planned: Plan) -> int:
    return max((cell.number for start in planned.starts for cell in start.cells), default=0)


# --- trials ----------------------------------------------------------------------------------------


class Search:
    """Plans the trials of a search, start by start: `next_cell` is what run_starts asks."""

    def __init__(self, run: Kept[RunRecord], seed: int, judge: Judge, observer: Observer) -> None:
        assert run.record.search is not None
        self._run = run
        self._terms = run.record.search
        self._seed = seed
        self._judge = judge
        self._observer = observer
        # By load, of the scenario that is searched now on one start.
        self._trials: dict[float, Trial] = {}

    def next_cell(self, start: PlannedStart, done: Sequence[CellRecord]) -> PlannedCell | None:
        """Return the start's next trial. Its first cells are planned already, one of each scenario.

        Raises CellError if the windows of a load say nothing of the objectives, however often it was tried.
        """
        if done:
            mine = [record for record in done if record.scenario.label == done[-1].scenario.label]
            load = self._next_load(mine)
            if load is not None:
                return self._planned(start, load, mine)
        self._trials = {}
        begun = {record.scenario.label for record in done}
        return next((cell for cell in start.cells if cell.scenario.label not in begun), None)

    def _next_load(self, done: Sequence[CellRecord]) -> float | None:
        """Judge the load of the newest window, and return the load to try next."""
        load = _level(done[-1].load)
        windows = [record.number for record in done if _level(record.load) == load]
        words = f"{load:g}/s" if self._terms.over == "rate" else counted(int(load), "user")
        found = self._judge(self._run.path.parent, windows)
        if found.problem is not None:
            if len(windows) < self._terms.trials:
                return load
            raise CellError(f"the search ends at {words}: {found.problem}")
        trial = self._trials[load] = Trial(load, found.verdict, found.meets, len(windows))
        said: str = trial.verdict
        if said == "unclear":
            as_it_stands = f"({'kept' if trial.meets else 'broken'} as it stands)"
            said = f"not clear after {counted(trial.windows, 'window')} {as_it_stands}"
        self._observer.line(f"  {words}: {said}; {found.words}")
        trials = list(self._trials.values())
        following = next_load(self._terms, trials)
        kept, broken = ("none" if end is None else f"{end:g}" for end in bracket(trials))
        after = "the search ends here" if following is None else f"next {following:g}"
        self._observer.line(f"    highest kept {kept}, lowest broken {broken}; {after}")
        return following

    def _planned(self, start: PlannedStart, load: float, done: Sequence[CellRecord]) -> PlannedCell:
        """Return a cell at this load, and write it in run.json.

        Its seed is that of the same trial on every other start of the repeat, and another for each further
        trial of a load.
        """
        plan, scenario = self._run.record.plan, done[0].scenario
        size = {"rate_per_s": load} if self._terms.over == "rate" else {"concurrency": int(load)}
        loaded = replace(done[0].load, **size)
        place = sum(_level(record.load) == load for record in done)
        seed = planning.cell_seed(self._seed, scenario, loaded, start.repeat, place)
        cell = PlannedCell(_last_number(plan) + 1, scenario, loaded, start.repeat, seed)
        grown = tuple(
            replace(each, cells=(*each.cells, cell)) if each.name == start.name else each
            for each in plan.starts
        )
        self._run.update(plan=replace(plan, starts=grown))
        return cell


def _level(load: Load) -> float:
    """Return what is searched: users, or conversations begun per second."""
    return float(load.rate_per_s if load.rate_per_s is not None else load.concurrency or 0)
