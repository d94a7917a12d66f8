"""The time of a run: how long its windows may go on, which repeats are left out, and how they are fetched."""

import re
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import make_run
import pytest
from begun_run import Told, settings_of
from bench_command import Place, bench, quick, side_by_side, told
from make_run import S, deployment, plan_of

from serving_bench.harness.contracts import GuardFinding, Load, PlannedStart, quoted
from serving_bench.harness.run import budget as budgets
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.run.next_starts import fitting
from serving_bench.harness.store import store

THREE = [deployment("llama_cpp", each) for each in ("fp16", "gguf-q8_0", "gguf-q4_0")]
LOAD = Load(concurrency=4, warmup_s=2.0, duration_s=8.0)
STARTS = plan_of(THREE, [LOAD], repeats=5).starts


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "monotonic", CLOCK)


def play(budget: Budget, start: PlannedStart, took_s: float, launch_s: float = 1.0) -> None:
    """A start that takes so long, of which 8 s are its window."""
    budget.begins(start)
    CLOCK.now_s += took_s
    budget.ends(start, launch_s, [make_run.summary(S)])


def test_auto_is_twice_the_planned_time_and_eight_minutes_at_least() -> None:
    # A start is planned with 4 s, its cell with 2 s beside warm-up and window.
    assert Budget(None, STARTS).limit_s == 480.0
    longer = plan_of(THREE, [Load(concurrency=4, warmup_s=2.0, duration_s=60.0)], repeats=5).starts
    assert Budget(None, longer).limit_s == 2 * 15 * (4 + 2 + 62)
    assert Budget(90.0, longer).limit_s == 90.0


@pytest.mark.parametrize(
    ("words", "budget_s"),
    [
        ((), 480.0),
        (("scenario=chat_multi_turn", "guard=off"), 480.0),
        (("repeats=9",), None),
        (("load.duration=60s",), None),
        (("quantization=fp16", "run.budget=auto"), None),
        (("engine=reference", "run.budget=1h"), 3600.0),
    ],
)
def test_the_default_run_has_eight_minutes_however_slow_its_servers(words, budget_s) -> None:
    assert settings_of(*words).budget_s == budget_s


def test_a_slow_start_up_counts_as_planned_once_it_was_seen() -> None:
    budget = Budget(None, STARTS)
    play(budget, STARTS[0], 120.0, launch_s=100.0)
    same = [each for each in STARTS if each.deployment == STARTS[0].deployment]
    assert budget.limit_s == 2 * (15 * 16 + len(same) * 100)


def test_a_window_may_go_on_while_two_more_repeats_as_long_fit() -> None:
    budget = Budget(480.0, STARTS)
    budget.begins(STARTS[0])
    # 9 cells in 480 s, less 8 more starts of 8 s and this cell's 4 s beside its window: 412 s for 72 s.
    # While no request has ended: 3 cells, less 2 starts and this cell: half of 460 s for 24 s.
    assert budget.steps(STARTS[0], STARTS[0].cells[0]) == (5, 9)
    # If starting took 60 s, the others will too. 8 of them leave no time, but 2 do: 296 s for 24 s.
    CLOCK.now_s += 60.0
    assert budget.steps(STARTS[0], STARTS[0].cells[0]) == (4, 6)
    CLOCK.now_s += 410.0
    assert budget.steps(STARTS[0], STARTS[0].cells[0]) == (1, 4)


def test_what_the_user_says_of_a_window_counts() -> None:
    start = plan_of(THREE, [Load(concurrency=4, duration_s=8.0, steps=2)]).starts[0]
    assert Budget(480.0, [start]).steps(start, start.cells[0]) == (2, 0)


def fitted(
    tmp_path: Path, budget_s: float, took_s: Sequence[float], had: Sequence[int] = (), **changes: Any
) -> tuple[list[int], store.RunRecord, list[str]]:
    """The repeats of the starts that a run makes, each of which takes so long. It `had` some before."""
    store.write_record(tmp_path / "run.json", make_run.run_record(plan_of(THREE, [LOAD], repeats=5)))
    run, said = store.Kept(tmp_path / "run.json", store.read_run(tmp_path)), Told()
    starts, made = [start for place, start in enumerate(STARTS) if place not in had], list[int]()
    for place in had:
        make_run.write_cell(tmp_path, STARTS[place].cells[0], STARTS[place], [], make_run.summary(S))
    budget = Budget(budget_s, starts)
    for start, each_s in zip(fitting(run, starts, budget, said), took_s, strict=False):
        play(budget, start, each_s)
        make_run.write_start(tmp_path, make_run.start_record(start, S))
        make_run.write_cell(tmp_path, start.cells[0], start, [], make_run.summary(S), **changes)
        made.append(start.repeat)
    return made, store.read_run(tmp_path), said.lines


def test_what_fits_is_measured(tmp_path: Path) -> None:
    made, record, lines = fitted(tmp_path, 480.0, [16.0] * 15)
    assert (len(made), record.plan.blocks, record.stopped_because, lines) == (15, 5, None, [])


def test_whole_last_repeats_are_left_out(tmp_path: Path) -> None:
    made, record, lines = fitted(tmp_path, 480.0, [40.0] * 15)
    assert made == [repeat for repeat in range(4) for _ in THREE]
    assert (record.plan.blocks, len(record.plan.starts)) == (4, 12)
    said = "4 of 5 repeats fit in run.budget (8 minutes)"
    assert (str(record.stopped_because), record.repeats_cut) == (said, 5)
    assert lines == [
        f"3 starts left out: {said}; `bench run --resume {tmp_path} repeats=5` measures the others; "
        "a larger run.budget holds more"
    ]


def test_a_machine_that_was_busy_has_to_be_idle_before_more_is_measured(tmp_path: Path) -> None:
    seen = GuardFinding("foreign_load", quoted("other programs used 60 % of the cores"), "during", "suspect")
    *_, lines = fitted(tmp_path, 480.0, [40.0] * 15, guard=(seen,))
    idle = "wait until the machine is idle (`bench doctor`), then `bench run --resume"
    assert [f"run.budget (8 minutes); {idle}" in line for line in lines] == [True]


def test_a_resume_of_scattered_starts_tells_how_many_repeats_are_whole(tmp_path: Path) -> None:
    had = [place for place in range(15) if place not in (0, 5, 10)]  # one start each of repeats 1, 2 and 4
    made, record, _ = fitted(tmp_path, 100.0, [90.0] * 3, had)
    assert made == [0]
    assert len(record.plan.starts) == 15, "each has something that is measured"
    assert str(record.stopped_because).startswith("3 of 5 repeats fit in run.budget (1.67 minutes)")


def test_the_first_repeat_is_always_measured(tmp_path: Path) -> None:
    made, record, _ = fitted(tmp_path, 100.0, [90.0] * 15)
    assert made == [0, 0, 0]
    assert record.plan.blocks == 1
    assert str(record.stopped_because).startswith("1 of 5 repeats fit in run.budget (1.67 minutes)")


def test_a_repeat_that_takes_much_longer_than_those_before_is_given_up_and_stays_planned(tmp_path: Path):
    made, record, _ = fitted(tmp_path, 100.0, [10.0, 10.0, 10.0, 90.0])
    assert made == [0, 0, 0, 1]
    assert (record.plan.blocks, len(record.plan.starts)) == (2, 6)
    assert str(record.stopped_because).startswith("1 of 5 repeats fit in run.budget (1.67 minutes)")


# --- with servers ---------------------------------------------------------------------------------

Done = CompletedProcess[str]


def short_of_time(place: Place) -> tuple[Place, Done, str, Done]:
    """A second is less than a start takes, so only the first repeat fits; then one more is fetched."""
    done = bench(place, "run", *quick("run.budget=1s", "repeats=3"), "--output", "run")
    return place, done, place.report(), bench(place, "run", "--resume", "run", "repeats=2")


def slow_answers(place: Place) -> tuple[Place, Done]:
    """Answers take longer than four windows."""
    words = quick(
        "reference.ttft=900ms", "load.duration=200ms", "load.min_requests=3", "scenario.think_time=0s"
    )
    return place, bench(place, "run", *words, "--output", "run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    stories = {"short": short_of_time, "slow": slow_answers}
    with side_by_side(tmp_path_factory.mktemp("budget"), stories) as runs:
        yield runs


def test_a_run_leaves_out_repeats_says_so_and_fetches_them(runs) -> None:
    place, done, page, more = runs["short"].result()
    assert done.returncode == 0, done.stderr
    first = (
        r"run\.budget=1 s: the first repeat takes about [\d.]+ s and is measured all the same; the last 2 "
    )
    assert re.search(
        first + r"repeats of 3 will probably not be measured; run\.budget=\d+s holds all\n", done.stderr
    )
    said = "1 of 3 repeats fit in run.budget (1 s)"
    assert f"{said}; `bench run --resume run repeats=3` measures the others" in done.stderr
    text = re.sub("<[^>]*>", "", page)
    assert re.search(rf"{re.escape(said)}; bench run --resume \S+ repeats=3 measures the others\.", text)
    assert more.returncode == 0, more.stderr
    assert [start["repeat"] for start in place.starts()] == [0, 1]
    assert place.run()["stopped_because"] is None
    assert place.run()["settings"]["run.budget"] == ["1s"]


def test_a_window_goes_on_until_enough_requests_have_ended(runs) -> None:
    place, done = runs["slow"].result()
    assert done.returncode == 0, done.stderr
    [cell] = place.cells().values()
    window_s = (cell["summary"]["window_end_ns"] - cell["summary"]["window_start_ns"]) / 1e9
    assert (cell["status"], cell["load"]["steps"]) == ("completed", None)
    # Three answers of 0.9 s, less what of the first was before the window. Without a budget it were 0.8 s.
    assert window_s > 1.8
    rows = store.read_requests(store.cell_dir(place.run_dir, 1)).to_pylist()
    assert sum(row["in_window"] and row["outcome"] == "ok" for row in rows) >= 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run.budget=5s"], None),
        (["run.budget=auto"], None),
        (["run.budget=soon"], "run.budget=soon: "),
        (["run.budget=100ms"], "run.budget=100ms: must be 1 s or more"),
        (["run.budget=1h", "until=ci:5%"], "run.budget=1h: has no effect with until; give until.budget"),
        (["run.budget=1h,2h"], "run.budget=1h,2h: cannot be swept; give one value"),
    ],
)
def test_a_budget_is_one_duration(tmp_path: Path, words: list[str], said: str | None) -> None:
    done = told(Place(tmp_path), "plan", "engine=reference", *words)
    assert done.returncode == (2 if said else 0), done.stderr
    assert said is None or done.stderr.startswith(said)


def test_a_search_has_no_budget(tmp_path: Path) -> None:
    done = told(Place(tmp_path), "search", "engine=reference", "slo.success=90%", "run.budget=1h")
    assert done.returncode == 2
    assert done.stderr.startswith("run.budget=1h: bench search ends when it has found the load")
