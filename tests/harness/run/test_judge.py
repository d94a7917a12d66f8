"""What a cell's requests make of it."""

from dataclasses import replace

import make_run
from make_run import S

from serving_bench.harness.contracts import Load, WorkerSummary, quoted
from serving_bench.harness.run.cell import judged
from serving_bench.harness.store.request_table import Tally
from serving_bench.harness.store.store import CellRecord

GOOD = Tally(requests=100, sent=80, failed=0, messages={}, window_messages={}, ok=100, ended=80)
REFUSED = "connect_error: refused"


def last_failed(count: int) -> list[tuple[int, bool]]:
    """The last 100 requests, of which so many failed."""
    return [(0, place < count) for place in range(100)]


def record(load_summary, load: Load | None = None) -> CellRecord:
    plan = make_run.plan_of([make_run.deployment("vllm", "awq")], [load or Load(1)])
    cell = plan.starts[0].cells[0]
    return CellRecord(
        number=0, start="00-vllm", deployment="vllm awq", repeat=0, scenario=cell.scenario, load=cell.load,
        seed=7, status="completed", summary=load_summary,
    )  # fmt: skip


def texts(cell: CellRecord) -> tuple[str, ...]:
    return tuple(map(str, cell.reasons))


def test_a_cell_of_good_requests_is_valid():
    before = record(make_run.summary(S))
    assert judged(before, GOOD) == before


def test_a_cell_that_failed_already_keeps_its_reason():
    before = replace(record(None), status="failed", error=quoted("the server died"))
    assert judged(before, replace(GOOD, sent=0)) == before


def test_some_failures_make_it_suspect_and_nothing_else_makes_it_fail():
    found = judged(record(make_run.summary(S)), replace(GOOD, failed=79, window_messages={REFUSED: 79}))
    assert (found.status, found.validity) == ("completed", "suspect")
    assert texts(found) == ("79 of 80 requests in the window failed",)
    found = judged(record(make_run.summary(S)), replace(GOOD, failed=80, window_messages={REFUSED: 80}))
    assert (found.status, str(found.error)) == ("failed", f"no request in the window succeeded; {REFUSED}")


def test_a_window_without_requests_is_suspect():
    found = judged(record(make_run.summary(S)), replace(GOOD, sent=0))
    assert (found.status, found.validity) == ("completed", "suspect")
    [reason] = texts(found)
    assert "no request was sent in the window of " in reason
    said = "requests sent before it outlasted it, and its tokens/s are of them; give a longer load.duration"
    assert f"{said}, such as 60s" in reason


def test_a_window_that_grew_is_told_to_be_longer_than_it_grew():
    whole = make_run.summary(S)
    grown = replace(whole, window_end_ns=whole.window_start_ns + 40 * S)
    [reason] = texts(judged(record(grown), replace(GOOD, sent=0)))
    assert reason.endswith("give a longer load.duration, such as 80s")


def test_a_window_in_which_no_request_ended_is_suspect():
    found = judged(record(make_run.summary(S)), replace(GOOD, ended=0))
    assert (found.status, found.validity) == ("completed", "suspect")
    assert texts(found) == (
        "no request ended in the window of 8 s: its tokens/s are of requests that outlast it; give a longer "
        "load.duration, such as 60s",
    )


def test_a_cell_without_a_good_request_is_a_failure():
    idle = judged(record(replace(make_run.summary(S), requests=0)), replace(GOOD, sent=0, ok=0))
    assert (idle.status, idle.validity) == ("failed", "valid")
    assert "no request was sent in the window of 8 s: none was due" in str(idle.error)
    refused = judged(record(make_run.summary(S)), replace(GOOD, sent=0, ok=0, messages={REFUSED: 9}))
    assert f"{REFUSED} before it; give" in str(refused.error)


def test_conversations_that_were_cut_make_it_suspect():
    found = judged(record(make_run.summary(S, cut_conversations=2, cut_turns=5)), GOOD)
    assert (found.status, found.validity) == ("completed", "suspect")
    assert texts(found) == ("2 conversations not finished within load.grace: 5 turns cut",)


def test_a_load_that_was_stopped_for_its_failures_says_how_many_and_which():
    stopped = record(make_run.summary(S, ended_by="failures"), Load(1, max_failed_share=0.1))
    tally = replace(GOOD, failed=11, messages={"timeout: after 2 s": 3, REFUSED: 8})
    found = judged(stopped, tally)
    assert found.status == "failed"
    said = "stopped: more of the last requests failed than load.max_failed=10% allows"
    assert str(found.error) == f"{said}; commonest: {REFUSED}"


def test_what_one_of_several_workers_stopped_for_is_said_of_that_one():
    """It judged its own last requests; those of the whole cell may have failed less often."""
    stopped = record(make_run.summary(S, ended_by="failures"), Load(4, max_failed_share=0.1, workers=2))
    found = judged(stopped, replace(GOOD, failed=11, messages={REFUSED: 11}))
    said = (
        "stopped: more of the last requests of one of 2 load workers failed than load.max_failed=10% allows"
    )
    assert str(found.error) == f"{said}; commonest: {REFUSED}"


def test_conversations_that_never_began_make_it_suspect():
    found = judged(record(make_run.summary(S, left_out=12)), GOOD)
    assert (found.status, found.validity) == ("completed", "suspect")
    [reason] = texts(found)
    assert reason.startswith("12 conversations due before the window's end never began")


def test_a_client_that_stood_still_makes_it_suspect():
    found = judged(record(make_run.summary(S, stalled_s=3.0)), GOOD)
    assert (found.status, found.validity) == ("completed", "suspect")
    assert texts(found) == ("bench itself stood still for 3 s of the window of 8 s",)
    assert judged(record(make_run.summary(S, stalled_s=0.39)), GOOD).validity == "valid"


def test_one_long_stall_makes_it_suspect_however_long_the_window():
    still = make_run.summary(S, duration_s=600.0, stalled_s=3.0, loop_lag_s=(0.0, 0.001, 2.99))
    assert texts(judged(record(still), GOOD)) == ("bench itself stood still for 3 s at a stretch",)
    assert judged(record(replace(still, loop_lag_s=(0.0, 0.001, 0.9))), GOOD).validity == "valid"


def test_a_long_stall_of_any_worker_or_in_reading_alone_makes_it_suspect():
    whole = make_run.summary(S, duration_s=600.0, loop_lag_s=(0.0, 0.01, 0.02))
    still = WorkerSummary(1, 12, 9, "kernel", 70, None, (0.0, 0.001, 2.99), 1.0, 0.0)
    found = judged(record(replace(whole, workers=(still,))), GOOD)
    assert texts(found) == ("bench itself stood still for 3 s at a stretch",)
    late = replace(whole, stamp_lag_s=(0.0, 0.001, 2.99))
    assert texts(judged(record(late), GOOD)) == ("bench itself read what had arrived up to 3 s late",)
    assert judged(record(replace(late, stamp_lag_s=(0.0, 0.001, 0.9))), GOOD).validity == "valid"


def test_a_load_that_a_signal_ended_is_a_failure():
    found = judged(record(make_run.summary(S, ended_by="interrupted")), GOOD)
    assert str(found.error) == "the load process was ended by a signal"


def test_fewer_conversations_than_asked_for_make_it_suspect():
    ended = make_run.summary(S, ended_by="conversations", conversations_begun=10)
    batch = Load(concurrency=None, arrival="batch", conversations=64, duration_s=None)
    found = judged(record(ended, batch), GOOD)
    assert found.validity == "suspect"
    assert texts(found) == ("load.conversations=64: 10 began, since the scenario has no more",)
    assert judged(record(ended, replace(batch, conversations=10)), GOOD).reasons == ()
    assert judged(record(replace(ended, ended_by="duration"), batch), GOOD).reasons == ()
