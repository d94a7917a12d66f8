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
from serving_bench.harness.run.next_starts import Statistics, last_index, once_more, stand
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

    What was disturbed from outside is measured once more at the end of its repeat, before the look that says
    who leaves. There is no look at a part of a repeat. The budget looks at time only.
    """
    directory, due = run.path.parent, [each for each in starts if each.cells]
    yield from (start for start in starts if not start.cells)
    first = _recorded(run).looked + 1
    while (race := _recorded(run)).may_go_on:
        number, more = race.looked + 1, tuple[PlannedStart, ...]()
        if race.looked >= whole.blocks:
            before = len(whole.starts)
            whole = plan.grown(replace(whole, race=race), settings, last_index(directory, run.record) + 1)
            more = whole.starts[before:]
            budget.grow(more)
        block = [*(start for start in due if start.repeat < number), *more]
        due = [start for start in due if start.repeat >= number]
        last = [each for each in whole.starts if each.repeat == whole.blocks - 1]
        budget.may_follow(
            [each for each in last if each.deployment.label in race.going], race.most - whole.blocks
        )
        if number > first and not budget.has_time_for(block):
            _budget_ends(run, race, budget, [each for each in (*block, *due) if each not in more], observer)
            return
        if more:
            observer.grow(more, f"repeat {number} follows, of at most {race.most}")
            _plan_on(run, (*run.record.plan.starts, *more), race)
        for place, start in enumerate(block):
            if place and number > first and not budget.has_time_for([start], LATEST):
                _budget_ends(run, race, budget, [*block[place:], *due], observer)
                return
            yield start
        # Also what was disturbed before an interruption in this repeat, unless it was measured again then.
        measured = [
            start
            for start in whole.starts
            if start.repeat == number - 1
            and not any(store.was_repeated(directory, cell.number) for cell in start.cells)
        ]
        yield from once_more(run, measured, [], budget, observer)
        seen = _looked(directory, race, number, statistics, observer)
        why = {each.label: each.why for each in seen.left}
        for label in [each for each in race.going if each not in seen.going and each in why]:
            observer.line(f"{label} is started no more: {why[label]}")
        if seen.going != race.going and due:
            # The next repeats have fewer deployments, in an order of their own.
            observer.cut(due, f"still in the race: {', '.join(seen.going) or 'nobody'}")
            budget.cut(due)
            whole, due = whole.only(range(number)), []
        _plan_on(run, tuple(each for each in run.record.plan.starts if each.repeat < whole.blocks), seen)
        if seen.may_go_on:
            stand(run, number, statistics, observer)
    if run.record.stopped_because is None:
        kind = "race_had_all" if race.going else "race_decided"
        run.update(stopped_because=because(kind, repeats=race.looked))


def _recorded(run: store.Kept[store.RunRecord]) -> Race:
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
