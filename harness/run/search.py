"""Choose the loads of `bench search`: a start's next load depends on what was measured on it.

From the lowest load it doubles until one breaks the objectives. Then it halves the distance: users at the
arithmetic mean, rates at the geometric one. Each trial is in run.json before it begins.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from serving_bench.harness.contracts import (
    Fact,
    Load,
    Objective,
    Plan,
    PlannedCell,
    PlannedStart,
    SearchTerms,
    bracket,
    plural,
)
from serving_bench.harness.errors import CellError, UserError
from serving_bench.harness.plan import plan as planning
from serving_bench.harness.plan.terms import FEWEST, needed
from serving_bench.harness.run import next_starts
from serving_bench.harness.run.watch import Observer
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store import store

# A server may reserve memory for each request that it serves at once (see plan/terms.py).
MOST_SEQUENCES = 64
# A trial ends once a larger share of its last requests has failed: no objective can be kept then.
MOST_FAILED_SHARE = 0.5
# If even the lowest rate breaks the objectives, lower ones are tried, down to a sixteenth.
_HALVINGS = 4


@dataclass(frozen=True)
class Trial:
    """The result of one load on one start, over all its `windows`. `words` say it for a person.

    `meets`: whether the measured shares meet the objectives, whatever their intervals. It decides while the
    verdict is unclear.
    """

    load: float
    verdict: Literal["kept", "broken", "unclear"]
    meets: bool
    windows: int
    words: str = ""
    problem: Fact | None = None

    @property
    def keeps(self) -> bool:
        return self.verdict == "kept" or (self.verdict == "unclear" and self.meets)


class Trials(Protocol):
    def trial(
        self, directory: Path, load: float, numbers: Sequence[int], slo: Sequence[Objective], /
    ) -> Trial:
        """Judge the cells of these numbers, all at one load of one start."""


def prepared(settings: Settings) -> Settings:
    """Return a search's settings with its own load.max_failed and number of requests served at once.

    Raises UserError for a sweep of loads, and for a trace or a batch.
    """
    if len(settings.loads) > 1:
        raise UserError("bench search looks for one load: give one value of each load.* key, or search again")
    [load] = settings.loads
    if load.kind in ("trace", "batch"):
        raise UserError(
            f"load.arrival={load.arrival}: sets its own load, so there is none to search; use `bench run`"
        )
    may_end = all(objective.share > 1 - MOST_FAILED_SHARE for objective in settings.slo)
    if "load.max_failed" not in settings.given and may_end:
        load = replace(load, max_failed_share=MOST_FAILED_SHARE)
    # What the highest load needs; for users FEWEST, unless search.highest is given.
    slots = FEWEST
    terms = settings.search
    if terms and terms.over == "rate":
        highest = replace(load, concurrency=None, rate_per_s=terms.highest)
        slots = min(max(needed(highest, each).count for each in settings.scenarios), MOST_SEQUENCES)
    elif "search.highest" in settings.given and terms and terms.highest:
        slots = min(int(terms.highest), MOST_SEQUENCES)
    terms_of_servers = tuple(
        point
        if point.value.base_url or point.value.fairness == "stock" or point.value.concurrent_sequences
        else replace(point, value=replace(point.value, concurrent_sequences=slots))
        for point in settings.terms
    )
    return replace(settings, loads=(load,), terms=terms_of_servers)


def without_trials(planned: Plan, settings: Settings) -> Plan:
    """Return the plan with each start as it was before its first trial: one cell for each scenario."""
    first = len(settings.scenarios)
    return replace(planned, starts=tuple(replace(each, cells=each.cells[:first]) for each in planned.starts))


def starts_left(
    directory: Path, record: store.RunRecord, whole: Plan
) -> tuple[store.RunRecord, list[PlannedStart]]:
    """Return the record and the starts that were not finished, which are to be repeated.

    The cells of their first attempt leave the plan. `whole`: the plan without trials.
    """
    status = {start.name: start.status for start in store.read_starts(directory)}
    numbers = itertools.count(_last_number(record.plan) + 1)
    cells: list[tuple[PlannedCell, ...]] = []
    for start in whole.starts:
        if status.get(start.name) == "completed":
            cells.append(())
        elif start.name in status:
            cells.append(tuple(replace(cell, number=next(numbers)) for cell in start.cells))
        else:
            cells.append(start.cells)
    left = next_starts.renumbered(directory, record, whole, cells)
    kept = tuple(new if new.cells else was for new, was in zip(left, record.plan.starts, strict=True))
    return replace(record, plan=replace(record.plan, starts=kept)), [start for start in left if start.cells]


def _last_number(planned: Plan) -> int:
    return max((cell.number for start in planned.starts for cell in start.cells), default=0)


@dataclass
class Search:
    """Plans the trials of a search, start by start. run_starts calls `next_cell`."""

    run: store.Kept[store.RunRecord]
    terms: SearchTerms
    seed: int
    statistics: Trials
    observer: Observer
    # By load: the trials of the current scenario on the current start.
    trials: dict[float, Trial] = field(default_factory=dict)

    def next_cell(self, start: PlannedStart, done: Sequence[store.CellRecord]) -> PlannedCell | None:
        """Return the start's next trial, or None. The first trial of each scenario is planned already.

        Raises CellError if all windows of a load, search.trials at most, say nothing about the objectives.
        """
        if done:
            mine = [record for record in done if record.scenario.label == done[-1].scenario.label]
            load = self._next_load(mine)
            if load is not None:
                return self._planned(start, load, mine)
        self.trials = {}
        begun = {record.scenario.label for record in done}
        return next((cell for cell in start.cells if cell.scenario.label not in begun), None)

    def _next_load(self, done: Sequence[store.CellRecord]) -> float | None:
        load = _level(done[-1].load)
        windows = [record.number for record in done if _level(record.load) == load]
        words = f"{load:g}/s" if self.terms.over == "rate" else plural(int(load), "user")
        trial = self.statistics.trial(self.run.path.parent, load, windows, self.run.record.slo)
        if trial.problem is not None:
            if len(windows) < self.terms.trials:
                return load
            raise CellError(f"the search ends at {words}: {trial.problem}")
        self.trials[load] = trial
        outcome: str = trial.verdict
        if outcome == "unclear":
            stands = "kept" if trial.meets else "broken"
            outcome = f"not clear after {plural(trial.windows, 'window')} ({stands} as it stands)"
        self.observer.line(f"  {words}: {outcome}; {trial.words}")
        trials = list(self.trials.values())
        following = next_load(self.terms, trials)
        kept, broken = (
            "none" if end is None else f"{end:g}"
            for end in bracket({each.load: each.keeps for each in trials})
        )
        after = "the search ends here" if following is None else f"next {following:g}"
        self.observer.line(f"    highest kept {kept}, lowest broken {broken}; {after}")
        return following

    def _planned(self, start: PlannedStart, load: float, done: Sequence[store.CellRecord]) -> PlannedCell:
        """Add a cell at this load to the plan, and return it.

        All starts of a repeat have the same seed; a further trial of a load has another.
        """
        plan, scenario = self.run.record.plan, done[0].scenario
        size = {"rate_per_s": load} if self.terms.over == "rate" else {"concurrency": int(load)}
        loaded = replace(done[0].load, **size)
        place = sum(_level(record.load) == load for record in done)
        seed = planning.cell_seed(self.seed, scenario, loaded, start.repeat, place)
        cell = PlannedCell(_last_number(plan) + 1, scenario, loaded, start.repeat, seed)
        grown = tuple(
            replace(each, cells=(*each.cells, cell)) if each.name == start.name else each
            for each in plan.starts
        )
        self.run.update(plan=replace(plan, starts=grown))
        return cell


def _level(load: Load) -> float:
    return float(load.rate_per_s if load.rate_per_s is not None else load.concurrency or 0)


def next_load(terms: SearchTerms, trials: Sequence[Trial]) -> float | None:
    """Return the load to try next, or None at the search's end. A repeated load gets fresh prompts.

    An unclear load is tried again, for up to `terms.trials` windows, only when it is an end of the closed
    bracket: before that, another load may make it needless.
    """
    kept, broken = bracket({each.load: each.keeps for each in trials})
    load = _narrower(terms, kept, broken)
    if load is not None:
        return load
    ends = [trial for trial in trials if trial.load in (kept, broken)]
    left = [trial.load for trial in ends if trial.verdict == "unclear" and trial.windows < terms.trials]
    return min(left, default=None)


def _narrower(terms: SearchTerms, kept: float | None, broken: float | None) -> float | None:
    """Return a load outside the bracket if a side is open, else one within it; None if it is narrow."""
    lowest, highest = terms.lowest or 1.0, terms.highest or math.inf
    if broken is None:
        if kept is None:
            return lowest
        return min(2 * kept, highest) if kept < highest else None
    if kept is None:
        if terms.over == "concurrency":
            return 1.0 if broken > 1 else None
        return broken / 2 if broken > lowest / 2**_HALVINGS else None
    if terms.over == "concurrency":
        return None if broken - kept <= max(1.0, terms.precision_share * kept) else (kept + broken) // 2
    middle = float(f"{math.sqrt(kept * broken):.4g}")
    return middle if broken > kept * (1 + terms.precision_share) and kept < middle < broken else None
