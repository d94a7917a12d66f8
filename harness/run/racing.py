"""Find the next starts of a race: a repeat at a time, of those that can still be in an answer.

After each repeat a look decides who leaves. `reports/` looks; it is passed in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from serving_bench.harness.contracts import Plan, PlannedStart, Race, because, plural
from serving_bench.harness.errors import BenchError
from serving_bench.harness.plan import plan
from serving_bench.harness.run.budget import LATEST, Budget
from serving_bench.harness.run.next_starts import Statistics, last_index, once_more
from serving_bench.harness.run.watch import Observer
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store import store


def raced_on(whole: Plan, race: Race, most: int | None) -> Race:
    """Return the race of a plan that goes on, with more repeats if that is asked for.

    What failed twice may have been mended, so it is in again; nobody was left out for its speed then.
    """
    back = [each for each in race.left if each.why.kind == "failed_twice"]
    left = tuple(each for each in race.left if each not in back)
    opened, out = {each.answer for each in back}, {(each.label, each.answer) for each in left}
    going = tuple(
        label
        for label, each in whole.deployments.items()
        if label in race.going or any((label, a) not in out and a[1] == each.model for a in opened)
    )
    ended = tuple(each for each in race.ended if each[0] not in opened)
    race = race.raised(most) if most else race
    return replace(race, going=going, left=left, ended=ended)


def racing(
    run: store.Kept[store.RunRecord],
    starts: Sequence[PlannedStart],
    whole: Plan,
    settings: Settings,
    budget: Budget,
    statistics: Statistics,
    observer: Observer,
) -> Iterator[PlannedStart]:
    """Yield the starts of a race: a repeat at a time, of those that can still be in an answer.

    What was disturbed from outside is measured once more at the end of its repeat; then it is looked who
    leaves. Neither a part of a repeat nor what is measured later is looked at. The budget looks at time only.
    """
    directory, repeated, due = run.path.parent, list[PlannedStart](), [each for each in starts if each.cells]
    yield from (start for start in starts if not start.cells)
    first = race_of(run).looked + 1
    while (race := race_of(run)).may_go_on:
        number, has_grown = race.looked + 1, race.looked >= whole.blocks
        if has_grown:
            before = len(whole.starts)
            whole = plan.grown(replace(whole, race=race), settings, last_index(directory, run.record) + 1)
            due += whole.starts[before:]
        block = [start for start in due if start.repeat < number]
        due = [start for start in due if start.repeat >= number]
        last = [each for each in whole.starts if each.repeat == whole.blocks - 1]
        budget.may_follow(
            [each for each in last if each.deployment.label in race.going], race.most - whole.blocks
        )
        if number > first and not budget.has_time_for(block):
            _budget_ends(run, race, budget, [] if has_grown else [*block, *due], observer)
            return
        if has_grown:
            observer.grow(block, f"repeat {number} follows, of at most {race.most}")
            _plan_on(run, (*run.record.plan.starts, *block), race)
        for place, start in enumerate(block):
            if place and number > first and not budget.has_time_for([start], LATEST):
                _budget_ends(run, race, budget, [*block[place:], *due], observer)
                return
            yield start
        yield from once_more(run, block, repeated, budget, observer)
        seen = _looked(directory, race, number, statistics, observer)
        for each in seen.left[len(race.left) :]:
            observer.line(f"{each.label} is started no more: {each.why}")
        if seen.going != race.going and due:
            # The next repeats have fewer deployments, in an order of their own.
            observer.cut(due, f"still in the race: {', '.join(seen.going) or 'nobody'}")
            budget.cut(due)
            whole, due = whole.only(range(number)), []
        _plan_on(run, tuple(each for each in run.record.plan.starts if each.repeat < whole.blocks), seen)
    if run.record.plan.race and run.record.stopped_because is None:
        race = race_of(run)
        kind = "race_had_all" if race.going else "race_decided"
        run.update(stopped_because=because(kind, repeats=race.looked))


def race_of(run: store.Kept[store.RunRecord]) -> Race:
    race = run.record.plan.race
    assert race is not None
    return race


def _plan_on(run: store.Kept[store.RunRecord], starts: Sequence[PlannedStart], race: Race) -> None:
    """Store the starts of a race, those that are next included, and how it stands."""
    run.update(plan=plan.estimated(replace(run.record.plan, starts=tuple(starts), race=race)))


def _looked(directory: Path, race: Race, number: int, statistics: Statistics, observer: Observer) -> Race:
    """Return the race after a look. One that cannot be held is spent, and nobody leaves."""
    try:
        return statistics.look(directory, number)
    except (BenchError, OSError) as error:
        observer.line(f"who may leave after {plural(number, 'repeat')} is not known: {error}")
        return replace(race, looks=(*race.looks, number))


def _budget_ends(
    run: store.Kept[store.RunRecord],
    race: Race,
    budget: Budget,
    dropped: Sequence[PlannedStart],
    observer: Observer,
) -> None:
    """Say and store that the budget has no time for the next repeat of a race, or the rest of it."""
    directory = run.path.parent
    measured = {cell.repeat for cell in store.read_cells(directory)}
    why = because("race_budget", repeats=race.looked, most=race.most, budget=budget.text)
    budget.cut(dropped)
    kept = tuple(each for each in run.record.plan.starts if each.repeat in measured)
    run.update(plan=replace(run.record.plan, starts=kept), stopped_because=why)
    goes_on = f"{why}; `{store.resuming(directory, run.record)}` goes on with it"
    if dropped:
        observer.cut(dropped, goes_on)
    else:
        observer.line(goes_on)
