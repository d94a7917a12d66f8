"""What is known of what bounded one cell: the server's samples, the client's record, processor and device.

Gathers numbers; what they mean is told by reports/checks/bounding/bounds.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import Cell, Group
from reports.data.device_windows import device_windows
from reports.data.processor import idle_cores, server_cores, usable_cores
from reports.data.run import Run
from reports.data.served import growth
from reports.measures.caveats import too_few_at_once
from reports.measures.values import measured_of

# A pool is full where less than a twentieth of it is free: engines count in blocks, keep some of them back,
# and vLLM admits no request that would not leave room.
KV_FULL_SHARE = 0.95
# The next in the queue may be any; vLLM with room for two of its requests had the long ones wait with half of
# the pool free.
LONG_REQUEST_PERCENTILE = 90
# What a server serves at once is counted once a second, a moment before or after a request ends.
IN_FLIGHT_SLACK = 0.5


@dataclass(frozen=True)
class Samples:
    """Of a server's samples in a window. `waiting` and `running` are means; shares are of the samples:
    `waited_share` with a request waiting; of those (of all, where none waited) `slots_share` with as many
    running as it serves at once, `kv_full_share` with KV_FULL_SHARE of the KV cache in use or more, and
    `kv_tight_share` with less of it free than a long request takes. None where not told."""

    count: int
    running: float | None
    waiting: float | None
    waited_share: float | None
    slots_share: float | None
    kv_share: float | None
    kv_full_share: float | None
    kv_tight_share: float | None


@dataclass(frozen=True)
class Client:
    """`busiest_cores`: of its load processes the one that used most (1: all of a core). Lags are medians,
    and so is `request_s`, which a request takes."""

    busiest_cores: float | None
    loop_lag_s: float | None
    send_lag_s: float | None
    request_s: float | None
    left_out: int
    begun: int


@dataclass(frozen=True)
class Evidence:
    """Of one cell. `slots`: requests that the server serves at once, None where not known; `users`: of a
    closed loop. `in_flight`: by the client, the mean; `over_slots_share`: of the window's parts in which more
    were in flight than slots. `kv_request_share`: of the KV cache that a long request takes at its end.

    `cores` are what the server's processes kept busy, `idle_cores` the same while nothing was asked,
    `core_limit` the threads or cores there are; `device_pct` is of a device that it ran on, else None.
    """

    cell: Cell
    users: int | None
    slots: int | None
    slots_clause: str | None
    sent: int
    ok: int
    ended: float
    in_flight: float
    over_slots_share: float | None
    is_growing: bool
    samples: Samples
    preemptions: float | None
    kv_request_share: float | None
    client: Client
    cores: float | None
    idle_cores: float | None
    core_limit: float | None
    device_pct: float | None
    is_on_device: bool


def evidence_of(run: Run, group: Group, cell: Cell) -> Evidence | None:
    """Of a cell that counts; None where it has no window, or its start no record."""
    record, steadiness = run.start_of(cell), measured_of(run)[cell.number].steadiness
    if record is None or steadiness is None:
        return None
    slots, clause = _slots(run, group.deployment, record)
    requests = run.window_requests(cell.number)
    per_request = _kv_request_share(requests, record)
    parts = steadiness.in_flight.parts
    is_on_device = record.memory_kind == "device"
    devices = device_windows(run, replace(group, cells=(cell,))) if is_on_device else None
    cores = server_cores(run, cell)
    return Evidence(
        cell=cell,
        users=cell.load.concurrency if cell.load.kind == "closed" else None,
        slots=slots,
        slots_clause=clause,
        sent=len(requests),
        ok=int((requests["outcome"] == "ok").sum()),
        ended=steadiness.ended.mean * (cell.window_s or 0.0),
        in_flight=steadiness.in_flight.mean,
        over_slots_share=None if slots is None else float((parts > slots + IN_FLIGHT_SLACK).mean()),
        is_growing=steadiness.is_growing,
        samples=_samples(run, cell, slots, per_request),
        preemptions=growth(run, cell, "preemptions"),
        kv_request_share=per_request,
        client=_client(run, cell),
        cores=cores,
        idle_cores=idle_cores(run, record),
        core_limit=_core_limit(record, usable_cores(run)),
        device_pct=devices.utilization_pct if devices else None,
        is_on_device=is_on_device,
    )


def _slots(run: Run, label: str, record: StartRecord) -> tuple[int | None, str | None]:
    """Requests that a server serves at once, by its own word, else as it was told, and why not as asked."""
    told = record.resolved.get("concurrent_sequences")
    known = too_few_at_once(run).get(label)
    clause = record.unmatched.get("concurrent_sequences")
    if isinstance(told, int) and not isinstance(told, bool):
        return told, clause
    if known is not None and known.is_one:
        return 1, clause
    return (None if clause or record.attached else record.deployment.terms.concurrent_sequences), clause


def _kv_request_share(requests: pd.DataFrame, record: StartRecord) -> float | None:
    tokens, pool = (
        requests["input_tokens"] + requests["output_tokens"],
        record.resolved.get("kv_cache_tokens"),
    )
    known = tokens.dropna().astype(float)
    if not len(known) or not isinstance(pool, int | float) or pool <= 0:
        return None
    return float(np.percentile(known, LONG_REQUEST_PERCENTILE)) / pool


def _samples(run: Run, cell: Cell, slots: int | None, per_request: float | None) -> Samples:
    frame = run.window_samples(run.server, cell)
    if not len(frame):
        return Samples(0, *[None] * 7)
    terms = frame[["running", "waiting", "kv_cache_usage_share"]].astype(float)
    running, waiting, usage = (terms[name] for name in terms)
    waited = waiting >= 1
    kept = terms[waited] if waited.any() else terms
    tight = None if per_request is None else 1.0 - per_request
    return Samples(
        count=len(frame),
        running=_mean(running),
        waiting=_mean(waiting),
        waited_share=None if waiting.isna().all() else float(waited[waiting.notna()].mean()),
        slots_share=_at_least(kept["running"], slots),
        kv_share=_mean(usage),
        kv_full_share=_at_least(kept["kv_cache_usage_share"], KV_FULL_SHARE),
        kv_tight_share=_at_least(kept["kv_cache_usage_share"], tight),
    )


def _mean(values: "pd.Series[float]") -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None


def _at_least(values: "pd.Series[float]", limit: float | None) -> float | None:
    known = values.dropna()
    return float((known >= limit).mean()) if len(known) and limit is not None else None


def _client(run: Run, cell: Cell) -> Client:
    summary = cell.summary
    assert summary is not None
    lags = run.observations(cell.number, "send_lag_s") if cell.load.kind != "closed" else np.empty(0)
    load_s = cell.load_s
    each = [worker.cpu_s for worker in summary.workers] or [summary.cpu_s]
    return Client(
        busiest_cores=max(each) / load_s if load_s else None,
        loop_lag_s=summary.loop_lag_s[0] if summary.loop_lag_s else None,
        send_lag_s=_median(lags),
        request_s=_median(run.observations(cell.number, "e2e_s")),
        left_out=summary.left_out,
        begun=summary.conversations_begun,
    )


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def _core_limit(record: StartRecord, cores: int | None) -> float | None:
    """Threads that the server computes with, as it says, or the cores there are."""
    threads = record.resolved.get("threads")
    limits = [float(each) for each in (threads, cores) if isinstance(each, int | float) and each > 0]
    return min(limits, default=None)
