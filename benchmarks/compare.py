"""Compares what a client reported with what the server did: the client's errors and its cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pinned
from clients import WARMUP_S, Case, Reported

from serving_bench.harness.selftest.known_error import error_s, gap_errors_s, quantiles
from serving_bench.harness.selftest.sends import Served


@dataclass(frozen=True)
class Measured:
    """One client under one case, once. Errors are (median, p99) of the absolute value in seconds.

    `cpu_s_per_token` counts processor time from the first request on, `start_cpu_s` until then. `start_s`:
    from the spawn of the process to the first request's arrival at the server.
    """

    client: str
    case: str
    number: int
    requests: int
    failed: int
    unpaired: int
    tokens: int
    tokens_per_s: float
    ttft_error_s: tuple[float, float] | None
    itl_error_s: tuple[float, float] | None
    e2e_error_s: tuple[float, float] | None
    true_ttft_s: tuple[float, float] | None
    server_late_s: tuple[float, float] | None
    cpu_s_per_token: float | None
    start_cpu_s: float
    start_s: float
    max_rss_bytes: int


def compare(
    client: str,
    case: Case,
    number: int,
    reported: Sequence[Reported],
    answers: dict[str, Served],
    cost: pinned.Cost,
) -> Measured:
    """Return the errors over the requests of the window, and the cost over all requests."""
    arrivals = [each.arrived_ns for each in answers.values() if each.arrived_ns is not None]
    first_ns = min(arrivals)
    start_ns, end_ns = first_ns + int(WARMUP_S * 1e9), first_ns + int((WARMUP_S + case.window_s) * 1e9)
    sent = [each for each in reported if start_ns <= each.start_ns < end_ns]
    pairs = [(each, answers[each.request_id]) for each in sent if each.is_ok and _is_pair(each, answers)]
    tokens = sum(len(each.chunk_ns) for each in reported)
    before_s = cost.cpu_before_s(first_ns)
    return Measured(
        client=client,
        case=case.name,
        number=number,
        requests=len(sent),
        failed=sum(not each.is_ok for each in sent),
        unpaired=sum(each.is_ok for each in sent) - len(pairs),
        tokens=tokens,
        tokens_per_s=_rate(reported, start_ns, end_ns),
        ttft_error_s=quantiles(_ttft_errors(pairs)),
        itl_error_s=quantiles(_itl_errors(pairs)),
        e2e_error_s=quantiles(_e2e_errors(pairs)),
        true_ttft_s=quantiles((there.sent_ns[0] - (there.arrived_ns or 0)) / 1e9 for _, there in pairs),
        server_late_s=quantiles(_lateness(pairs)),
        cpu_s_per_token=(cost.cpu_s - before_s) / tokens if tokens else None,
        start_cpu_s=before_s,
        start_s=(first_ns - cost.spawned_ns) / 1e9,
        max_rss_bytes=cost.max_rss_bytes,
    )


Pair = tuple[Reported, Served]


def _is_pair(here: Reported, answers: dict[str, Served]) -> bool:
    there = answers.get(here.request_id)
    is_whole = there is not None and there.arrived_ns is not None and there.ended_ns is not None
    return there is not None and is_whole and len(there.sent_ns) == len(here.chunk_ns)


def _ttft_errors(pairs: Sequence[Pair]) -> Iterator[float]:
    """Yield the client's seconds from start to first token, less the server's from arrival to sending."""
    for here, there in pairs:
        yield error_s((here.start_ns, here.chunk_ns[0]), (there.arrived_ns or 0, there.sent_ns[0]))


def _itl_errors(pairs: Sequence[Pair]) -> Iterator[float]:
    for here, there in pairs:
        yield from gap_errors_s(here.chunk_ns, there.sent_ns)


def _e2e_errors(pairs: Sequence[Pair]) -> Iterator[float]:
    for here, there in pairs:
        yield error_s((here.start_ns, here.end_ns), (there.arrived_ns or 0, there.ended_ns or 0))


def _lateness(pairs: Sequence[Pair]) -> Iterator[float]:
    for _, there in pairs:
        yield from ((sent - due) / 1e9 for sent, due in zip(there.sent_ns, there.due_ns, strict=True))


def _rate(reported: Sequence[Reported], start_ns: int, end_ns: int) -> float:
    arrived = sum(start_ns <= at_ns < end_ns for each in reported for at_ns in each.chunk_ns)
    return arrived / ((end_ns - start_ns) / 1e9)
