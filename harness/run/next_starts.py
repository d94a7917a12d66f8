"""Find the starts that come next: what a recorded run lacks, and more as long as `until` asks.

After each whole repeat the standing of the deployments is shown. It has no influence on what comes next.
"""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from serving_bench.harness.cache import portable
from serving_bench.harness.contracts import (
    Fact,
    Plan,
    PlannedCell,
    PlannedStart,
    Precision,
    Race,
    Standing,
    Until,
    because,
    plural,
)
from serving_bench.harness.errors import BenchError
from serving_bench.harness.plan import plan
from serving_bench.harness.run.budget import LATEST, Budget
from serving_bench.harness.run.watch import Observer
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.settings.units import duration_text
from serving_bench.harness.store import store
from serving_bench.harness.store.disturbed import disturbed


class Statistics(Protocol):
    """What a run asks of its values while it goes on, in its directory. cli passes it in."""

    def precisions(self, directory: Path, metric: str, /) -> Sequence[Precision]:
        """Return how precisely the run knows each mean of a metric, the widest interval first."""

    def standings(self, directory: Path, repeats: int, /) -> Sequence[Standing]:
        """Return how each answer stands after this number of whole repeats."""

    def look(self, directory: Path, repeats: int, /) -> Race:
        """Return the run's race after the look that follows this number of whole repeats."""


def missing_starts(directory: Path, record: store.RunRecord, whole: Plan) -> list[PlannedStart]:
    """Return the starts for the cells of a run that do not count yet; of a race, of those that are in it."""
    done, race = {cell.number for cell in store.read_cells(directory) if cell.counts}, whole.race
    going = race.going if race and race.may_go_on else () if race else whole.deployments
    cells = [
        tuple(each for each in start.cells if each.number not in done and start.deployment.label in going)
        for start in whole.starts
    ]
    return [start for start in renumbered(directory, record, whole, cells) if start.cells]


def with_repeats(
    record: store.RunRecord, whole: Plan, settings: Settings, repeats: int, starts: Sequence[PlannedStart]
) -> tuple[store.RunRecord, Plan, list[PlannedStart]]:
    """Return the record and the plan with `repeats` repeats, and the starts that are new in them.

    `starts` are measured before the new ones, which are numbered after them.
    """
    index, longer = max(start.index for start in (*record.plan.starts, *starts)), whole
    while longer.blocks < repeats:
        longer = plan.grown(longer, settings, index + len(longer.starts) - len(whole.starts) + 1)
    more = longer.starts[len(whole.starts) :]
    grown = replace(record.plan, starts=(*record.plan.starts, *more), estimate_s=longer.estimate_s)
    given = {**record.settings, "repeats": [str(repeats)]}
    return replace(record, plan=grown, settings=given), longer, list(more)


def only_asked(
    directory: Path,
    record: store.RunRecord,
    whole: Plan,
    starts: Sequence[PlannedStart],
    due: Collection[str],
) -> list[PlannedStart]:
    """Return a start without cells for each deployment whose quality is due and that `starts` lack.

    These are numbered after all others.
    """
    left = {start.deployment.label for start in starts}
    lost = [each for label, each in whole.deployments.items() if label in due and label not in left]
    first = max([last_index(directory, record), *(start.index for start in starts)]) + 1
    return [PlannedStart(index, each, 0, ()) for index, each in enumerate(lost, first)]


def unlike_cells(recorded: Plan, whole: Plan) -> int:
    """Return how many cells of `whole` are not in `recorded`, by deployment, seed, load and scenario."""
    there = set(_cells(recorded))
    return sum(each not in there for each in _cells(whole))


def _cells(planned: Plan) -> list[bytes]:
    return [
        portable(msgspec.json.encode((start.deployment.label, cell.seed, cell.load, cell.scenario)))
        for start in planned.starts
        for cell in start.cells
    ]


def renumbered(
    directory: Path, record: store.RunRecord, whole: Plan, cells: Sequence[tuple[PlannedCell, ...]]
) -> list[PlannedStart]:
    """Return every start of the plan with the cells that are left. A repeated start has a new number."""
    begun, last = {start.index for start in store.read_starts(directory)}, last_index(directory, record)
    left = []
    for start, of_start in zip(whole.starts, cells, strict=True):
        is_again = bool(of_start) and start.index in begun
        last += is_again
        left.append(replace(start, cells=of_start, index=last if is_again else start.index))
    return left


def last_index(directory: Path, record: store.RunRecord) -> int:
    begun = [start.index for start in store.read_starts(directory)]
    return max([*begun, *(start.index for start in record.plan.starts)], default=0)


def growing(
    run: store.Kept[store.RunRecord],
    starts: Sequence[PlannedStart],
    whole: Plan,
    settings: Settings,
    statistics: Statistics,
    observer: Observer,
) -> Iterator[PlannedStart]:
    """Yield the starts, then the starts of one more block as long as `until` asks for one.

    A block is in run.json before it begins; in the end so is the reason why there is no further one.
    """
    until, directory = settings.until, run.path.parent
    assert until is not None
    before_s, began_s = measured_s(directory), time.monotonic()
    yield from starts
    while True:
        precisions = statistics.precisions(directory, until.metric)
        if stop := why_stop(until, precisions, whole.blocks, before_s + time.monotonic() - began_s):
            observer.line(f"no further repeat: {stop}")
            run.update(stopped_because=stop)
            return
        grown = plan.grown(whole, settings, last_index(directory, run.record) + 1)
        block = grown.starts[len(whole.starts) :]
        whole, recorded = grown, run.record.plan
        observer.grow(block, f"repeat {whole.blocks} follows: {_widest(until, precisions[0])}")
        run.update(plan=replace(recorded, starts=(*recorded.starts, *block), estimate_s=whole.estimate_s))
        yield from block


def measured_s(directory: Path) -> float:
    """Return the seconds that a run has spent measuring: the lifetimes of its servers, in all attempts."""
    lives = [start.phases for start in store.read_starts(directory) if start.phases]
    return sum(phases[-1].t_ns - phases[0].t_ns for phases in lives) / 1e9


def why_stop(until: Until, precisions: Sequence[Precision], blocks: int, spent_s: float) -> Fact | None:
    """Return why no further block is measured, or None for one more.

    `precisions` begins with the widest interval. The next block is expected to take the mean time of the
    `blocks` so far.
    """
    unknown = tuple(f"{each.case} ({each.why})" for each in precisions if each.half_width_share is None)
    share = precisions[0].half_width_share if precisions else None
    if share is None:
        return _left_out(because("until_nothing_to_narrow", metric=until.metric), unknown)
    took = {
        "widest": _widest(until, precisions[0]),
        "percent": 100 * until.half_width_share,
        "repeats": blocks,
        "took": duration_text(spent_s),
    }
    if share <= until.half_width_share:
        return _left_out(because("until_reached", **took), unknown)
    if spent_s + spent_s / blocks > until.budget_s:
        times = {"next": duration_text(spent_s / blocks), "budget": duration_text(until.budget_s)}
        return _left_out(because("until_budget_holds_no_more", **took, **times), unknown)
    return None


def _left_out(why: Fact, cases: tuple[str, ...]) -> Fact:
    return because("until_left_out", why=why, cases=cases) if cases else why


def _widest(until: Until, precision: Precision) -> Fact:
    share = precision.half_width_share or 0.0
    of = {"metric": until.metric, "case": precision.case}
    if math.isinf(share):
        return because("only_one_start", **of)
    if share < 10:
        return because("widest_interval", percent=100 * share, **of)
    return because("widest_interval_times", times=share, **of)


def fitting(
    run: store.Kept[store.RunRecord], starts: Sequence[PlannedStart], budget: Budget, observer: Observer
) -> Iterator[PlannedStart]:
    """Yield the starts, without the last repeats for which the budget has no time.

    Starts that are only for quality come first. The first repeat is always measured. Repeats of which nothing
    was measured are removed from run.json, which then says how many fit.
    """
    yield from (start for start in starts if not start.cells)
    starts = [start for start in starts if start.cells]
    for place, start in enumerate(starts):
        repeat = [each for each in starts[place:] if each.repeat == start.repeat]
        is_begun = place > 0 and starts[place - 1].repeat == start.repeat
        has_time = budget.has_time_for([start], LATEST) if is_begun else budget.has_time_for(repeat)
        if has_time or start.repeat == starts[0].repeat:
            yield start
            continue
        recorded, directory = run.record.plan, run.path.parent
        # A repeat that was partly measured stays in the plan, so that --resume can finish it.
        measured = {cell.repeat for cell in store.read_cells(directory)}
        kept = tuple(each for each in recorded.starts if each.repeat in measured)
        whole, more = whole_repeats(directory, run.record), recorded.blocks
        why = because("budget_holds", whole=whole, repeats=more, budget=budget.text)
        budget.cut(starts[place:])
        run.update(
            plan=replace(recorded, starts=kept),
            stopped_because=why,
        )
        is_busy = disturbed(store.read_cells(directory)).cells
        idle = "wait until the machine is idle (`bench doctor`), then " if is_busy else ""
        command = f"{idle}`{store.resuming(directory, run.record)} repeats={more}`"
        observer.cut(starts[place:], f"{why}; {command} measures the others; a larger run.budget holds more")
        return


def whole_repeats(directory: Path, record: store.RunRecord) -> int:
    """Return how many repeats of the plan have a record of each of their cells, failed ones included."""
    planned = {cell.number: cell.repeat for start in record.plan.starts for cell in start.cells}
    missing = planned.keys() - {cell.number for cell in store.read_cells(directory)}
    return len({*planned.values()} - {planned[number] for number in missing})


def with_standings(
    run: store.Kept[store.RunRecord],
    starts: Iterable[PlannedStart],
    statistics: Statistics,
    observer: Observer,
) -> Iterator[PlannedStart]:
    """Yield the starts. After each repeat that is complete, show and store how the deployments stand.

    The last repeat of a plan is followed by the answer instead, unless `until` may ask for more.
    """
    directory = run.path.parent
    before = whole_repeats(directory, run.record)
    for start in starts:
        yield start
        whole = whole_repeats(directory, run.record)
        if whole != before and (whole != run.record.plan.blocks or run.record.until):
            before = whole
            stand(run, whole, statistics, observer)


def stand(run: store.Kept[store.RunRecord], repeats: int, statistics: Statistics, observer: Observer) -> None:
    """Show and store how the deployments stand after this number of whole repeats."""
    try:
        standings = statistics.standings(run.path.parent, repeats)
    except (BenchError, OSError) as error:
        observer.line(f"how the deployments stand is not known: {error}")
        return
    observer.standing(standings)
    run.update(standings=(*run.record.standings, *standings))


def and_again(
    run: store.Kept[store.RunRecord], starts: Iterable[PlannedStart], budget: Budget, observer: Observer
) -> Iterator[PlannedStart]:
    """Yield the starts, then once more those with disturbed cells."""
    measured = list[PlannedStart]()
    for start in starts:
        measured.append(start)
        yield start
    for label, (times, of) in disturbed(store.read_cells(run.path.parent)).at_one.items():
        often = f"was disturbed in {times} of {plural(of, 'start')}, far more often than others"
        observer.line(f"{label} {often}: that may be its own doing, so these starts count")
    yield from once_more(run, measured, [], budget, observer)


def once_more(
    run: store.Kept[store.RunRecord],
    measured: Sequence[PlannedStart],
    repeated: list[PlannedStart],
    budget: Budget,
    observer: Observer,
) -> Iterator[PlannedStart]:
    """Yield the starts with disturbed cells once more, each with only these cells.

    What may be a deployment's own doing is not repeated. A start is repeated only if it will probably end
    within the budget. After two of those `repeated` that were disturbed again none is, since the disturbance
    lasts.
    """
    directory = run.path.parent
    hit = disturbed(store.read_cells(directory)).cells
    cells = [tuple(cell for cell in start.cells if cell.number in hit) for start in measured]
    left = [
        replace(start, cells=of_start) for start, of_start in zip(measured, cells, strict=True) if of_start
    ]
    for place, start in enumerate(left):
        in_vain = {cell.number for each in repeated[-2:] for cell in each.cells}
        is_vain = len(repeated) >= 2 and in_vain <= disturbed(store.read_cells(directory)).cells
        if is_vain or not budget.has_time_for([start]):
            why = "the machine is still busy" if is_vain else budget.why_none_for(start)
            starts_left = plural(len(left) - place, "start")
            observer.line(f"{starts_left} on a machine that was busy or not fit, not measured again: {why}")
            return
        again = replace(start, index=last_index(directory, run.record) + 1)
        name = f"{start.deployment.label}, repeat {start.repeat + 1}"
        observer.grow([again], f"{name}: the machine was busy or not fit, so it is measured again")
        repeated.append(again)
        yield again
