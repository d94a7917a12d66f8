"""`until`: when a run stops growing, and what of a grown run is on record and resumed."""

import json
import signal
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest
from begun_run import Told, write_begun
from bench_command import Place, begun, bench, ended, quick, side_by_side, told
from waiting import wait_until

from serving_bench.harness.contracts import Precision, Until, quoted
from serving_bench.harness.plan import plan
from serving_bench.harness.run.next_starts import growing, why_stop
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store
from serving_bench.harness.store.store import Kept

FIVE = Until(0.05, "ttft_s.p50", budget_s=600)
WIDE, NARROW = Precision("vllm awq, 4 users", 0.073), Precision("llama_cpp fp16, 1 user", 0.021)
NONE = Precision("tgi awq, 4 users", None, quoted("the server exited with code 1"))
ONE_START = Precision("vllm awq, 1 user", float("inf"))


def test_a_run_goes_on_while_an_interval_is_too_wide_and_the_budget_lasts() -> None:
    assert why_stop(FIVE, [WIDE, NARROW], 5, 500) is None  # a sixth ends at 600 s
    assert why_stop(FIVE, [ONE_START, NARROW], 5, 100) is None
    assert why_stop(FIVE, [WIDE, NONE], 5, 100) is None


def test_it_stops_once_the_widest_is_narrow_enough() -> None:
    assert str(why_stop(FIVE, [Precision("vllm awq, 4 users", 0.05), NARROW], 4, 100)) == (
        "the widest 95 % interval of ttft_s.p50 reaches 5 % from its mean (vllm awq, 4 users), within "
        "the 5 % asked for; 4 repeats took 1.67 minutes"
    )


def test_it_stops_before_a_repeat_that_would_not_end_within_the_budget() -> None:
    assert str(why_stop(FIVE, [WIDE, NARROW], 5, 501)) == (
        "5 repeats took 8.35 minutes, and one more, of about 1.67 minutes, would not end within until.budget "
        "(10 minutes); the widest 95 % interval of ttft_s.p50 reaches 7.3 % from its mean "
        "(vllm awq, 4 users), not within the 5 % asked for"
    )


def test_a_single_start_has_no_interval() -> None:
    said = str(why_stop(FIVE, [ONE_START], 3, 900))
    assert said.startswith(
        "3 repeats took 15 minutes, and one more, of about 5 minutes, would not end within "
    )
    assert "ttft_s.p50 has only one start that counts, and so no interval (vllm awq, 1 user)" in said


def test_a_case_without_a_mean_keeps_no_run_going_and_is_named() -> None:
    said = str(why_stop(FIVE, [NARROW, NONE], 3, 10))
    assert said.endswith(
        "; left out, since no further repeat would help: tgi awq, 4 users (the server exited with code 1)"
    )
    nothing = str(why_stop(FIVE, [NONE] * 5, 3, 10))
    assert nothing.startswith("no deployment has an interval of ttft_s.p50 that more repeats could narrow; ")
    assert nothing.count("the server exited with code 1") == 5


def test_a_block_is_on_record_before_it_begins_and_so_is_why_there_is_no_further_one(tmp_path: Path) -> None:
    words = ("engine=reference", "reference.label=a,b", "until=ci:5%", "until.metric=ttft_s.p50")
    settings = config.settings(overrides.parse(words))
    whole = plan.make(settings)
    run, told = Kept(tmp_path / "run.json", write_begun(tmp_path, settings, whole)), Told()
    found = iter([[WIDE], [NARROW]])
    statistics = SimpleNamespace(precisions=lambda *_: next(found))
    growing_run = growing(run, whole.starts, whole, settings, statistics, told)  # type: ignore[arg-type]
    first = [next(growing_run) for _ in whole.starts]
    assert first == list(whole.starts)
    more = [next(growing_run), next(growing_run)]
    assert [start.name for start in store.read_run(tmp_path).plan.starts[10:]] == [each.name for each in more]
    assert [(start.index, start.repeat) for start in more] == [(11, 5), (12, 5)]
    assert list(growing_run) == []
    assert told.lines[0].startswith(
        "2 starts more: repeat 6 follows: the widest 95 % interval of ttft_s.p50 "
    )
    assert told.lines[1] == f"no further repeat: {store.read_run(tmp_path).stopped_because}"


# --- with servers ---------------------------------------------------------------------------------

SHORT = (
    "load.warmup=0.1s",
    "load.duration=0.3s",
    "load.min_requests=1",
    "reference.ttft=5ms",
    "scenario.think_time=0s",
)


def grown_run(place: Place) -> Place:
    """Run with an interval that is never narrow enough, interrupt the fourth repeat, and resume.

    Meanwhile the budget on record is changed to one that is spent.
    """
    words = quick("until=ci:0.001%", "until.budget=1h", *SHORT)
    with begun(place, "run", *words, "--output", "run") as process:
        wait_until(
            lambda: process.poll() is not None
            or (len(starts := place.starts()) >= 4 and starts[3]["spawned_ns"]), 160,
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.returncode == 130, done.stderr
    assert "repeat 4 follows: the widest 95 % interval of output_tokens_per_s reaches" in done.stderr
    record = place.run()
    assert (record["status"], record["stopped_because"]) == ("interrupted", None)
    record["settings"]["until.budget"] = ["1s"]
    (place.run_dir / "run.json").write_text(json.dumps(record))
    done = bench(place, "run", "--resume", "run")
    assert done.returncode == 0, done.stderr
    return place


def narrow_run(place: Place) -> tuple[Place, CompletedProcess[str]]:
    """One deployment, one repeat asked for, any interval good enough."""
    return place, bench(place, "run", *quick("until=ci:99%", *SHORT), "--output", "run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    with side_by_side(tmp_path_factory.mktemp("growth"), {"grown": grown_run, "narrow": narrow_run}) as runs:
        yield runs


@pytest.mark.alone
def test_a_grown_run_is_resumed_with_its_blocks_and_goes_on_with_until(runs) -> None:
    place = runs["grown"].result()
    record, starts = place.run(), place.starts()
    planned = record["plan"]["starts"]
    assert [(start["repeat"], start["index"]) for start in planned] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [cell["number"] for start in planned for cell in start["cells"]] == [1, 2, 3, 4]
    assert [(at, cell["status"]) for at, cell in sorted(place.cells().items())] == [
        (number, "completed") for number in (1, 2, 3, 4)
    ]
    assert record["status"] == "completed"
    assert record["stopped_because"].startswith("4 repeats took ")
    assert "would not end within until.budget (1 s)" in record["stopped_because"]
    statuses = [start["status"] for start in starts]
    assert statuses == [*["completed"] * 3, "interrupted", "completed"], (
        "it is begun again under a new number"
    )
    place.wait_until_empty()


@pytest.mark.alone
def test_until_measures_three_repeats_at_the_least_and_says_why_it_stops(runs) -> None:
    place, done = runs["narrow"].result()
    assert done.returncode == 0, done.stderr
    assert [start["repeat"] for start in place.starts()] == [0, 1, 2]
    said = place.run()["stopped_because"]
    assert said.startswith("the widest 95 % interval of output_tokens_per_s reaches ")
    assert "within the 99 % asked for; 3 repeats took " in said
    assert f"no further repeat: {said}" in done.stderr
    assert "3 starts, 3 cells, at least 19 s, plus each engine's own start-up" in done.stderr
    assert "nothing to measure" in told(place, "run", "--resume", "run").stderr
    assert len(place.starts()) == 3
