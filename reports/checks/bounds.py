"""Name what limited each load point, in one sentence with the evidence, or "not clear". Draws nothing.

The first rule of `_kind` that holds names the limit of a start. More than half of the counted starts have to
agree. METHODOLOGY.md (Why) says what evidence each rule needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import LoadSummary
from serving_bench.reports.data import (
    Cell,
    Group,
    Run,
    StartRecord,
    first_that_holds,
    foreign_share,
    grouped,
    growth,
    idle_cores,
    once,
    read_roof,
    server_cores,
    usable_cores,
)
from serving_bench.reports.measures import aggregate, mean, measured_of, number, one_at_a_time
from serving_bench.reports.measures.anatomy import WEIGHTS, anatomies
from serving_bench.reports.measures.memory_parts import alike, mean_parts

WORDS = {
    "others": "other programs",
    "client": "the client",
    "kv_cache": "KV cache full",
    "slots": "slots full",
    "compute": "compute",
    "rate": "arrival rate",
    "users": "users",
    "unclear": "not clear",
}
# The share of the samples or of the window in which a condition has to hold.
MOST = 0.5
# The KV cache is full if less than a twentieth is free: engines count in blocks and keep some back, and vLLM
# admits no request that would not leave room. A long request may wait with half of the pool free.
KV_FULL_SHARE = 0.95
LONG_REQUEST_PERCENTILE = 90
# Preempting one request in a hundred is no more than noise.
PREEMPTED_SHARE = 0.01
# A load process is one thread, so it cannot do more than a whole core. If half of its timers or requests are
# late by a tenth of what a request takes, that changes how many requests there are.
CLIENT_CORES = 0.9
CLIENT_LATE_SHARE = 0.1
# Nearly all: processor time comes in ticks of 10 ms, and 5 % of a core is one in 200 ms.
BUSY_SHARE = 0.95
# The client may count a request a moment longer than the server does.
IN_FLIGHT_SLACK = 0.5
# With fewer requests in flight than this share of the slots, a device that always runs kernels may still have
# room in them.
SLOTS_TAKEN_SHARE = 0.95
# As many requests ended as came: within a tenth, or within the noise of the requests in flight at both ends.
ENDED_SHARE = 0.9
ENDED_ERRORS = 3.0
# What is not known, by the name of the missing evidence.
_UNKNOWN = {
    "waited": "whether requests waited",
    "kv": "how much of the KV cache was in use",
    "slots": "how many requests the server serves at once",
    "work": "how busy its processor or device was",
}


Known = dict[str, float]


@dataclass(frozen=True)
class Bound:
    """What limited a group, with the evidence in a sentence. `starts` of `of` starts agree.

    `unknown`: what evidence is missing; empty if none is.
    """

    kind: str
    evidence: str
    starts: int
    of: int
    unknown: str = ""

    @property
    def sentence(self) -> str:
        """The evidence and what is not known, without a full stop."""
        return "; ".join(filter(None, (self.evidence, self.unknown and f"not known: {self.unknown}")))

    @property
    def agreement(self) -> str:
        """`2 of 3 starts`; empty if all agree."""
        return "" if self.starts == self.of else f"{self.starts} of {self.of} starts"


def bound_of(run: Run, group: Group) -> Bound | None:
    """Return what limited a group; None if no counted cell of it has a window."""
    cell_evidence = [each for cell in group.counted if (each := _evidence(run, cell))]
    if not cell_evidence:
        return None
    by_kind = grouped(cell_evidence, lambda each: _kind(*each))
    kind, limiting = max(by_kind.items(), key=lambda pair: len(pair[1]))
    if 2 * len(limiting) <= len(cell_evidence):
        counts = ", ".join(f"{len(each)} {WORDS[name]}" for name, each in by_kind.items())
        return Bound("unclear", f"starts disagree: {counts}", len(cell_evidence), len(cell_evidence))
    mean = pd.DataFrame([each for each, _ in limiting]).mean()
    late = "; ".join(dict.fromkeys(late for _, late in limiting))
    unknown = ", ".join(words for name, words in _UNKNOWN.items() if np.isnan(mean[name]))
    # Only where the limit is not clear would more evidence help, except that too few requests were ok.
    is_open = kind == "unclear" and not _is_of_few(mean)
    evidence = "; ".join(filter(None, _said(kind, mean, late)))
    return Bound(kind, evidence, len(limiting), len(cell_evidence), unknown if is_open else "")


@once
def bounds_of(run: Run) -> list[tuple[Group, Bound]]:
    return [(group, bound) for group in run.groups if (bound := bound_of(run, group))]


def _evidence(run: Run, cell: Cell) -> tuple[Known, str] | None:
    """Return the evidence on a cell (NaN where unknown), and how the client was late (empty if it was not).
    None without a window or record.

    `waiting` and `kv` are means of the server's samples, and `waited` is a share of them. `slots_full`,
    `kv_full` and `kv_tight` are shares of the samples with a request waiting, or of all samples if none
    waited. `kv_tight`: less of the KV cache is free than `long_request`, the share that a long request takes.
    `in_flight` is the client's count, and `over_slots` the share of the window in which it was above the
    slots. `work` is the busy share of the cores that the server may use, less what it uses while idle, or the
    share of the time that the device ran kernels. `others`: the share of the processor that other programs
    took, if the guard saw them and nothing was free.
    """
    record, steady, summary = run.start_of(cell), measured_of(run)[cell.number].steadiness, cell.summary
    if record is None or steady is None or summary is None:
        return None
    slots, long_request = _slots(run, cell.label, record), _long_request(run, cell, record)
    names = ("running", "waiting", "kv_cache_usage_share")
    running, waiting, usage = (run.window_values("server", cell, name) for name in names)
    waits = waiting >= 1
    kept = waits if waits.any() else np.ones(len(waits), dtype=bool)
    facts = {
        "is_closed": cell.load.kind == "closed",
        "is_on_device": record.memory_kind == "device",
        "users": cell.load.concurrency,
        "at_once": cell.at_once,
        "slots": slots,
        "sent": run.is_counted(cell.number).sum(),
        "ok": run.is_ok(cell.number).sum(),
        "ended": steady.ended.mean() * (cell.window_s or 0.0),
        "in_flight": steady.in_flight.mean(),
        "over_slots": (steady.in_flight > slots + IN_FLIGHT_SLACK).mean(),
        "grows": steady.is_growing,
        "waiting": _mean(waiting),
        "waited": _share_from(waiting, 1),
        "slots_full": _share_from(running[kept], slots),
        "kv": _mean(usage),
        "kv_full": _share_from(usage[kept], KV_FULL_SHARE),
        "kv_tight": _share_from(usage[kept], 1 - long_request),
        "long_request": long_request,
        "preemptions": growth(run, cell, "preemptions"),
        **_work(run, cell, record),
        "others": _others(run, cell),
    }
    numbers = {name: math.nan if value is None else float(value) for name, value in facts.items()}
    return numbers, _late_client(run, cell, summary)


def _mean(values: np.ndarray) -> float:
    """Return the mean of the known values; NaN if there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan


def _share_from(values: np.ndarray, least: float) -> float:
    """Return the share of the known values that are `least` or more; NaN if none is known."""
    return _mean(np.where(np.isnan(values), np.nan, values >= least))


def _long_request(run: Run, cell: Cell, record: StartRecord) -> float:
    pool = record.resolved.get("kv_cache_tokens")
    prompts, answers = (run.values(cell.number, name) for name in ("input_tokens", "output_tokens"))
    lengths = (prompts + answers)[run.is_counted(cell.number)]
    present = lengths[~np.isnan(lengths)]
    if not len(present) or not isinstance(pool, int | float) or pool <= 0:
        return math.nan
    return float(np.percentile(present, LONG_REQUEST_PERCENTILE)) / pool


def _work(run: Run, cell: Cell, record: StartRecord) -> dict[str, float | None]:
    threads = record.resolved.get("threads")
    limits = [float(n) for n in (threads, usable_cores(run)) if isinstance(n, int | float) and n > 0]
    cores, idle, limit = server_cores(run, cell), idle_cores(run, record), min(limits, default=math.nan)
    work = math.nan if cores is None or idle is None else (cores - idle) / limit
    if record.memory_kind == "device":
        cores, work = None, _mean(run.window_values("device", cell, "utilization_pct")) / 100
    return {"cores": cores, "idle": idle, "limit": limit, "work": work}


def _others(run: Run, cell: Cell) -> float | None:
    seen = [(each.kind, each.when) for each in (cell.record.guard if cell.record else ())]
    busy_pct = _mean(run.window_values("host", cell, "machine_cpu_pct"))
    is_full = ("foreign_load", "during") in seen and busy_pct >= 100 * BUSY_SHARE
    return foreign_share(run, cell) if is_full else None


def _slots(run: Run, label: str, record: StartRecord) -> float:
    slots = record.resolved.get("concurrent_sequences")
    if isinstance(slots, int) and not isinstance(slots, bool):
        return slots
    if label in one_at_a_time(run):
        return 1
    is_told = "concurrent_sequences" not in record.unmatched and not record.attached
    return (record.deployment.terms.concurrent_sequences if is_told else None) or math.nan


def _late_client(run: Run, cell: Cell, summary: LoadSummary) -> str:
    takes, lags = (run.observations(cell.number, name) for name in ("e2e_s", "send_lag_s"))
    takes_s = float(np.median(takes)) if len(takes) else math.inf
    lag_s = float(np.median(lags)) if cell.load.kind != "closed" and len(lags) else 0.0
    lag_s = max(lag_s, summary.loop_lag_s[0] if summary.loop_lag_s else 0.0)
    busiest_s = max([worker.cpu_s for worker in summary.workers] or [summary.cpu_s or 0.0])
    cores = busiest_s / (summary.load_s or math.inf)
    reasons = {
        f"its busiest process used {number(cores, 2)} of the one core it can use": cores >= CLIENT_CORES,
        f"half of its timers or requests were {number(1e3 * lag_s)} ms late or more, and a request takes "
        f"{number(1e3 * takes_s, 0)} ms": lag_s > CLIENT_LATE_SHARE * takes_s,
    }
    return "; ".join(text for text, holds in reasons.items() if holds)


def _kind(e: Known, late: str) -> str:
    """Return what limited a start. A comparison with an unknown value (NaN) is never true."""
    is_closed, grows, waited = e["is_closed"] > 0, e["grows"] > 0, e["waited"] > MOST
    no_room = e["kv_full"] > MOST or (e["kv_tight"] > MOST and e["slots_full"] <= MOST and e["slots"] > 0)
    is_preempted = e["preemptions"] >= max(1, PREEMPTED_SHARE * e["ended"])
    is_taken = not e["is_on_device"] or waited or e["in_flight"] >= SLOTS_TAKEN_SHARE * e["slots"]
    noise = max((1 - ENDED_SHARE) * e["sent"], ENDED_ERRORS * math.sqrt(2 * e["in_flight"]))
    has_slot = e["at_once"] == 1 or e["at_once"] <= e["slots"]
    rules = {
        "others": not math.isnan(e["others"]) and not e["work"] >= BUSY_SHARE,
        "unclear": e["ok"] < MOST * e["sent"] or not e["sent"],
        "client": late != "",
        "kv_cache": is_preempted or (waited and no_room),
        "slots": (waited and e["slots_full"] > MOST) or e["over_slots"] > MOST,
        "compute": e["work"] >= BUSY_SHARE and (is_taken if is_closed or waited else grows),
        "rate": not (is_closed or grows or waited) and e["ended"] >= e["sent"] - noise,
        "users": is_closed and (has_slot if math.isnan(e["waited"]) else not waited),
    }
    return first_that_holds(rules) or "unclear"


def _said(kind: str, e: "pd.Series[Any]", late: str) -> Sequence[str]:
    pct = {
        name: f"{number(100 * e[name], 0)} %" for name in ("waited", "kv", "long_request", "work", "others")
    }
    wait = f"{number(e['waiting'])} requests waited on average (some in {pct['waited']} of the samples)"
    wait = wait if e["waited"] > 0 else "none waited" if e["waited"] == 0 else ""
    flight = f"{number(e['in_flight'])} requests in flight on average"
    grew = "these only became more" if e["grows"] == 1 else ""
    ended, sent = f"{e['ended']:,.0f} ended", f"{e['sent']:,.0f}"
    used, idle, limit = number(e["cores"], 2), number(e["idle"], 2), number(e["limit"], 0)
    busy = f"{used} cores busy, {idle} while idle, of {limit} that it computes on"
    if e["is_on_device"]:
        busy = f"the device ran kernels in {pct['work']} of the time"
    words = {
        "client": [f"the client did not keep up: {late}"],
        "unclear": [flight, grew, wait],
        "others": [f"other programs used {pct['others']} of the processor, and none of it was free"],
        "kv_cache": [
            wait,
            f"{pct['kv']} of the KV cache in use" if e["kv"] >= 0 else "",
            f"one request in ten takes {pct['long_request']} of it or more" if e["long_request"] > 0 else "",
            f"{e['preemptions']:,.0f} preemptions while {ended}" if e["preemptions"] >= 1 else "",
        ],
        "slots": [f"the server serves {e['slots']:.0f} at once", flight, wait],
        "compute": [flight, grew, wait],
        "rate": [f"requests ended as they came: {sent} came and {ended}", flight, wait],
        "users": [
            "one user" if e["users"] == 1 else f"{e['users']:.0f} users",
            flight,
            wait,
            "each request's own time counts",
        ],
    }
    if kind == "unclear" and _is_of_few(e):
        few = f"only {e['ok']:,.0f} of {sent} requests were ok"
        return [few if e["sent"] else "no request was sent in the window"]
    is_busy_told = kind not in ("client", "unclear") and not np.isnan(e["work"])
    return [*words[kind], busy if is_busy_told else ""]


def _is_of_few(e: "pd.Series[Any]") -> bool:
    """Return whether most requests of a window failed, or none was sent."""
    return bool(e["ok"] < MOST * e["sent"] or not e["sent"])


# --- decode ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decode:
    """The decode speed at a load, and what the device's memory allows."""

    group: Group
    in_flight: float  # requests, mean
    tpot_s: float  # p50
    weights_gb: float
    roof_gb_per_s: float | None  # the highest bandwidth of the device's memory; None if not known

    @property
    def read_gb_per_s(self) -> float:
        """The rate at which weights are read: a lower bound of the bandwidth used.

        A step gives a request at most one token, and reads all weights of a dense model once for the whole
        batch. Source: the roofline's slope, Williams, Waterman and Patterson 2009.
        """
        return self.weights_gb / self.tpot_s


def decodes_of(run: Run) -> list[Decode]:
    """Return a Decode for each group whose weights, TPOT and requests in flight are known, fewest in flight
    first."""
    decodes = (each for group in run.groups if (each := _decode(run, group)))
    return sorted(decodes, key=lambda each: each.in_flight)


def _decode(run: Run, group: Group) -> Decode | None:
    starts = anatomies(run).get(group.deployment, [])
    weights = mean_parts(alike(starts)).get(WEIGHTS) if starts else None
    tpot_s = aggregate(run, group, "tpot_s.p50").mean
    steady = [measured_of(run)[cell.number].steadiness for cell in group.counted]
    in_flight = mean([float(each.in_flight.mean()) for each in steady if each])
    if not weights or not tpot_s or in_flight is None:
        return None
    roof = read_roof(run, run.starts_of(group.deployment)[0])
    return Decode(group, in_flight, tpot_s, weights.size_bytes / 1e9, roof and roof / 1e9)
