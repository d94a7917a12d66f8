"""Maps a worker's CLOCK_MONOTONIC onto the master's, from messages that went there and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.contracts import LoadSummary, RequestRow


@dataclass(frozen=True)
class PingTimes:
    """The master's clock, the worker's, the master's again."""

    sent_ns: int
    worker_ns: int
    received_ns: int

    @property
    def round_trip_ns(self) -> int:
        return self.received_ns - self.sent_ns


@dataclass(frozen=True)
class Offset:
    """`offset_ns` brings a worker's instants onto the master's clock, within `uncertainty_ns`."""

    offset_ns: int
    uncertainty_ns: int


SAME_CLOCK = Offset(0, 0)


def offset_of(pings: Sequence[PingTimes]) -> Offset:
    """From the ping with the smallest round trip; the uncertainty is half of it.

    Wherever in the round trip the worker read its clock, it is no further than that from the middle.
    Source: Cristian, Probabilistic clock synchronization, Distributed Computing 3 (1989).
    """
    best = min(pings, key=lambda ping: ping.round_trip_ns)
    half_ns = -(-best.round_trip_ns // 2)
    return Offset(best.sent_ns + half_ns - best.worker_ns, half_ns)


def offset_before(pings: Sequence[PingTimes], *, is_same_boot: bool) -> Offset:
    """The offset that is used for a cell; none at all where both processes read one clock.

    One boot means one clock unless a container has a time namespace of its own, which the pings show.
    """
    measured = offset_of(pings)
    is_same = is_same_boot and abs(measured.offset_ns) <= measured.uncertainty_ns
    return SAME_CLOCK if is_same else measured


def with_drift(before: Offset, after: Offset) -> Offset:
    """The offset `before`, within what it is off at either end of the cell."""
    drift_ns = abs(after.offset_ns - before.offset_ns)
    return replace(before, uncertainty_ns=max(before.uncertainty_ns, drift_ns + after.uncertainty_ns))


def mapped_row(row: RequestRow, offset_ns: int) -> RequestRow:
    """The row with every instant moved by one offset, so that no duration in it changes."""

    def moved(instant_ns: int | None) -> int | None:
        return None if instant_ns is None else instant_ns + offset_ns

    return replace(
        row,
        scheduled_ns=row.scheduled_ns + offset_ns,
        sent_ns=moved(row.sent_ns),
        first_content_ns=moved(row.first_content_ns),
        last_content_ns=moved(row.last_content_ns),
        end_ns=row.end_ns + offset_ns,
        chunk_ns=tuple(instant_ns + offset_ns for instant_ns in row.chunk_ns),
    )


def mapped_summary(summary: LoadSummary, offset_ns: int) -> LoadSummary:
    """The summary with every instant moved; its workers stay as they are."""
    return replace(
        summary,
        started_ns=summary.started_ns + offset_ns,
        window_start_ns=summary.window_start_ns + offset_ns,
        window_end_ns=summary.window_end_ns + offset_ns,
        ended_ns=summary.ended_ns + offset_ns,
    )
