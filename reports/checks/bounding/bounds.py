"""What bounded each load point of a run, in one sentence with its evidence; "not clear" without.

The rules are in reports/checks/bounding/bound_rules.py. Draws nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.checks.bounding.bound_evidence import Evidence, evidence_of
from reports.checks.bounding.bound_rules import (
    MOST,
    SPINNING_CORES,
    Kind,
    client_reasons,
    is_busy,
    is_hidden,
    is_kv_full,
    is_kv_tight,
    is_over_slots,
    is_preempted,
    kind_of,
    waited,
    work,
)
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.written import number

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
