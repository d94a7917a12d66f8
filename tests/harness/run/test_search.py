"""A search's record: its settings, the trials that it plans, and what is left of one that was cut short."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from make_run import run_record, start_record, write_start

from serving_bench.harness.cli.commands.planning import search_lines
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import Objective
from serving_bench.harness.errors import CellError, StoreError, UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.run import search
from serving_bench.harness.run.recorded import recorded_plan
from serving_bench.harness.sampling import environment
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store
from serving_bench.harness.store.store import CellRecord, Kept

SLO = ("slo.ttft_s.p95=500ms", "slo.success=99%")


def settings_of(*words):
    return search.prepared(config.search_settings(overrides.parse(["engine=reference", *SLO, *words])))


def planned(*words):
    settings = settings_of(*words)
    return settings, settings.search, plan.make(settings)


def sequences(*words):
    (point,) = settings_of(*words).terms
    return point.value.concurrent_sequences


# --- settings --------------------------------------------------------------------------------------


def test_servers_serve_as_many_at_once_as_users_are_searched_for_up_to_64():
    assert sequences("search.highest=16") == 16
    assert sequences("search.highest=500") == 64
    assert sequences() == 8
    assert sequences("search.over=rate", "search.highest=2") == 28
    assert sequences("search.over=rate") == 64
    assert sequences("search.highest=16", "engine.concurrent_sequences=3") == 3
    assert sequences("search.highest=16", "engine.fairness=stock") is None


def test_a_trial_ends_once_half_of_its_last_requests_failed():
    assert settings_of().loads[0].max_failed_share == 0.5
    assert settings_of("load.max_failed=10%").loads[0].max_failed_share == 0.1
    low = config.search_settings(overrides.parse(["engine=reference", "slo.success=40%"]))
    assert search.prepared(low).loads[0].max_failed_share is None


def test_one_kind_of_load_is_searched():
    with pytest.raises(UserError, match="one value of each load"):
        settings_of("load.duration=5s,10s")


def test_the_plan_is_told_in_words():
    _, terms, whole = planned("search.highest=16", "repeats=2")
    [said] = search_lines(terms, whole)
    assert "from 1 to 16 users on each of 2 starts" in said
    assert "one trial on each about 31 s," in said


# --- trials ----------------------------------------------------------------------------------------


def record_of(start, cell, **changes):
    plain = CellRecord(
        number=cell.number, start=start.name, deployment=start.deployment.label, repeat=cell.repeat,
        scenario=cell.scenario, load=cell.load, seed=cell.seed, status="completed",
    )  # fmt: skip
    return replace(plain, **changes)


def searched(directory, whole, terms, judge):
    record = run_record(whole, search=terms, slo=(Objective("success", 0.99),))
    return search.Search(
        Kept(directory / "run.json", record), terms, 1, SimpleNamespace(trial=judge), Show(quiet=True)
    )


def play(found, start):
    """Every trial of a start, as if each had been measured."""
    done, cells = [], []
    while (cell := found.next_cell(start, done)) is not None:
        cells.append(cell)
        done.append(record_of(start, cell))
    return cells


def judge_of(capacity):
    def judge(directory, load, numbers, slo):
        kept = load <= capacity
        return search.Trial(load, "kept" if kept else "broken", kept, len(numbers), "as judged")

    return judge


def test_trials_are_planned_in_the_record_as_they_come(tmp_path):
    _, terms, whole = planned("reference.label=a,b", "repeats=2", "search.highest=16")
    found = searched(tmp_path, whole, terms, judge_of(5))
    played = {start.name: play(found, start) for start in whole.starts}
    for cells in played.values():
        assert [cell.load.concurrency for cell in cells] == [1, 2, 4, 8, 6, 5]
    numbers = sorted(cell.number for cells in played.values() for cell in cells)
    assert numbers == list(range(1, 25)), "numbers go on over all starts"
    stored = store.read_run(tmp_path).plan.starts
    assert [[c.number for c in s.cells] for s in stored] == [
        [c.number for c in played[s.name]] for s in stored
    ]
    by_repeat: dict[int, set] = {}
    for start in stored:
        by_repeat.setdefault(start.repeat, set()).add(tuple(cell.seed for cell in start.cells))
    assert [len(seeds) for seeds in by_repeat.values()] == [1, 1], (
        "both deployments see the same conversations"
    )
    assert by_repeat[0] != by_repeat[1]


def test_a_load_that_is_tried_again_gets_fresh_conversations(tmp_path):
    _, terms, whole = planned("search.lowest=4", "search.highest=8", "repeats=1")

    def judge(directory, load, numbers, slo):
        return search.Trial(load, "unclear", True, len(numbers), "as judged")

    found = searched(tmp_path, whole, terms, judge)
    cells = play(found, whole.starts[0])
    assert [cell.load.concurrency for cell in cells] == [4, 8, 8, 8], "search.trials windows"
    assert len({cell.seed for cell in cells}) == 4


def test_each_scenario_is_searched_on_the_same_start(tmp_path):
    _, terms, whole = planned("scenario.turns=1,2", "search.highest=2", "repeats=1")
    found = searched(tmp_path, whole, terms, judge_of(2))
    cells = play(found, whole.starts[0])
    assert [cell.load.concurrency for cell in cells] == [1, 2, 1, 2]
    assert len({cell.scenario.label for cell in cells}) == 2


def test_windows_that_say_nothing_are_repeated_and_then_end_the_start(tmp_path):
    _, terms, whole = planned("search.highest=4", "repeats=1")
    asked = []

    def judge(directory, load, numbers, slo):
        asked.append(tuple(numbers))
        return search.Trial(load, "unclear", False, len(numbers), "", "nobody sent anything")

    found = searched(tmp_path, whole, terms, judge)
    with pytest.raises(CellError, match="the search ends at 1 user: nobody sent anything"):
        play(found, whole.starts[0])
    assert [len(numbers) for numbers in asked] == [1, 2, 3]


# --- what is left ----------------------------------------------------------------------------------


def cut_short(tmp_path, whole):
    """The first start completed, the second in the middle of its search, the third never begun."""
    first, second, third = whole.starts
    _, terms, _ = planned("search.highest=16")
    more = tuple(replace(second.cells[0], number=number) for number in (4, 5))
    starts = (first, replace(second, cells=(*second.cells, *more)), third)
    record = run_record(
        replace(whole, starts=starts), search=terms, environment=environment.facts(), status="interrupted"
    )
    store.write_record(tmp_path / "run.json", record)
    write_start(tmp_path, start_record(first, 1))
    write_start(tmp_path, start_record(second, 1, status="interrupted"))
    return record


def test_starts_that_did_not_end_are_begun_anew_under_numbers_of_their_own(tmp_path):
    _, _, whole = planned("search.highest=16", "repeats=3")
    record, left = search.starts_left(tmp_path, cut_short(tmp_path, whole), whole)
    first, second, third = whole.starts
    assert left[1] == third
    assert (left[0].index, left[0].repeat) == (4, second.repeat)
    assert [cell.number for cell in left[0].cells] == [6]
    assert [cell.seed for cell in left[0].cells] == [cell.seed for cell in second.cells]
    assert record.plan.starts == (first, *left)


def test_a_search_that_would_be_another_today_is_not_gone_on_with(tmp_path):
    settings, _, whole = planned("search.highest=16", "repeats=3")
    record = cut_short(tmp_path, whole)
    begun = search.without_trials(store.read_run(tmp_path).plan, settings)
    assert recorded_plan(tmp_path, begun, settings) == whole
    assert len(search.starts_left(tmp_path, record, whole)[1]) == 2
    for other in ("search.lowest=2", "load.duration=9s"):
        with pytest.raises(StoreError, match="another bench"):
            recorded_plan(tmp_path, begun, settings_of("search.highest=16", "repeats=3", other))
