"""What bounded each load point, in one sentence with its evidence; "not clear" without. Draws nothing.

The first of these whose evidence is there, for more than half of the starts that count:

    client      its process used a whole core, or was late half of the time, or did not begin what was due
    KV cache    most of the time requests waited, and then it was full, or less of it was free than a long
                request takes while slots were free; or requests were put back (preempted)
    slots       most of the time requests waited while as many ran as the server serves at once; or more were
                in flight, by the client, than that
    compute     the processor or the device was busy all the time, with requests for all it serves at once, or
                waiting, or more and more of them in flight
    rate        (open loop) the queue did not grow, and as many ended as came
    users       (closed loop) none waited: each request's own time is what counts
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.checks.bound_evidence import BUSY_SHARE, KV_FULL_SHARE, MOST, Evidence, evidence_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.written import number

__all__ = ["BUSY_SHARE", "KV_FULL_SHARE", "MOST", "Bound", "bound_of"]

Kind = Literal["client", "kv_cache", "slots", "compute", "rate", "users", "unclear"]
WORDS: dict[Kind, str] = {
    "client": "the client",
    "kv_cache": "KV cache full",
    "slots": "slots full",
    "compute": "compute",
    "rate": "arrival rate",
    "users": "users",
    "unclear": "not clear",
}
SPINNING_CORES = 0.05
# With fewer in flight than this share of the slots, a device that runs kernels all the time may still have
# room in each of them.
SLOTS_TAKEN_SHARE = 0.95
# As many ended as came: within a tenth, or by what random numbers in flight at both ends differ.
ENDED_SHARE = 0.9
ENDED_ERRORS = 3.0


@dataclass(frozen=True)
class Bound:
    """What bounded a group. `sentence` is the evidence, without a full stop; `starts` of `of` say so, and the
    rest say `others`."""

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
    """Return what bounded a group; None where no cell of it counts and has a window."""
    found = [each for cell in group.counted if (each := evidence_of(run, group, cell))]
    if not found:
        return None
    kinds = [_kind(each) for each in found]
    counts = Counter(kinds)
    kind, count = counts.most_common(1)[0]
    if 2 * count <= len(found):
        said = ", ".join(f"{n} {WORDS[each]}" for each, n in counts.items())
        return Bound("unclear", f"starts disagree: {said}", len(found), len(found))
    those = [each for each, own in zip(found, kinds, strict=True) if own == kind]
    others = tuple(dict.fromkeys(WORDS[each] for each in kinds if each != kind))
    return Bound(kind, _SAID[kind](those), count, len(found), others)


# --- rules -----------------------------------------------------------------------------------------


def _kind(found: Evidence) -> Kind:
    if found.ok < MOST * found.sent or not found.sent:
        return "unclear"
    return next((kind for kind, holds in _RULES if holds(found)), "unclear")


def _is_client(found: Evidence) -> bool:
    return bool(found.client)


def _is_kv_cache(found: Evidence) -> bool:
    return found.is_preempted or (found.has_waited and found.is_kv_short)


def _is_slots(found: Evidence) -> bool:
    is_full = found.has_waited and (found.slots_share or 0.0) > MOST
    return is_full or (found.over_slots or 0.0) > MOST


def _is_compute(found: Evidence) -> bool:
    if not found.is_busy:
        return False
    if not found.is_closed and not found.has_waited:
        return found.is_growing
    are_taken = found.slots is not None and found.in_flight >= SLOTS_TAKEN_SHARE * found.slots
    return not found.is_on_device or found.has_waited or are_taken


def _is_rate(found: Evidence) -> bool:
    if found.is_closed or found.is_growing or found.has_waited:
        return False
    noise = ENDED_ERRORS * math.sqrt(2 * found.in_flight)
    return found.ended >= found.sent - max((1 - ENDED_SHARE) * found.sent, noise)


def _is_users(found: Evidence) -> bool:
    """Return whether none waited by the server's gauge, or without one whether each user had a slot."""
    users = found.cell.load.concurrency
    if not found.is_closed or users is None:
        return False
    if found.waited_share is not None:
        return not found.has_waited
    return users == 1 or (found.slots is not None and users <= found.slots)


_RULES: tuple[tuple[Kind, Callable[[Evidence], bool]], ...] = (
    ("client", _is_client),
    ("kv_cache", _is_kv_cache),
    ("slots", _is_slots),
    ("compute", _is_compute),
    ("rate", _is_rate),
    ("users", _is_users),
)


# --- sentences -------------------------------------------------------------------------------------


def _over(found: Sequence[Evidence], name: str) -> float | None:
    """Return the mean of a field over starts that have it."""
    known = [value for each in found if (value := getattr(each, name)) is not None]
    return sum(known) / len(known) if known else None


def _count(value: float | None) -> str:
    return number(value) if value is None or value % 1 else f"{value:,.0f}"


def _pct(share: float | None) -> str:
    return number(None if share is None else 100 * share, 0) + " %"


def _waiting(found: Sequence[Evidence]) -> str:
    some = f"some in {_pct(_over(found, 'waited_share'))} of the samples"
    return f"{_count(_over(found, 'waiting'))} requests waited on average ({some})"


def _in_flight(found: Sequence[Evidence]) -> str:
    return f"{_count(_over(found, 'in_flight'))} requests in flight on average"


def _busy(found: Sequence[Evidence]) -> str:
    if found[0].is_on_device:
        return f"the device ran kernels in {_pct((_over(found, 'device_pct') or 0) / 100)} of the time"
    limit, idle = found[0].core_limit, _over(found, "idle_cores") or 0.0
    spins = f", {number(idle, 2)} of them even while idle" if idle >= SPINNING_CORES else ""
    computes = f"{_count(limit)} {'core' if limit == 1 else 'cores'}"
    return f"the server can compute on {computes} and kept {number(_over(found, 'cores'), 2)} busy{spins}"


def _busy_note(found: Sequence[Evidence]) -> str:
    """Return that the processor or device was busy too, or that it does not tell."""
    if all(each.is_busy for each in found):
        return f"; {_busy(found)}"
    if not all(each.is_hidden for each in found):
        return ""
    idle = _over(found, "idle_cores")
    beside = "while idle not sampled" if idle is None else f"{number(idle, 2)} while idle"
    return f"; its processor does not tell: {number(_over(found, 'cores'), 2)} cores busy, {beside}"


def _said_client(found: Sequence[Evidence]) -> str:
    reasons = dict.fromkeys(reason for each in found for reason in each.client)
    return f"the client did not keep up: {'; '.join(reasons)}"


def _said_kv_cache(found: Sequence[Evidence]) -> str:
    parts = []
    if waiting := [each for each in found if each.has_waited and each.is_kv_short]:
        parts.append(
            f"{_waiting(waiting)} while {_pct(_over(waiting, 'kv_share'))} of the KV cache was in use"
        )
        if not any(each.is_kv_full for each in waiting):
            share = _pct(_over(waiting, "kv_request_share"))
            parts[-1] += f", and one request in ten takes {share} of it or more"
    if preempted := [each for each in found if each.is_preempted]:
        times, ended = (sum(getattr(e, name) for e in preempted) for name in ("preemptions", "ended"))
        parts.append(f"{times:,.0f} preemptions while {ended:,.0f} requests ended")
    return "; ".join(parts)


def _said_slots(found: Sequence[Evidence]) -> str:
    slots, clause = found[0].slots, found[0].slots_clause
    parts = [f"the server serves {'one request at a time' if slots == 1 else f'{slots} requests at once'}"]
    if told := [each for each in found if each.has_waited and each.running is not None]:
        parts.append(_waiting(told))
    if over := [each for each in found if (each.over_slots or 0.0) > MOST]:
        parts.append(f"{_count(_over(over, 'in_flight'))} were in flight by the client's count")
    busy = f"; {_busy(found)}" if all(each.is_busy for each in found) else ""
    return "; ".join(parts) + (f" ({clause})" if clause and slots != 1 else "") + busy


def _said_compute(found: Sequence[Evidence]) -> str:
    if any(each.has_waited for each in found):
        return f"{_busy(found)}; {_waiting(found)}"
    closed, grew = f"{_in_flight(found)}, none waited", "requests in flight only became more"
    return f"{_busy(found)}; {closed if found[0].is_closed else grew}"


def _said_rate(found: Sequence[Evidence]) -> str:
    sent, ended = sum(each.sent for each in found), sum(each.ended for each in found)
    return (
        f"requests ended as they came: {sent:,} came and {ended:,.0f} ended; {_in_flight(found)}, and they "
        f"did not become more{_busy_note(found)}"
    )


def _said_users(found: Sequence[Evidence]) -> str:
    users, slots = found[0].cell.load.concurrency, found[0].slots
    room = "" if slots is None else f" of {slots} that the server serves at once"
    who = f"{users} users, {_count(_over(found, 'in_flight'))} in flight{room}"
    who = "one user, one request at a time" if users == 1 else who
    share = _over(found, "waited_share")
    none = f"none waited in {_pct(1 - share)} of the samples" if share else "none waited"
    return f"{who}; {none}: each request's own time is what counts{_busy_note(found)}"


def _said_unclear(found: Sequence[Evidence]) -> str:
    first = found[0]
    if not all(each.sent for each in found):
        return "no request was sent in the window"
    if first.ok < MOST * first.sent:
        ok, sent = sum(each.ok for each in found), sum(each.sent for each in found)
        return f"only {ok:,} of {sent:,} requests were answered well"
    if any(each.has_waited for each in found):
        said = f"{_waiting(found)}, and it is not known for what"
    elif not first.is_closed:
        came = "do not show a queue that only grew, yet fewer ended than came"
        what = "only became more" if first.is_growing else came
        said = f"requests in flight {what}, and none is known to have waited"
    else:
        said = "whether requests waited is not known"
    missing = "; ".join(_missing(first))
    return f"{said}: {missing}" if missing else said


def _missing(found: Evidence) -> Iterator[str]:
    """Yield what would be needed to say more."""
    if not found.samples:
        yield "the server has no page of metrics that was read"
    elif found.kv_share is None:
        yield "the server does not tell how much of its KV cache is in use"
    if found.slots is None:
        yield "how many requests it serves at once is not known"
    if found.is_on_device and found.device_pct is None:
        yield "the device was not sampled"
    if not found.is_on_device and found.work is None:
        yield "the processor it uses, or uses while idle, was not sampled"


_SAID: dict[Kind, Callable[[Sequence[Evidence]], str]] = {
    "client": _said_client,
    "kv_cache": _said_kv_cache,
    "slots": _said_slots,
    "compute": _said_compute,
    "rate": _said_rate,
    "users": _said_users,
    "unclear": _said_unclear,
}
