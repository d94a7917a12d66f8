"""A race: which starts come next, what of that is on record, and how it ends and goes on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from begun_run import Told, settings_of, write_begun

from serving_bench.harness.contracts import (
    Departure,
    GuardFinding,
    PlannedStart,
    Race,
    Repeats,
    Standing,
    because,
    quoted,
)
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.order import deployment_order
from serving_bench.harness.run import budget as budgets
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.run.next_starts import missing_starts
from serving_bench.harness.run.racing import raced_on, racing
from serving_bench.harness.store import store
from serving_bench.harness.store.store import CellRecord, Kept, RunRecord

ANSWER = ("chat_multi_turn", "-", "")
WORDS = ("engine=reference", "reference.label=a,b,c,d", "repeats=3..6", "seed=3")
SEEN = GuardFinding("foreign_load", quoted("others used 60 %"), "during", "suspect")
Look = Callable[[Race, int], Race]


def left(race: Race, after: int, *labels: str) -> Race:
    """The race after a look at which these leave."""
    going = tuple(label for label in race.going if label not in labels)
    gone = [Departure(each, ANSWER, after, because("misses_slo")) for each in labels]
    return replace(race, left=(*race.left, *gone), going=going)


class Statistics:
    """Looks at a race as it is on record, and says what `look` says."""

    def __init__(self, look: Look) -> None:
        self.look_at, self.looks = look, list[int]()

    def look(self, directory: Path, repeats: int) -> Race:
        self.looks.append(repeats)
        race = store.read_run(directory).plan.race
        assert race
        return self.look_at(replace(race, looks=(*race.looks, repeats)), repeats)

    def standings(self, directory: Path, repeats: int) -> Sequence[Standing]:
        """How they stand is said after the look."""
        race = store.read_run(directory).plan.race
        assert race
        assert self.looks[-1] == race.looked == repeats
        return []


class Racing:
    """A race in a directory, of which `play` measures the starts."""

    def __init__(self, directory: Path, look: Look = lambda race, _: race, *words: str) -> None:
        self.settings = settings_of(*WORDS, *words)
        self.whole, self.told, self.statistics = plan.make(self.settings), Told(), Statistics(look)
        self.run = Kept(directory / "run.json", write_begun(directory, self.settings, self.whole))
        self.busy = dict[tuple[str, int], int]()  # how many attempts of a label and repeat are disturbed
        self.names = [each.label.removeprefix("reference ") for each in self.whole.deployments.values()]

    def starts(
        self, given: list[PlannedStart] | None = None, budget: Budget | None = None
    ) -> Iterator[PlannedStart]:
        whole = replace(self.whole, race=self.record.plan.race, starts=self.record.plan.starts)
        given = list(self.whole.starts) if given is None else given
        budget = budget or Budget(None, given)
        return racing(self.run, given, whole, self.settings, budget, self.statistics, self.told)  # type: ignore[arg-type]

    def play(self, starts: Iterator[PlannedStart], most: int = 1000) -> list[tuple[int, str]]:
        """Measure them, and return the repeat (from 1) and label of each."""
        played = []
        for start in starts:
            self.measure(start)
            played.append((start.repeat + 1, start.deployment.label))
            if len(played) == most:
                break
        return played

    def measure(self, start: PlannedStart) -> None:
        place = start.deployment.label, start.repeat + 1
        self.busy[place] = self.busy.get(place, 0) - 1
        for cell in start.cells:
            folder = store.begin_cell(self.run.path.parent, cell.number)
            record = CellRecord(
                cell.number, start.name, start.deployment.label, cell.repeat, cell.scenario, cell.load,
                cell.seed, status="completed", guard=(SEEN,) if self.busy[place] >= 0 else (),
                was_disturbed=store.was_disturbed(folder, cell.number),
            )  # fmt: skip
            store.write_record(folder / "cell.json", record)
            store.settle(folder, record)

    @property
    def record(self) -> RunRecord:
        return store.read_run(self.run.path.parent)

    @property
    def race(self) -> Race:
        race = self.record.plan.race
        assert race
        return race


def labels_of(played: list[tuple[int, str]]) -> dict[int, list[str]]:
    return {repeat: [label for k, label in played if k == repeat] for repeat, _ in played}


def test_levels_are_fixed_before_the_first_start_grow_and_add_up_to_four_percent(tmp_path: Path) -> None:
    race = Racing(tmp_path).race
    assert race.levels[:2] == (0, 0)
    assert race.levels[2:] == pytest.approx([0.04 * 9 / 36, 0.04 * 7 / 36, 0.04 * 9 / 36, 0.04 * 11 / 36])
    assert [race.level(look) for look in (-1, 0, 7, 8)] == [0, 0, 0, 0]
    assert race.later_level == pytest.approx(0.005)
    longer = race.raised(8)
    assert longer.levels[:6] == race.levels
    assert longer.levels[6:] == pytest.approx([0.005 * 13 / 28, 0.005 * 15 / 28])
    assert longer.later_level == pytest.approx(0.0025)


def test_without_a_winner_all_are_started_to_the_most_repeats(tmp_path: Path) -> None:
    raced = Racing(tmp_path)
    played = labels_of(raced.play(raced.starts()))
    assert {repeat: sorted(each) for repeat, each in played.items()} == {
        repeat: sorted(raced.whole.deployments) for repeat in range(1, 7)
    }
    assert raced.statistics.looks == [1, 2, 3, 4, 5, 6]
    assert str(raced.record.stopped_because) == "the race had all of its 6 repeats"
    grid = plan.make(replace(raced.settings, repeats=Repeats(6, 6)))
    names = [start.name for start in raced.record.plan.starts]
    assert names == [start.name for start in grid.starts], "nobody left, so it is the grid's order"


def test_who_leaves_is_started_no_more_and_the_others_get_an_order_of_their_own(tmp_path: Path) -> None:
    def look(race: Race, repeats: int) -> Race:
        if repeats == 1:
            return left(race, 1, every[0])
        return left(race, 4, *every[1:]) if repeats == 4 else race

    raced = Racing(tmp_path, look)
    every = list(raced.whole.deployments)
    played = labels_of(raced.play(raced.starts()))
    assert [len(played[k]) for k in played] == [4, 3, 3, 3]
    for block in range(3):
        order = deployment_order(3, 3, block)
        assert played[block + 2] == [every[1:][place] for place in order]
    assert str(raced.record.stopped_because) == "the race was decided after 4 repeats"
    assert len(raced.record.plan.starts) == 13
    numbers = [cell.number for start in raced.record.plan.starts for cell in start.cells]
    assert len({*numbers}) == len(numbers)
    assert f"{every[0]} is started no more: it misses the SLO" in raced.told.lines


def test_a_disturbed_start_is_measured_once_more_before_its_look_and_never_later(tmp_path: Path) -> None:
    raced = Racing(tmp_path)
    first, second, *_ = raced.whole.deployments
    raced.busy = {(first, 1): 2, (second, 2): 1}
    looks: list[int] = []
    played = []
    for start in raced.starts():
        raced.measure(start)
        played.append((start.repeat + 1, start.deployment.label, len(raced.statistics.looks)))
        looks = raced.statistics.looks
    again = {each: [(k, held) for k, label, held in played if label == each] for each in (first, second)}
    assert again[first][:3] == [(1, 0), (1, 0), (2, 1)]
    assert again[second][:4] == [(1, 0), (2, 1), (2, 1), (3, 2)]
    assert len(played) == 4 * 6 + 2
    assert looks == [1, 2, 3, 4, 5, 6]


def test_a_race_that_is_interrupted_goes_on_where_it_was_and_a_part_of_a_repeat_is_no_look(
    tmp_path: Path,
) -> None:
    raced = Racing(tmp_path, lambda race, k: left(race, k, next(iter(race.going))) if k == 1 else race)
    raced.play(raced.starts(), most=6)
    assert raced.race.looks == (1,)
    whole = raced.record.plan
    rest = missing_starts(tmp_path, raced.record, whole)
    assert {start.repeat for start in rest} == {1, 2} or {start.repeat for start in rest} == {1}
    played = labels_of(raced.play(raced.starts(rest)))
    assert len(played[2]) == 1
    assert [len(played[k]) for k in (3, 4, 5, 6)] == [3, 3, 3, 3]
    assert raced.race.looks == (1, 2, 3, 4, 5, 6)


def test_the_budget_ends_a_race_before_a_repeat_and_the_record_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(budgets, "monotonic", lambda: now_s[0])
    raced = Racing(tmp_path)
    budget, played = Budget(100.0, raced.whole.starts), []
    for start in raced.starts(budget=budget):
        budget.begins(start)
        raced.measure(start)
        now_s[0] += 11.0
        budget.ends(start, 1.0, [])
        played.append(start.repeat + 1)
    assert played == [1] * 4 + [2] * 4
    assert raced.race.looks == (1, 2)
    assert raced.record.plan.blocks == 2
    assert raced.record.stopped_because == because("race_budget", repeats=2, most=6, budget=budget.text)
    assert raced.told.lines[-1].endswith(f"`bench run --resume {tmp_path}` goes on with it")


def test_a_look_that_cannot_be_held_is_spent_and_nobody_leaves(tmp_path: Path) -> None:
    def look(race: Race, repeats: int) -> Race:
        if repeats == 3:
            raise StoreError("cells/001: damaged")
        return race

    raced = Racing(tmp_path, look)
    raced.play(raced.starts())
    assert raced.race.looks == (1, 2, 3, 4, 5, 6)
    assert "who may leave after 3 repeats is not known: cells/001: damaged" in raced.told.lines


def test_what_failed_twice_may_start_again_when_a_race_goes_on(tmp_path: Path) -> None:
    raced = Racing(tmp_path)
    a, b, c, d = raced.whole.deployments
    race = left(left(raced.race, 3, b), 3, c)
    failed = Departure(a, ANSWER, 2, because("failed_twice", failed=2, starts=2))
    race = replace(race, left=(*race.left, failed), going=(), ended=((ANSWER, 3),), looks=(1, 2, 3))
    on = raced_on(raced.whole, race, None)
    assert (on.going, on.ended, on.most) == ((a, d), (), 6)
    assert {each.label for each in on.left} == {b, c}
    assert raced_on(raced.whole, left(raced.race, 3, b), 20).most == 20


@pytest.mark.parametrize("words", [("until=ci:5%",), ("repeats=5",), ("reference.label=a",)])
def test_there_is_no_race_where_nothing_can_race_or_a_number_is_given(words: tuple[str, ...]) -> None:
    named = {word.partition("=")[0] for word in words}
    base = ("engine=reference", "reference.label=a,b")
    whole = plan.make(settings_of(*(word for word in base if word.partition("=")[0] not in named), *words))
    assert whole.race is None
    assert whole.blocks == 5


def test_a_race_that_was_asked_for_and_has_nobody_to_beat_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"repeats=3\.\.12: no two deployments .* so none race; give repeats=N"
    ):
        plan.make(settings_of("engine=reference", "repeats=3..12"))


def test_the_baseline_and_who_is_kept_are_on_record() -> None:
    words = ("race.keep=reference a", "compare.baseline=reference b")
    race = plan.make(settings_of("engine=reference", "reference.label=a,b,c", *words)).race
    assert race
    assert race.kept == ("reference a", "reference b")


def test_a_race_that_goes_on_after_a_failed_start_plans_each_start_once(tmp_path: Path) -> None:
    raced = Racing(tmp_path)
    starts = raced.starts()
    failed = next(starts)
    for start in starts:
        if start.repeat == 3:
            break
        raced.measure(start)
    starts.close()  # type: ignore[attr-defined]
    # As the budget leaves a race that it ends.
    three = tuple(each for each in raced.record.plan.starts if each.repeat < 3)
    raced.run.update(plan=replace(raced.record.plan, starts=three))
    whole = raced.record.plan
    rest = missing_starts(tmp_path, raced.record, whole)
    assert [(start.repeat, start.deployment.label) for start in rest] == [(0, failed.deployment.label)]
    raced.play(raced.starts(rest))
    cells = [cell.number for start in raced.record.plan.starts for cell in start.cells]
    assert len(cells) == len({*cells}) == 4 * 6


def test_what_was_disturbed_before_an_interruption_is_measured_once_more_before_the_look(
    tmp_path: Path,
) -> None:
    raced = Racing(tmp_path)
    first, *_ = raced.whole.deployments
    raced.busy = {(first, 2): 1}
    before = next(k for k, start in enumerate(raced.whole.starts[4:8]) if start.deployment.label == first)
    raced.play(raced.starts(), most=4 + before + 1)
    assert raced.race.looks == (1,)
    rest = missing_starts(tmp_path, raced.record, raced.record.plan)
    played = raced.play(raced.starts(rest), most=4 - before)
    assert played.count((2, first)) == 1
    assert (2, first) == played[-1], "at the end of its repeat"


def test_what_was_disturbed_twice_is_not_measured_a_third_time_after_an_interruption(tmp_path: Path) -> None:
    raced = Racing(tmp_path)
    first, *_ = raced.whole.deployments
    raced.busy = {(first, 1): 9}
    assert raced.play(raced.starts(), most=5)[-1] == (1, first)
    rest = missing_starts(tmp_path, raced.record, raced.record.plan)
    assert (1, first) not in raced.play(raced.starts(rest), most=4)


def test_who_leaves_is_told_when_it_is_in_no_answer_any_more(tmp_path: Path) -> None:
    def look(race: Race, repeats: int) -> Race:
        first = next(iter(raced.whole.deployments))
        if repeats == 3:  # it leaves one of its two answers
            other = Departure(first, ("rag", "-", ""), 3, because("misses_slo"))
            return replace(race, left=(*race.left, other))
        return left(race, 4, first) if repeats == 4 else race

    raced = Racing(tmp_path, look)
    told_at = list[int]()
    for start in raced.starts():
        raced.measure(start)
        told_at += [raced.race.looked] * any("is started no more" in line for line in raced.told.lines)
    assert told_at[0] == 4
    assert sum("is started no more" in line for line in raced.told.lines) == 1
