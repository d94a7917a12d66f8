"""What is known of what bounded one cell: the server's samples, the client's record, processor and device."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.samples import device_windows, growth, idle_cores, server_cores, usable_cores
from reports.measures.equal_work import too_few_at_once
from reports.measures.values import measured_of
from reports.measures.written import number

# Of the samples, or of the window: what held less often than not did not bound it.
MOST = 0.5
# Less than a twentieth free: engines count in blocks, keep some of them back, and vLLM admits no request that
# would not leave room. The next in the queue may be any; the long ones wait with half of the pool free.
KV_FULL_SHARE = 0.95
LONG_REQUEST_PERCENTILE = 90
# One in a hundred requests done twice is no more than others' noise.
PREEMPTED_SHARE = 0.01
# A load process is one thread: near a whole core it cannot do more. Half of its timers late, or half of its
# requests, by a tenth of what a request takes: then it bears on how many there are.
CLIENT_CORES = 0.9
CLIENT_LATE_SHARE = 0.1
LEFT_OUT_SHARE = 0.01
# Near all there is: what is left of a core in two seconds of samples is 10 ms in 200.
BUSY_SHARE = 0.95
# What a server serves at once is counted a moment before or after a request ends.
IN_FLIGHT_SLACK = 0.5


@dataclass(frozen=True)
class Evidence:
    """What is known of one cell; None where it was not told.

    `running` and `waiting` are means of the server's samples; `*_share` are shares of the samples: with a
    request waiting, and of those (of all, where none waited) with all slots taken, with the KV cache full,
    and with less of it free than a long request takes. `in_flight` is the client's count, `over_slots` the
    share of the window in which it was above the slots. `cores` are those that the server kept busy,
    `idle_cores` the same while nothing was asked, `core_limit` its threads or the cores there are.
    """

    cell: Cell
    record: StartRecord
    slots: int | None
    slots_clause: str | None
    sent: int
    ok: int
    ended: float
    in_flight: float
    over_slots: float | None
    is_growing: bool
    samples: int
    running: float | None
    waiting: float | None
    waited_share: float | None
    slots_share: float | None
    kv_share: float | None
    kv_full_share: float | None
    kv_tight_share: float | None
    kv_request_share: float | None
    preemptions: float | None
    client: tuple[str, ...]
    cores: float | None
    idle_cores: float | None
    core_limit: float | None
    device_pct: float | None

    @property
    def is_closed(self) -> bool:
        return self.cell.load.kind == "closed"

    @property
    def is_on_device(self) -> bool:
        return self.record.memory_kind == "device"

    @property
    def has_waited(self) -> bool:
        return (self.waited_share or 0.0) > MOST

    @property
    def is_kv_short(self) -> bool:
        """Most of the time the pool was full, or too full for a long request that had a slot."""
        is_tight = (self.kv_tight_share or 0.0) > MOST and self.slots_share is not None
        return self.is_kv_full or (is_tight and (self.slots_share or 0.0) <= MOST)

    @property
    def is_kv_full(self) -> bool:
        return (self.kv_full_share or 0.0) > MOST

    @property
    def is_preempted(self) -> bool:
        return self.preemptions is not None and self.preemptions >= max(1.0, PREEMPTED_SHARE * self.ended)

    @property
    def work(self) -> float | None:
        """Cores beyond those that the server keeps busy without any request."""
        return None if self.cores is None or self.idle_cores is None else self.cores - self.idle_cores

    @property
    def is_busy(self) -> bool:
        if self.is_on_device:
            return (self.device_pct or 0.0) >= 100 * BUSY_SHARE
        return (
            self.work is not None
            and self.core_limit is not None
            and self.work >= BUSY_SHARE * self.core_limit
        )

    @property
    def is_hidden(self) -> bool:
        """True where the processor may be full and its samples do not show it: the thread that spins while
        idle may be the one that computes, or nothing was sampled while idle."""
        if self.is_on_device or self.cores is None or self.core_limit is None:
            return False
        if self.work is None:
            return self.cores >= BUSY_SHARE * self.core_limit
        return (self.idle_cores or 0.0) >= max(MOST, 9 * self.work)


def evidence_of(run: Run, group: Group, cell: Cell) -> Evidence | None:
    """Return the evidence of a cell that counts; None where it has no window, or its start no record."""
    record, steadiness = run.start_of(cell), measured_of(run)[cell.number].steadiness
    if record is None or steadiness is None:
        return None
    slots, clause = _slots(run, group.deployment, record)
    requests = run.window_requests(cell.number)
    per_request = _kv_request_share(requests, record)
    frame = run.window_samples(run.server, cell)
    terms = frame.reindex(columns=["running", "waiting", "kv_cache_usage_share"]).astype(float)
    running, waiting, usage = (terms[name].dropna() for name in terms)
    kept = terms[terms["waiting"] >= 1] if (waiting >= 1).any() else terms
    is_on_device = record.memory_kind == "device"
    devices = device_windows(run, [cell]) if is_on_device else None
    threads = record.resolved.get("threads")
    limits = [float(n) for n in (threads, usable_cores(run)) if isinstance(n, int | float) and n > 0]
    parts = steadiness.in_flight.parts
    return Evidence(
        cell=cell,
        record=record,
        slots=slots,
        slots_clause=clause,
        sent=len(requests),
        ok=int((requests["outcome"] == "ok").sum()),
        ended=steadiness.ended.mean * (cell.window_s or 0.0),
        in_flight=steadiness.in_flight.mean,
        over_slots=None if slots is None else float((parts > slots + IN_FLIGHT_SLACK).mean()),
        is_growing=steadiness.is_growing,
        samples=len(frame),
        running=_mean(running),
        waiting=_mean(waiting),
        waited_share=_mean(waiting >= 1),
        slots_share=_at_least(kept["running"], slots),
        kv_share=_mean(usage),
        kv_full_share=_at_least(kept["kv_cache_usage_share"], KV_FULL_SHARE),
        kv_tight_share=_at_least(
            kept["kv_cache_usage_share"], None if per_request is None else 1.0 - per_request
        ),
        kv_request_share=per_request,
        preemptions=growth(run, cell, "preemptions"),
        client=tuple(_client_reasons(run, cell)),
        cores=server_cores(run, cell),
        idle_cores=idle_cores(run, record),
        core_limit=min(limits, default=None),
        device_pct=devices.utilization_pct if devices else None,
    )


def _mean(values: "pd.Series[Any]") -> float | None:
    return float(values.mean()) if len(values) else None


def _at_least(values: "pd.Series[Any]", limit: float | None) -> float | None:
    return None if limit is None else _mean(values.dropna() >= limit)


def _slots(run: Run, label: str, record: StartRecord) -> tuple[int | None, str | None]:
    """Return the requests that a server serves at once, by its own word, else as it was told; and why not as
    asked."""
    told = record.resolved.get("concurrent_sequences")
    known = too_few_at_once(run).get(label)
    clause = record.unmatched.get("concurrent_sequences")
    if isinstance(told, int) and not isinstance(told, bool):
        return told, clause
    if known is not None and known.is_one:
        return 1, clause
    return (None if clause or record.attached else record.deployment.terms.concurrent_sequences), clause


def _kv_request_share(requests: pd.DataFrame, record: StartRecord) -> float | None:
    """Return the share of the KV cache that a long request takes at its end."""
    known = (requests["input_tokens"] + requests["output_tokens"]).dropna().astype(float)
    pool = record.resolved.get("kv_cache_tokens")
    if not len(known) or not isinstance(pool, int | float) or pool <= 0:
        return None
    return float(np.percentile(known, LONG_REQUEST_PERCENTILE)) / pool


def _client_reasons(run: Run, cell: Cell) -> Iterator[str]:
    """Yield how the client did not keep up."""
    summary = cell.summary
    assert summary is not None
    busiest_s = max([worker.cpu_s for worker in summary.workers] or [summary.cpu_s])
    if cell.load_s and busiest_s / cell.load_s >= CLIENT_CORES:
        yield f"its busiest process used {number(busiest_s / cell.load_s, 2)} of the one core it can"
    takes, lags = (run.observations(cell.number, name) for name in ("e2e_s", "send_lag_s"))
    request_s = float(np.median(takes)) if len(takes) else math.inf
    late = {"timers were": summary.loop_lag_s[0] if summary.loop_lag_s else 0.0}
    late["requests left"] = float(np.median(lags)) if cell.load.kind != "closed" and len(lags) else 0.0
    for what, lag_s in late.items():
        if lag_s > CLIENT_LATE_SHARE * request_s:
            ms, takes_ms = number(1e3 * lag_s), number(1e3 * request_s, 0)
            yield f"half of its {what} {ms} ms late or more, where one takes {takes_ms} ms"
    due = summary.conversations_begun + summary.left_out
    if summary.left_out >= LEFT_OUT_SHARE * due > 0:
        yield f"{summary.left_out:,} of {due:,} conversations that were due never began"
