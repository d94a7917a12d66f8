"""Worker clocks on the master's axis: numbers worked out by hand."""

from __future__ import annotations

from itertools import pairwise

from load_process import row

from harness.load.synchronize import (
    SAME_CLOCK,
    Offset,
    PingTimes,
    mapped_row,
    offset_before,
    offset_of,
    with_drift,
)

# The worker's clock is 1000 behind. There and back take 30 and 10, then 200 and 100, then 5 and 5.
PINGS = [
    PingTimes(sent_ns=5000, worker_ns=4030, received_ns=5040),
    PingTimes(sent_ns=6000, worker_ns=5200, received_ns=6300),
    PingTimes(sent_ns=7000, worker_ns=6005, received_ns=7010),
]


def test_the_quickest_ping_gives_the_offset_within_half_its_round_trip() -> None:
    assert offset_of(PINGS) == Offset(offset_ns=1000, uncertainty_ns=5)


def test_the_true_offset_lies_within_the_uncertainty_of_every_ping() -> None:
    for ping in PINGS:
        offset = offset_of([ping])
        assert abs(offset.offset_ns - 1000) <= offset.uncertainty_ns


def test_an_odd_round_trip_is_rounded_up() -> None:
    # All of the 7 ns may have been spent on one way.
    for worker_ns in (100, 107):
        offset = offset_of([PingTimes(sent_ns=100, worker_ns=worker_ns, received_ns=107)])
        assert abs(offset.offset_ns) <= offset.uncertainty_ns == 4


def test_one_boot_is_one_clock() -> None:
    pings = [PingTimes(sent_ns=100, worker_ns=103, received_ns=120)]
    assert offset_before(pings, is_same_boot=True) == SAME_CLOCK
    assert offset_before(pings, is_same_boot=False) == Offset(7, 10)


def test_one_boot_with_two_clocks_is_noticed() -> None:
    assert offset_before(PINGS, is_same_boot=True) == Offset(1000, 5)


def test_what_the_clocks_drift_apart_is_uncertain() -> None:
    assert with_drift(Offset(1000, 5), Offset(1030, 4)) == Offset(1000, 34)
    assert with_drift(Offset(1000, 50), Offset(990, 4)) == Offset(1000, 50)


def test_a_row_moves_as_a_whole() -> None:
    before, after = row(), mapped_row(row(), -7)
    assert (after.scheduled_ns, after.sent_ns, after.end_ns) == (3, 5, 48)
    assert (after.first_content_ns, after.last_content_ns, after.chunk_ns) == (13, 43, (13, 24, 43))
    gaps = [b - a for a, b in pairwise(before.chunk_ns)]
    assert [b - a for a, b in pairwise(after.chunk_ns)] == gaps


def test_what_did_not_happen_stays_so() -> None:
    failed = row(sent_ns=None, first_content_ns=None, last_content_ns=None, chunk_ns=())
    moved = mapped_row(failed, 1_000_000)
    assert (moved.sent_ns, moved.first_content_ns, moved.last_content_ns, moved.chunk_ns) == (None,) * 3 + (
        (),
    )
