"""What is known of what bounded one cell: the server's samples, the client's record, processor and device.

Gathers numbers; what they mean is told by reports/checks/bounding/bounds.py.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import Cell, Group
from reports.data.machine import device_windows, idle_cores, server_cores, usable_cores
from reports.data.run import Run
from reports.data.served import growth
from reports.measures.equal_work import too_few_at_once
from reports.measures.values import measured_of
from reports.measures.written import number

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
        running=_series_mean(running),
        waiting=_series_mean(waiting),
        waited_share=None if waiting.isna().all() else float(waited[waiting.notna()].mean()),
        slots_share=_at_least(kept["running"], slots),
        kv_share=_series_mean(usage),
        kv_full_share=_at_least(kept["kv_cache_usage_share"], KV_FULL_SHARE),
        kv_tight_share=_at_least(kept["kv_cache_usage_share"], tight),
    )


def _series_mean(values: "pd.Series[float]") -> float | None:
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


Kind = Literal["client", "kv_cache", "slots", "compute", "rate", "users", "unclear"]
# Of the samples, or of the window: what held less often than not did not bound it.
MOST = 0.5
# One in a hundred requests done twice is no more than others' noise.
PREEMPTED_SHARE = 0.01
# A load process is one thread: near a whole core it cannot do more. Half of its timers late, or half of its
# requests, by a tenth of what a request takes: then it bears on how many there are.
CLIENT_CORES = 0.9
CLIENT_LATE_SHARE = 0.1
LEFT_OUT_SHARE = 0.01
# Near all there is: what is left of a core in two seconds of samples is 10 ms in 200.
BUSY_SHARE = 0.95
SPINNING_CORES = 0.05
# With fewer in flight than this share of the slots, a device that runs kernels all the time may still have
# room in each of them.
SLOTS_TAKEN_SHARE = 0.95
# As many ended as came: within a tenth, or by what random numbers in flight at both ends differ.
ENDED_SHARE = 0.9
ENDED_ERRORS = 3.0


def kind_of(found: Evidence) -> Kind:
    """Of one cell."""
    if found.ok < MOST * found.sent or not found.sent:
        return "unclear"
    return next((kind for kind, holds in _RULES if holds(found)), "unclear")


def is_client(found: Evidence) -> bool:
    return bool(client_reasons(found))


def client_reasons(found: Evidence) -> list[str]:
    client, reasons, late_s = found.client, [], CLIENT_LATE_SHARE * (found.client.request_s or math.inf)
    if client.busiest_cores is not None and client.busiest_cores >= CLIENT_CORES:
        reasons.append(f"its busiest process used {number(client.busiest_cores, 2)} of the one core it can")
    if client.loop_lag_s is not None and client.loop_lag_s > late_s:
        reasons.append(
            f"half of its timers were {number(1e3 * client.loop_lag_s)} ms late or more{_of(client)}"
        )
    if client.send_lag_s is not None and client.send_lag_s > late_s:
        reasons.append(
            f"half of its requests left {number(1e3 * client.send_lag_s)} ms late or more{_of(client)}"
        )
    due = client.begun + client.left_out
    if client.left_out >= LEFT_OUT_SHARE * due > 0:
        reasons.append(f"{client.left_out:,} of {due:,} conversations that were due never began")
    return reasons


def _of(client: Client) -> str:
    return f", where one takes {number(1e3 * (client.request_s or 0.0), 0)} ms"


def is_kv_cache(found: Evidence) -> bool:
    return is_preempted(found) or (waited(found) and (is_kv_full(found) or is_kv_tight(found)))


def is_preempted(found: Evidence) -> bool:
    return found.preemptions is not None and found.preemptions >= max(1.0, PREEMPTED_SHARE * found.ended)


def is_kv_full(found: Evidence) -> bool:
    return (found.samples.kv_full_share or 0.0) > MOST


def is_kv_tight(found: Evidence) -> bool:
    """Too little for a long request, with a slot for it."""
    share = found.samples.slots_share
    return (found.samples.kv_tight_share or 0.0) > MOST and share is not None and share <= MOST


def waited(found: Evidence) -> bool:
    return (found.samples.waited_share or 0.0) > MOST


def is_slots(found: Evidence) -> bool:
    return (waited(found) and (found.samples.slots_share or 0.0) > MOST) or is_over_slots(found)


def is_over_slots(found: Evidence) -> bool:
    """By the client's count, which no server's gauge can be late with."""
    return (found.over_slots_share or 0.0) > MOST


def is_compute(found: Evidence) -> bool:
    if not is_busy(found):
        return False
    if found.cell.load.kind != "closed" and not waited(found):
        return found.is_growing
    return not found.is_on_device or waited(found) or are_slots_taken(found)


def is_busy(found: Evidence) -> bool:
    if found.is_on_device:
        return (found.device_pct or 0.0) >= 100 * BUSY_SHARE
    used, limit = work(found), found.core_limit
    return used is not None and limit is not None and used >= BUSY_SHARE * limit


def work(found: Evidence) -> float | None:
    """Cores beyond those that the server keeps busy without any request; None where that is not known."""
    if found.cores is None or found.idle_cores is None:
        return None
    return found.cores - found.idle_cores


def are_slots_taken(found: Evidence) -> bool:
    return found.slots is not None and found.in_flight >= SLOTS_TAKEN_SHARE * found.slots


def is_rate(found: Evidence) -> bool:
    if found.cell.load.kind == "closed" or found.is_growing or waited(found):
        return False
    noise = ENDED_ERRORS * float(np.sqrt(2 * found.in_flight))
    return found.ended >= found.sent - max((1 - ENDED_SHARE) * found.sent, noise)


def is_users(found: Evidence) -> bool:
    return found.users is not None and did_none_wait(found)


def did_none_wait(found: Evidence) -> bool:
    """By the server's gauge; where it has none, because it serves as many at once as there were users."""
    if found.samples.waited_share is not None:
        return not waited(found)
    return found.users == 1 or (
        found.slots is not None and found.users is not None and found.users <= found.slots
    )


def is_hidden(found: Evidence) -> bool:
    """Whether the processor may be full and its samples do not show it: the thread that spins while idle may
    be the one that computes, or nothing was sampled while idle."""
    if found.is_on_device or found.cores is None or found.core_limit is None:
        return False
    used = work(found)
    if used is None:
        return found.cores >= BUSY_SHARE * found.core_limit
    return (found.idle_cores or 0.0) >= max(MOST, 9 * used)


_RULES: tuple[tuple[Kind, Callable[[Evidence], bool]], ...] = (
    ("client", is_client),
    ("kv_cache", is_kv_cache),
    ("slots", is_slots),
    ("compute", is_compute),
    ("rate", is_rate),
    ("users", is_users),
)


WORDS: dict[Kind, str] = {
    "client": "the client",
    "kv_cache": "KV cache full",
    "slots": "slots full",
    "compute": "compute",
    "rate": "arrival rate",
    "users": "users",
    "unclear": "not clear",
}


@dataclass(frozen=True)
class Bound:
    """Of a group. `sentence` is the evidence, without a full stop. `starts` of `of` say so; `others` are what
    the rest say, in words."""

    kind: Kind
    sentence: str
    starts: int
    of: int
    others: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return WORDS[self.kind]

    @property
    def agreement(self) -> str:
        """`2 of 3 starts; else: slots full`; empty where all agree."""
        if self.starts == self.of:
            return ""
        return f"{self.starts} of {self.of} starts; else: {', '.join(self.others)}"


def bound_of(run: Run, group: Group) -> Bound | None:
    """What bounded a group; None where no cell of it counts and has a window.

    More than half of its starts have to say the same.
    """
    found = [each for cell in group.counted if (each := evidence_of(run, group, cell))]
    if not found:
        return None
    kinds = [kind_of(each) for each in found]
    counts = Counter(kinds)
    kind, count = counts.most_common(1)[0]
    if 2 * count <= len(found):
        said = ", ".join(f"{n} {WORDS[each]}" for each, n in counts.items())
        return Bound("unclear", f"starts disagree: {said}", len(found), len(found))
    those = [each for each, own in zip(found, kinds, strict=True) if own == kind]
    others = tuple(dict.fromkeys(WORDS[each] for each in kinds if each != kind))
    return Bound(kind, _SAID[kind](those), count, len(found), others)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _count(value: float | None) -> str:
    """A mean number of requests."""
    return number(value) if value is None or value % 1 else f"{value:,.0f}"


def _pct(share: float | None) -> str:
    return number(None if share is None else 100 * share, 0) + " %"


def _said_client(found: Sequence[Evidence]) -> str:
    reasons = dict.fromkeys(reason for each in found for reason in client_reasons(each))
    return f"the client did not keep up: {'; '.join(reasons)}"


def _said_kv_cache(found: Sequence[Evidence]) -> str:
    parts = []
    waiting = [each for each in found if waited(each) and (is_kv_full(each) or is_kv_tight(each))]
    if waiting:
        used = _pct(_mean([each.samples.kv_share for each in waiting]))
        parts.append(f"{_waiting(waiting)} while {used} of the KV cache was in use")
        if not any(map(is_kv_full, waiting)):
            share = _pct(_mean([each.kv_request_share for each in waiting]))
            parts[-1] += f", and one request in ten takes {share} of it or more"
    if preempted := [each for each in found if is_preempted(each)]:
        times = sum(each.preemptions or 0.0 for each in preempted)
        ended = sum(each.ended for each in preempted)
        parts.append(f"{times:,.0f} preemptions while {ended:,.0f} requests ended")
    return "; ".join(parts)


def _waiting(found: Sequence[Evidence]) -> str:
    waiting = _mean([each.samples.waiting for each in found])
    share = _mean([each.samples.waited_share for each in found])
    return f"{_count(waiting)} requests waited on average (some in {_pct(share)} of the samples)"


def _said_slots(found: Sequence[Evidence]) -> str:
    slots = found[0].slots
    clause = found[0].slots_clause
    at_once = "one request at a time" if slots == 1 else f"{slots} requests at once"
    parts = [f"the server serves {at_once}"]
    if told := [each for each in found if waited(each) and each.samples.running is not None]:
        parts.append(_waiting(told))
    if over := [each for each in found if is_over_slots(each)]:
        parts.append(
            f"{_count(_mean([each.in_flight for each in over]))} were in flight by the client's count"
        )
    said = "; ".join(parts) + (f" ({clause})" if clause and slots != 1 else "")
    return said + _busy_note(found)


def _said_compute(found: Sequence[Evidence]) -> str:
    if any(map(waited, found)):
        rest = _waiting(found)
    elif found[0].cell.load.kind == "closed":
        rest = f"{_in_flight(found)}, none waited"
    else:
        rest = "requests in flight only became more"
    return f"{_busy(found)}; {rest}"


def _busy(found: Sequence[Evidence]) -> str:
    if found[0].is_on_device:
        return (
            f"the device ran kernels in {_pct((_mean([e.device_pct for e in found]) or 0) / 100)} of the time"
        )
    used, limit = _mean([each.cores for each in found]), found[0].core_limit
    idle = _mean([each.idle_cores for each in found]) or 0.0
    spins = f", {number(idle, 2)} of them even while idle" if idle >= SPINNING_CORES else ""
    computes = "core" if limit == 1 else "cores"
    return f"the server can compute on {_count(limit)} {computes} and kept {number(used, 2)} busy{spins}"


def _busy_note(found: Sequence[Evidence]) -> str:
    return f"; {_busy(found)}" if all(map(is_busy, found)) else ""


def _processor_note(found: Sequence[Evidence]) -> str:
    """That it was busy too, or that it does not tell."""
    return _busy_note(found) or (_spin_note(found) if all(map(is_hidden, found)) else "")


def _spin_note(found: Sequence[Evidence]) -> str:
    used, idle = (_mean([getattr(each, name) for each in found]) for name in ("cores", "idle_cores"))
    beside = "while idle not sampled" if idle is None else f"{number(idle, 2)} while idle"
    return f"; its processor does not tell: {number(used, 2)} cores busy, {beside}"


def _in_flight(found: Sequence[Evidence]) -> str:
    return f"{_count(_mean([each.in_flight for each in found]))} requests in flight on average"


def _said_rate(found: Sequence[Evidence]) -> str:
    sent, ended = sum(each.sent for each in found), sum(each.ended for each in found)
    return (
        f"requests ended as they came: {sent:,} came and {ended:,.0f} ended; {_in_flight(found)}, and they "
        f"did not become more{_processor_note(found)}"
    )


def _said_users(found: Sequence[Evidence]) -> str:
    users, slots = found[0].users, found[0].slots
    if users == 1:
        who = "one user, one request at a time"
    else:
        room = "" if slots is None else f" of {slots} that the server serves at once"
        who = f"{users} users, {_count(_mean([each.in_flight for each in found]))} in flight{room}"
    share = _mean([each.samples.waited_share for each in found])
    none = f"none waited in {_pct(1 - share)} of the samples" if share else "none waited"
    return f"{who}; {none}: each request's own time is what counts{_processor_note(found)}"


def _said_unclear(found: Sequence[Evidence]) -> str:
    first = found[0]
    if not all(each.sent for each in found):
        return "no request was sent in the window"
    if first.ok < MOST * first.sent:
        return (
            f"only {sum(e.ok for e in found):,} of {sum(e.sent for e in found):,} requests were answered well"
        )
    if any(map(waited, found)):
        missing = _missing(first)
        return f"{_waiting(found)}, and it is not known for what{f': {missing}' if missing else ''}"
    if first.cell.load.kind != "closed":
        grew, came = "only became more", "do not show a queue that only grew, yet fewer ended than came"
        what = grew if first.is_growing else came
        return f"requests in flight {what}, and none is known to have waited{_tail(first)}"
    return f"whether requests waited is not known{_tail(first)}"


def _tail(found: Evidence) -> str:
    missing = _missing(found)
    return f": {missing}" if missing else ""


def _missing(found: Evidence) -> str:
    """What would be needed to say more."""
    said = []
    if not found.samples.count:
        said.append("the server has no page of metrics that was read")
    elif found.samples.kv_share is None:
        said.append("the server does not tell how much of its KV cache is in use")
    if found.slots is None:
        said.append("how many requests it serves at once is not known")
    if found.is_on_device and found.device_pct is None:
        said.append("the device was not sampled")
    if not found.is_on_device and work(found) is None:
        said.append("the processor it uses, or uses while idle, was not sampled")
    return "; ".join(said)


_SAID: dict[Kind, Callable[[Sequence[Evidence]], str]] = {
    "client": _said_client,
    "kv_cache": _said_kv_cache,
    "slots": _said_slots,
    "compute": _said_compute,
    "rate": _said_rate,
    "users": _said_users,
    "unclear": _said_unclear,
}
