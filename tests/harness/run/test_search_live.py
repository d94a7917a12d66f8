"""A search on the reference engine, whose capacity is known: k slots, and the same time for each request."""

import json
import re
import signal
import time

import pytest
from bench_command import begun, bench, ended, made, quick, side_by_side, told
from waiting import wait_until

from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.verdicts.searches import capacities_of

pytestmark = pytest.mark.long
SLOTS = 4
TTFT_S, ITL_S, TOKENS = 0.1, 0.01, 11
SERVICE_S = TTFT_S + (TOKENS - 1) * ITL_S
# One turn each, no think time, all of one length; what has to wait for a slot misses the objective.
KNOWN = quick(
    f"reference.slots={SLOTS}", "reference.ttft=100ms", "reference.itl=10ms", "scenario.turns=1",
    "scenario.spread=0", f"scenario.output_tokens={TOKENS}", "scenario.think_time=0s",
    "slo.success=90%", "load.warmup=0.4s", "load.duration=1.5s", "load.min_requests=1", "search.trials=1",
)  # fmt: skip
SEARCH = [word for word in KNOWN if not word.startswith("load.concurrency")]
USERS = ("slo.ttft_s.p90=140ms", "search.lowest=2", "search.highest=16")
# Near its capacity a queue takes long to forget that the machine was busy elsewhere: half may wait.
RATES = (
    "slo.ttft_s.p50=140ms", "search.over=rate", "load.arrival=constant", "search.lowest=16",
    "search.highest=24", "search.precision=3%",
)  # fmt: skip


def searched(place, *words):
    begun_s = time.monotonic()
    done = bench(place, "search", *SEARCH, *words, "--output", "run", "--quiet", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    ([answer], [start]) = found["tables"]["capacities"], found["tables"]["brackets"]
    print(f"{answer['measured']:g} after {start['trials']} trials, {time.monotonic() - begun_s:.1f} s")
    place.wait_until_empty()
    return place, (answer["measured"], start["kept"], start["broken"])


def interrupted(place):
    """Ctrl-C in the second trial, then `bench run --resume`, which knows a search."""
    words = (*SEARCH, *USERS[:2], "search.highest=4", "--output", "run")
    with begun(place, "search", *words) as process:
        wait_until(lambda: place.rows_so_far(2) > 0, 60)
        process.send_signal(signal.SIGINT)
        code = ended(process).returncode
    assert len(store.read_run(place.run_dir).plan.starts[0].cells) == 2, "the record grows with each trial"
    done = bench(place, "run", "--resume", "run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    place.wait_until_empty()
    return place, code


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """All searches at once: none keeps a processor busy, and most of each is waiting."""
    stories = {
        "users": lambda place: searched(place, *USERS),
        "rate": lambda place: searched(place, *RATES),
        "interrupted": interrupted,
    }
    with side_by_side(tmp_path_factory.mktemp("search"), stories) as found:
        yield found


def test_as_many_users_as_there_are_slots(both):
    _, answer = both["users"].result()
    assert answer == (SLOTS, SLOTS, SLOTS + 1)


def test_the_rate_that_the_slots_can_serve(both):
    _, answer = both["rate"].result()
    assert answer[0] == pytest.approx(SLOTS / SERVICE_S, rel=0.05)


def test_all_trials_are_in_the_record_and_on_one_server_start(both):
    place, _ = both["users"].result()
    record, cells = store.read_run(place.run_dir), store.read_cells(place.run_dir)
    assert [cell.load.concurrency for cell in cells] == [2, 4, 8, 6, 5]
    assert len(store.read_starts(place.run_dir)) == 1
    (planned,) = record.plan.starts
    assert [cell.number for cell in planned.cells] == [cell.number for cell in cells]
    assert [cell.seed for cell in planned.cells] == [cell.seed for cell in cells]
    assert len({cell.seed for cell in cells}) == len(cells)
    assert record.status == "completed"
    assert record.search is not None


def test_the_report_reads_it_like_any_run(both):
    place, _ = both["users"].result()
    [found] = capacities_of(open_run(place.run_dir))[0].answers
    assert found.words == f"{SLOTS} users"
    assert "The highest load, in users, that keeps the SLO" in place.report()


def test_a_search_that_ended_has_nothing_left(both):
    place, _ = both["users"].result()
    done = told(place, "search", "--resume", "run")
    assert done.returncode == 0
    assert "every start is finished" in done.stderr
    assert re.match(
        r"reference: not known: an interval needs 3 starts or more; 4 users as measured.* on one start\n",
        done.stdout,
    )


def test_an_interrupted_search_keeps_what_it_measured_and_begins_its_start_anew(both):
    place, interrupted = both["interrupted"].result()
    assert interrupted == 130
    record, cells = store.read_run(place.run_dir), store.read_cells(place.run_dir)
    assert record.status == "completed"
    assert [start.status for start in store.read_starts(place.run_dir)] == ["interrupted", "completed"]
    assert [(cell.start, cell.load.concurrency) for cell in cells] == [
        ("01-reference", 2), ("01-reference", 4), ("02-reference", 2), ("02-reference", 4),
    ]  # fmt: skip
    [found] = capacities_of(open_run(place.run_dir))[0].answers
    assert found.words == "4 users (the highest tried)"


def test_two_mistakes_are_told(tmp_path):
    place = made(tmp_path / "mistakes")
    done = told(place, "search", "engine=reference", "load.concurrency=4", "slo.success=99%")
    assert done.returncode == 2
    assert "search.lowest" in done.stderr
    done = told(place, "search", "engine=reference")
    assert done.returncode == 2
    assert "slo.ttft_s.p95=500ms" in done.stderr
