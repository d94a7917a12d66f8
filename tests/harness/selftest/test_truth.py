"""What the client reported against what the server did, on numbers worked out by hand. Times in ms here."""

import pytest

from serving_bench.harness.contracts import RequestRow
from serving_bench.harness.selftest import known_error
from serving_bench.harness.selftest.sends import ARRIVAL, END, served

MS = 1_000_000


def row(
    request_id: str, chunks_ms: list[float], end_ms: float, outcome="ok", *, sent_ms: float = 0
) -> RequestRow:
    chunk_ns = tuple(int(at_ms * MS) for at_ms in chunks_ms)
    return RequestRow(
        request_id=request_id, user=0, conversation=0, turn=0, outcome=outcome, error=None, scheduled_ns=0,
        sent_ns=int(sent_ms * MS), end_ns=int(end_ms * MS), chunk_ns=chunk_ns, max_tokens=len(chunk_ns),
    )  # fmt: skip


def sends(
    request_id: str, arrived_ms: float, due_and_sent_ms: list[tuple[float, float]], end_ms: float | None
):
    yield request_id, ARRIVAL, 0, int(arrived_ms * MS)
    for chunk, (due_ms, sent_ms) in enumerate(due_and_sent_ms):
        yield request_id, chunk, int(due_ms * MS), int(sent_ms * MS)
    if end_ms is not None:
        yield request_id, END, 0, int(end_ms * MS)


def ms(values: list[float]) -> list[float]:
    return pytest.approx([value / 1e3 for value in values])


def test_errors_are_client_minus_server_per_request_and_per_gap():
    # Sent at 51, 61, 72; arrived at 51.5, 64, 72.25: gaps of 12.5 and 8.25 instead of 10 and 11. The request
    # was sent at 0.75 and came at 1: TTFT 50.75 instead of 50, E2E 74.25 instead of 71.
    answers = served(sends("a", 1, [(51, 51), (61, 61), (71, 72)], 72))
    found = known_error.errors([row("a", [51.5, 64, 72.25], 75, sent_ms=0.75)], answers)
    assert found.ttft_s == ms([0.75])
    assert found.itl_s == ms([2.5, -2.75])
    assert found.e2e_s == ms([3.25])
    assert found.late_s == ms([0, 0, 1])
    assert found.unpaired == 0


@pytest.mark.parametrize("wrong_ms", [-5, 2])
def test_a_start_that_the_client_sets_wrongly_is_an_error_of_ttft_and_e2e(wrong_ms):
    answers = served(sends("a", 10, [(60, 60), (70, 70)], 70))
    found = known_error.errors([row("a", [60, 70], 70, sent_ms=10 + wrong_ms)], answers)
    assert found.ttft_s == found.e2e_s == ms([-wrong_ms])
    assert found.itl_s == ms([0])


def test_interleaved_answers_are_told_apart_by_their_ids():
    a = list(sends("a", 0, [(10, 10), (20, 20)], 20))
    b = list(sends("b", 5, [(15, 16), (25, 26)], 26))
    answers = served([line for pair in zip(a, b, strict=True) for line in pair])
    found = known_error.errors([row("b", [18, 28], 26, sent_ms=5), row("a", [11, 21], 20)], answers)
    assert found.ttft_s == ms([2, 1])
    assert found.itl_s == ms([0, 0])
    assert found.e2e_s == ms([0, 0])


def test_an_id_is_paired_by_what_the_server_keeps_of_it():
    long = "0123456789" * 4
    answers = served(sends(long[:36], 0, [(10, 10)], 10))
    assert known_error.errors([row(long, [11], 12)], answers).ttft_s == ms([1])


def test_of_a_request_that_came_twice_the_last_answer_counts():
    twice = [*sends("a", 0, [(10, 10)], None), *sends("a", 100, [(110, 110), (120, 120)], 120)]
    found = known_error.errors([row("a", [111, 121], 121, sent_ms=100)], served(twice))
    assert found.ttft_s == ms([1])
    assert found.unpaired == 0


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="the server knows nothing of it"),
        pytest.param([*sends("a", 0, [(10, 10)], 20)], id="fewer chunks"),
        pytest.param([*sends("a", 0, [(10, 10), (20, 20), (30, 30)], 30)], id="more chunks"),
        pytest.param([*sends("a", 0, [(10, 10), (20, 20)], None)], id="no end"),
        pytest.param([*sends("a", 0, [(10, 10), (20, 20)], 20)][1:], id="no arrival"),
    ],
)
def test_a_good_request_of_which_the_server_knows_something_else_is_unpaired(lines):
    found = known_error.errors([row("a", [11, 21], 21)], served(lines))
    assert found.unpaired == 1
    assert found.ttft_s == found.itl_s == found.e2e_s == found.late_s == []


def test_failed_requests_have_no_error_and_are_not_unpaired():
    answers = served(sends("a", 0, [(10, 10)], 10))
    found = known_error.errors([row("a", [11], 12, "timeout"), row("b", [], 12, "reset")], answers)
    assert (found.ttft_s, found.unpaired) == ([], 0)


def test_quantiles_are_of_absolute_values_and_by_nearest_rank():
    # Of 200 values the p99 is the 198th.
    values = [-number / 1000 for number in range(1, 201)]
    assert known_error.quantiles(values) == (pytest.approx(0.1005), 0.198)
    assert known_error.quantiles([-3.0]) == (3.0, 3.0)
    assert known_error.quantiles([]) is None
