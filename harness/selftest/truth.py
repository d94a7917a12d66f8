"""Compare what a client reported with what the reference server did, request by request. Pure.

Both stamp with the same machine's CLOCK_MONOTONIC. Knows neither how the load was made nor where the server's
record comes from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from harness.contracts import RequestRow

# (request id, number of the content chunk, due_ns, sent_ns), as the reference server records them. These two
# numbers stand for the arrival of the request and for the end of the answer.
Send = tuple[str, int, int, int]
ARRIVAL = 0xFFFFFFFF
END = 0xFFFFFFFE
# Two instants in nanoseconds, from and to.
Span = tuple[int, int]
# The server keeps no more of a request's id.
ID_LENGTH = 36


@dataclass
class Served:
    """One answer as the server made it: when the request came, when each content chunk was due and was sent,
    and when the answer's end was sent. None: it was not."""

    arrived_ns: int | None = None
    due_ns: list[int] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    ended_ns: int | None = None


def served(sends: Iterable[Send]) -> dict[str, Served]:
    """Return the answers by request id; of a request that came twice under one id, the last."""
    answers: dict[str, Served] = {}
    for request_id, chunk, due_ns, sent_ns in sends:
        if chunk == ARRIVAL:
            answers[request_id] = Served(arrived_ns=sent_ns)
            continue
        answer = answers.setdefault(request_id, Served())
        if chunk == END:
            answer.ended_ns = sent_ns
        else:
            answer.due_ns.append(due_ns)
            answer.sent_ns.append(sent_ns)
    return answers


@dataclass
class Errors:
    """Client minus server, in seconds, signed, over requests that went well.

    `ttft_s` and `e2e_s` have a value of each request: on the server they run from the request's arrival.
    `itl_s` has one of each gap between chunks. `late_s` is how late the server sent each chunk. `unpaired`
    are requests of which the server knows nothing, or another number of chunks.
    """

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    e2e_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    unpaired: int = 0


def errors(rows: Iterable[RequestRow], answers: Mapping[str, Served]) -> Errors:
    """Compare the requests that went well with the server's answers. The others are left out."""
    found = Errors()
    for row in rows:
        if row.outcome != "ok":
            continue
        there = answers.get(row.request_id[:ID_LENGTH], Served())
        arrived_ns, ended_ns = there.arrived_ns, there.ended_ns
        is_whole = len(there.sent_ns) == len(row.chunk_ns)
        if row.sent_ns is None or arrived_ns is None or ended_ns is None or not is_whole:
            found.unpaired += 1
            continue
        found.ttft_s.append(error_s((row.sent_ns, row.chunk_ns[0]), (arrived_ns, there.sent_ns[0])))
        found.e2e_s.append(error_s((row.sent_ns, row.end_ns), (arrived_ns, ended_ns)))
        found.itl_s += gap_errors_s(row.chunk_ns, there.sent_ns)
        found.late_s += [(sent - due) / 1e9 for sent, due in zip(there.sent_ns, there.due_ns, strict=True)]
    return found


def error_s(here: Span, there: Span) -> float:
    """Return a duration as the client has it minus the server's, in seconds.

    Each runs from its own start: a latency's are the sending of the request and its arrival at the server. So
    a client that sets its start wrongly is wrong, and the way of the request counts against it.
    """
    return ((here[1] - here[0]) - (there[1] - there[0])) / 1e9


def gap_errors_s(reported_ns: Sequence[int], sent_ns: Sequence[int]) -> list[float]:
    """Return each gap between chunks as the client has it minus the server's, in seconds."""
    return list(map(error_s, pairwise(reported_ns), pairwise(sent_ns)))


def quantiles(values: Iterable[float]) -> tuple[float, float] | None:
    """Return the median and p99 (nearest rank) of the absolute values, None without any."""
    ordered = sorted(abs(value) for value in values)
    if not ordered:
        return None
    return median(ordered), ordered[-(-99 * len(ordered) // 100) - 1]
