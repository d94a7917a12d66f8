"""One cell's summary from those of its workers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from harness.contracts import EndedBy, LoadSummary, WorkerSummary

Lag = tuple[float, float, float]
Value = TypeVar("Value")


def merged(summaries: Sequence[LoadSummary], workers: Sequence[WorkerSummary]) -> LoadSummary:
    """`summaries`: of the workers that ended well (one at least), their instants on one clock; `workers`:
    of all, the lost ones too. They began at one instant.

    The window ends with that of the first worker: from then on a part of the load is missing. (In open loop
    all know the instant at which the conversations run out; one that is late may say its duration instead.)
    """
    is_kernel = all(worker.stamp_source == "kernel" for worker in workers)
    return LoadSummary(
        started_ns=min(summary.started_ns for summary in summaries),
        window_start_ns=min(summary.window_start_ns for summary in summaries),
        window_end_ns=min(summary.window_end_ns for summary in summaries),
        ended_ns=max(summary.ended_ns for summary in summaries),
        ended_by=_ended_by(summaries),
        users=sum(summary.users for summary in summaries),
        conversations_begun=sum(summary.conversations_begun for summary in summaries),
        requests=sum(worker.requests for worker in workers),
        stamp_source="kernel" if is_kernel else "read",
        clock_uncertainty_ns=max(_known(worker.clock_uncertainty_ns for worker in workers), default=None)
        if is_kernel
        else None,
        stamp_lag_s=_worst(worker.stamp_lag_s for worker in workers) if is_kernel else None,
        loop_lag_s=_worst(worker.loop_lag_s for worker in workers),
        cpu_s=sum(worker.cpu_s for worker in workers),
        gc_pause_s=sum(worker.gc_pause_s for worker in workers),
        workers=tuple(sorted(workers, key=lambda worker: worker.number)),
        left_out=sum(summary.left_out for summary in summaries),
    )


def _ended_by(summaries: Sequence[LoadSummary]) -> EndedBy:
    """What stopped any of them; else what ended the first window."""
    said = {summary.ended_by for summary in summaries}
    stops: tuple[EndedBy, ...] = ("failures", "interrupted")
    first = min(summaries, key=lambda summary: summary.window_end_ns)
    return next((stop for stop in stops if stop in said), first.ended_by)


def _worst(lags: Iterable[Lag | None]) -> Lag | None:
    """That of the worker with the largest p99."""
    return max(_known(lags), key=lambda lag: lag[1], default=None)


def _known(values: Iterable[Value | None]) -> list[Value]:
    return [value for value in values if value is not None]
