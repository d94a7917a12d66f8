"""One `bench search`: starts whose next load depends on what was measured on them, each in the record as it
is planned.

Knows no terminal and no statistic: the command hands in who shows progress and who judges a load's windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from harness.cli.progress.progress import Show
from harness.cli.show.plan_text import counted, duration_text
from harness.contracts import Load, Plan, PlannedCell, PlannedStart, SearchTerms
from harness.errors import CellError, UserError
from harness.install.provision import Provisions
from harness.plan import plan as planning
from harness.plan.candidates import OPEN_LOOP_SEQUENCES
from harness.run import session
from harness.run.bisection import Trial, bracket, next_load
from harness.run.cell import Site
from harness.run.run import run_starts
from harness.settings.config import Settings
from harness.settings.decoding import Varied
from harness.store import store
from harness.store.store import CellRecord, RunRecord

# A server may reserve memory for each that it serves at once (see candidates.OPEN_LOOP_SEQUENCES).
MOST_SEQUENCES = 64
# A trial ends once more of its last requests have failed: where every objective asks for a larger share than
# the rest, none of them can be kept. What is measured to its end otherwise is the queue of a broken server.
MOST_FAILED_SHARE = 0.5


class Judged(Protocol):
    """What all windows of one load come to; `words` says it. `problem`: why nothing can be said."""

    @property
    def verdict(self) -> Literal["kept", "broken", "unclear"]: ...
    @property
    def meets(self) -> bool: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def words(self) -> str: ...


# Judges the cells of these numbers, all at one load of one start.
Judge = Callable[[Path, Sequence[int]], Judged]


def prepared(settings: Settings, terms: SearchTerms) -> Settings:
    """The settings with what a search takes otherwise than a run, where the user gave nothing else: how many
    requests servers serve at once, and load.max_failed. Raises UserError for loads that are a sweep."""
    if len(settings.loads) > 1:
        raise UserError("bench search looks for one load: give one value of each load.* key, or search again")
    if settings.loads[0].kind == "trace":
        raise UserError(
            "scenario=trace: comes as it was recorded, so there is no load to search; use `bench run`"
        )
    load = settings.loads[0]
    may_end = all(objective.share > 1 - MOST_FAILED_SHARE for objective in settings.slo)
    if "load.max_failed" not in settings.given and may_end:
        load = replace(load, max_failed_share=MOST_FAILED_SHARE)
    slots = sequences(settings, terms)
    return replace(
        settings, loads=(load,), terms=tuple(_with_sequences(point, slots) for point in settings.terms)
    )


def sequences(settings: Settings, terms: SearchTerms) -> int:
    """Requests that servers are told to serve at once, unless engine.concurrent_sequences says it: as many as
    search.highest users, where that was given, up to MOST_SEQUENCES; else as in an open loop."""
    if terms.over == "concurrency" and "search.highest" in settings.given and terms.highest:
        return min(int(terms.highest), MOST_SEQUENCES)
    return OPEN_LOOP_SEQUENCES


def _with_sequences(point: Varied, slots: int) -> Varied:
    terms = point.value
    if terms.base_url or terms.fairness == "stock" or terms.concurrent_sequences:
        return point
    return replace(point, value=replace(terms, concurrent_sequences=slots))


def lines(terms: SearchTerms, planned: Plan) -> list[str]:
    """What a search is about to do, in words."""
    unit = "users" if terms.over == "concurrency" else "conversations per second"
    found = [
        f"searching from {terms.lowest:g} to {terms.highest:g} {unit} on each of "
        f"{counted(len(planned.starts), 'start')}; with one trial on each about "
        f"{duration_text(planned.estimate_s)}, and how many there will be depends on what is found"
    ]
    own = {start.deployment.terms.concurrent_sequences for start in planned.starts}
    if told := sorted(count for count in own if count):
        counts = ", ".join(map(str, told))
        found.append(
            f"servers are told to serve {counts} requests at once, more of them wait "
            "(engine.concurrent_sequences=N)"
        )
    return found


def starts_left(directory: Path, record: RunRecord, whole: Plan) -> tuple[RunRecord, list[PlannedStart]]:
    """The starts of a search that did not come to their end, to be begun anew, and the record with them.

    Raises StoreError where today's bench would begin a start otherwise than the one that began the search, by
    its deployments and their terms, scenarios, first loads or seeds, and on another machine.
    """
    session.check_machine(directory, record)
    session.check_plan(directory, _as_planned(record.plan, whole), whole)
    ended = {start.name for start in store.read_starts(directory) if start.status == "completed"}
    numbers = itertools.count(_last_number(record.plan) + 1)
    index = session.last_index(directory, record)
    kept: list[PlannedStart] = []
    left: list[PlannedStart] = []
    for start, anew in zip(record.plan.starts, whole.starts, strict=True):
        if start.name in ended:
            kept.append(start)
            continue
        # Of today's plan: what is read back from a file has mappings where options were.
        if (directory / "starts" / start.name).exists():
            index += 1
            cells = tuple(replace(cell, number=next(numbers)) for cell in anew.cells)
            begun = replace(anew, index=index, cells=cells)
        else:
            cells = tuple(
                replace(cell, number=planned.number)
                for cell, planned in zip(anew.cells, start.cells, strict=True)
            )
            begun = replace(anew, index=start.index, cells=cells)
        kept.append(begun)
        left.append(begun)
    return replace(record, plan=replace(record.plan, starts=tuple(kept))), left


def _as_planned(recorded: Plan, whole: Plan) -> Plan:
    """Without the cells that the search has added: each start as it was before its first trial."""
    first = max((len(start.cells) for start in whole.starts), default=0)
    return replace(
        recorded, starts=tuple(replace(start, cells=start.cells[:first]) for start in recorded.starts)
    )


def _last_number(planned: Plan) -> int:
    return max((cell.number for start in planned.starts for cell in start.cells), default=0)


def measure(
    directory: Path,
    record: RunRecord,
    starts: Sequence[PlannedStart],
    provisions: Provisions,
    site: Site,
    show: Show,
    *,
    seed: int,
    judge: Judge,
) -> list[CellRecord]:
    """Search on each start in turn and write the run's end. Raises Interrupted when all is stored."""
    session.check_versions(directory, record, provisions)
    record = session.going_on(record, provisions)
    searched = _Searched(directory, record, seed, judge, show)
    show.begin_search(len(starts))
    try:
        records = run_starts(starts, provisions, replace(site, run_dir=directory), show, searched.next_cell)
    except BaseException:  # whatever it is, run.json must not say for ever that the run goes on
        store.end_run(directory, searched.record, "interrupted", session.now())
        raise
    finally:
        session.learn(directory, [start.name for start in starts], site.cache_dir)
    store.end_run(directory, searched.record, "completed", session.now())
    return records


class _Searched:
    """The record of a search, whose plan grows with every trial."""

    def __init__(self, directory: Path, record: RunRecord, seed: int, judge: Judge, show: Show) -> None:
        assert record.search is not None
        self.record = record
        self._terms = record.search
        self._directory = directory
        self._seed = seed
        self._judge = judge
        self._show = show
        # By cell numbers: the windows of a load are judged anew only when there is a further one.
        self._known: dict[tuple[int, ...], Trial] = {}
        store.write_record(directory / "run.json", record)

    def next_cell(self, start: PlannedStart, done: Sequence[CellRecord]) -> PlannedCell | None:
        """The start's next trial: its first cells are planned, one of each scenario. Raises CellError where a
        load's windows say nothing of the objectives, however often they are repeated."""
        for first in start.cells:
            mine = [record for record in done if record.scenario.label == first.scenario.label]
            if not mine:
                return first
            if (load := self._next_load(mine)) is not None:
                return self._planned(start, first, load, mine)
        return None

    def _next_load(self, done: Sequence[CellRecord]) -> float | None:
        by_load: dict[float, list[int]] = {}
        for record in done:
            by_load.setdefault(level(record.load), []).append(record.number)
        trials = []
        for load, numbers in by_load.items():
            trial = self._trial(load, tuple(numbers))
            if trial is None:
                return load
            trials.append(trial)
        following = next_load(self._terms, trials)
        kept, broken = bracket(trials)
        after = "the search ends here" if following is None else f"next {following:g}"
        self._show.line(f"    highest kept {_end(kept)}, lowest broken {_end(broken)}; {after}")
        return following

    def _trial(self, load: float, numbers: tuple[int, ...]) -> Trial | None:
        """What a load came to, None where it is to be tried again for want of anything that counts."""
        if numbers in self._known:
            return self._known[numbers]
        found = self._judge(self._directory, numbers)
        if found.problem is not None:
            if len(numbers) < self._terms.trials:
                return None
            raise CellError(f"the search ends at {self._words(load)}: {found.problem}")
        trial = Trial(load, found.verdict, found.meets, len(numbers))
        self._known[numbers] = trial
        self._show.line(f"  {self._words(load)}: {_said(trial)}; {found.words}")
        return trial

    def _words(self, load: float) -> str:
        if self._terms.over == "rate":
            return f"{load:g}/s"
        return f"{load:g} user{'' if load == 1 else 's'}"

    def _planned(
        self, start: PlannedStart, first: PlannedCell, load: float, done: Sequence[CellRecord]
    ) -> PlannedCell:
        """A cell at this load, in the record. Its seed is that of the same trial on every other start of the
        repeat, and another for each further trial of a load."""
        loaded = at_level(first.load, load)
        place = sum(level(record.load) == load for record in done)
        seed = planning.cell_seed(self._seed, first.scenario, loaded, start.repeat, place)
        cell = PlannedCell(_last_number(self.record.plan) + 1, first.scenario, loaded, start.repeat, seed)
        grown = tuple(
            replace(each, cells=(*each.cells, cell)) if each.name == start.name else each
            for each in self.record.plan.starts
        )
        self.record = replace(self.record, plan=replace(self.record.plan, starts=grown))
        store.write_record(self._directory / "run.json", self.record)
        return cell


def _said(trial: Trial) -> str:
    if trial.verdict != "unclear":
        return trial.verdict
    windows = f"{trial.windows} window" + ("" if trial.windows == 1 else "s")
    return f"not clear after {windows} ({'kept' if trial.meets else 'broken'} as it stands)"


def _end(load: float | None) -> str:
    return "none" if load is None else f"{load:g}"


def level(load: Load) -> float:
    """What is searched: users, or conversations begun per second."""
    return float(load.rate_per_s if load.rate_per_s is not None else load.concurrency or 0)


def at_level(load: Load, value: float) -> Load:
    """The load with that many users, or that rate."""
    if load.rate_per_s is not None:
        return replace(load, rate_per_s=value)
    return replace(load, concurrency=int(value))
