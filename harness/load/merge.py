"""One cell's summary from those of its workers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from harness.contracts import LoadSummary, WorkerSummary
from harness.load.messages import EndedBy

Lag = tuple[float, float, float]
Value = TypeVar("Value")


def merged(summaries: Sequence[LoadSummary], workers: Sequence[WorkerSummary]) -> LoadSummary:
    """`summaries`: of the workers that ended well (one at least), their instants on one clock; `workers`:
    of all, the lost ones too. They began at one instant."""
    ended_by = _ended_by(summaries)
    is_kernel = all(worker.stamp_source == "kernel" for worker in workers)
    return LoadSummary(
        started_ns=min(summary.started_ns for summary in summaries),
        window_start_ns=min(summary.window_start_ns for summary in summaries),
        window_end_ns=_window_end_ns(summaries, ended_by),
        ended_ns=max(summary.ended_ns for summary in summaries),
        ended_by=ended_by,
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
    )


def _ended_by(summaries: Sequence[LoadSummary]) -> EndedBy:
    """What weighs most of what ended any worker's window; only if all ran out of conversations did they."""
    said = {summary.ended_by for summary in summaries}
    order: tuple[EndedBy, ...] = ("failures", "interrupted", "duration", "conversations")
    return next(reason for reason in order if reason in said)


def _window_end_ns(summaries: Sequence[LoadSummary], ended_by: EndedBy) -> int:
    """The first that was ended early ended the load as it was planned; the last to run out did otherwise."""
    ends_ns = [summary.window_end_ns for summary in summaries if summary.ended_by == ended_by]
    return min(ends_ns) if ended_by in ("failures", "interrupted") else max(ends_ns)


def _worst(lags: Iterable[Lag | None]) -> Lag | None:
    """That of the worker with the largest p99."""
    return max(_known(lags), key=lambda lag: lag[1], default=None)


def _known(values: Iterable[Value | None]) -> list[Value]:
    return [value for value in values if value is not None]
