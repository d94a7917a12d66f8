"""Compute bench's own error from what a client reported and what the reference server did.

Keep what self-tests found on this machine, and find it again."""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec

from serving_bench.harness.contracts import AlikeTest, RequestRow, Scalar, SelfTest, SelfTestStep
from serving_bench.harness.sampling import environment
from serving_bench.harness.selftest.sends import ID_LENGTH, Served
from serving_bench.harness.whole_files import write_whole

Stored = TypeVar("Stored")
# Two instants in nanoseconds, from and to.
Span = tuple[int, int]
# bench counts as exact below this error, which is small against the latencies of real servers.
LIMIT_S = 1e-3
# The facts that the client's error depends on.
_MACHINE = ("kernel", "architecture", "cpu_model", "cores_usable", "python")


@dataclass
class Errors:
    """Client minus server, in seconds, signed, over requests that went well.

    The server measures `ttft_s` and `e2e_s` from the request's arrival. `itl_s` has one error for each gap
    between chunks. `late_s`: how late the server sent. `unpaired`: requests that the server does not know, or
    with other chunks.
    """

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    e2e_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    unpaired: int = 0


def errors(rows: Iterable[RequestRow], answers: Mapping[str, Served]) -> Errors:
    """Compare the requests that went well with the server's answers. Leaves out the others."""
    measured = Errors()
    for row in (row for row in rows if row.outcome == "ok"):
        there = answers.get(row.request_id[:ID_LENGTH], Served())
        arrived_ns, ended_ns = there.arrived_ns, there.ended_ns
        is_whole = len(there.sent_ns) == len(row.chunk_ns)
        if row.sent_ns is None or arrived_ns is None or ended_ns is None or not is_whole:
            measured.unpaired += 1
            continue
        measured.ttft_s.append(error_s((row.sent_ns, row.chunk_ns[0]), (arrived_ns, there.sent_ns[0])))
        measured.e2e_s.append(error_s((row.sent_ns, row.end_ns), (arrived_ns, ended_ns)))
        measured.itl_s += gap_errors_s(row.chunk_ns, there.sent_ns)
        measured.late_s += [(sent - due) / 1e9 for sent, due in zip(there.sent_ns, there.due_ns, strict=True)]
    return measured


def error_s(here: Span, there: Span) -> float:
    """Return the client's duration minus the server's, in seconds, each from its own start."""
    return ((here[1] - here[0]) - (there[1] - there[0])) / 1e9


def gap_errors_s(reported_ns: Sequence[int], sent_ns: Sequence[int]) -> list[float]:
    """Return the client's gaps between chunks minus the server's, in seconds."""
    return list(map(error_s, pairwise(reported_ns), pairwise(sent_ns)))


def quantiles(values: Iterable[float]) -> tuple[float, float] | None:
    """Return the median and p99 (nearest rank) of the absolute values; None if there are none."""
    ordered = sorted(map(abs, values))
    if not ordered:
        return None
    return median(ordered), ordered[-(-99 * len(ordered) // 100) - 1]


def keep(cache: Path, result: SelfTest) -> Path | None:
    """Write a result to the cache's selftest.json, and return the file; None if no request could be judged.

    It keeps other loads that the same version and program measured on the same machine, but does not mix
    results of a busy and of a quiet machine. A busy machine's result does not replace a quiet one's; then it
    returns None, too.
    """
    if all(step.ttft_error_s is None for step in result.steps):
        return None
    path = cache / "selftest.json"
    kept: list[SelfTest] = []
    for before in _stored(path, SelfTest):
        if (before.machine, before.program) != (result.machine, result.program):
            kept.append(before)
        elif before.bench_version == result.bench_version:
            if result.is_of_busy_machine and not before.is_of_busy_machine:
                return None
            if before.is_of_busy_machine == result.is_of_busy_machine:
                result = _merged(before, result)
    _write(path, [*kept, result])
    return path


def _merged(before: SelfTest, result: SelfTest) -> SelfTest:
    new = {(step.streams, step.chunks_per_s) for step in result.steps}
    old = [step for step in before.steps if (step.streams, step.chunks_per_s) not in new]
    if not old:
        return result
    steps = tuple(sorted([*old, *result.steps], key=_chunks_per_s))
    is_farther = max(map(_chunks_per_s, old)) > max(map(_chunks_per_s, result.steps))
    return replace(
        result,
        steps=steps,
        largest=largest(steps),
        stopped=before.stopped if is_farther else result.stopped,
        stamp_source="read" if before.stamp_source == "read" else result.stamp_source,
    )


def largest(steps: Iterable[SelfTestStep]) -> tuple[int, float] | None:
    """Return the load with the most chunks per second at which bench is exact; None if there is none.

    bench is exact if, there and at all smaller steps, TTFT's p99 error is under LIMIT_S and nothing failed.
    """
    by_load = sorted(steps, key=_chunks_per_s, reverse=True)
    inexact = [
        step
        for step in by_load
        if step.failed or not step.server_kept_up or (step.ttft_error_s or (0.0, LIMIT_S))[1] >= LIMIT_S
    ]
    for here in by_load:
        if not any(low.streams <= here.streams and low.chunks_per_s <= here.chunks_per_s for low in inexact):
            return here.streams, here.chunks_per_s
    return None


def _chunks_per_s(step: SelfTestStep) -> tuple[float, int]:
    return step.streams * step.chunks_per_s, step.streams


def find(cache: Path) -> SelfTest | None:
    """Return this machine's result under this version. Prefers the native server's, which judges better."""
    here = (machine(), version())
    stored = sorted(_stored(cache / "selftest.json", SelfTest), key=lambda each: each.program != "native")
    return next((each for each in stored if (each.machine, each.bench_version) == here), None)


def keep_alike(cache: Path, result: AlikeTest) -> Path:
    """Write a result to the cache's verdicts.json, and return the file.

    It replaces this machine's earlier one, unless that is of more runs.
    """
    path = cache / "verdicts.json"
    before = find_alike(cache)
    if before is None or before.runs <= result.runs:
        others = (each for each in _stored(path, AlikeTest) if each.machine != result.machine)
        _write(path, [*others, result])
    return path


def find_alike(cache: Path) -> AlikeTest | None:
    """Return how deployments that are the same differ on this machine, by whatever version measured it."""
    return next((e for e in _stored(cache / "verdicts.json", AlikeTest) if e.machine == machine()), None)


def _write(path: Path, results: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def _stored(path: Path, kind: type[Stored]) -> list[Stored]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
    except (FileNotFoundError, ValueError, RecursionError):
        return []


def version() -> str:
    return importlib.metadata.version("serving-bench")


def machine() -> dict[str, Scalar]:
    facts = environment.machine_facts()
    return {name: facts[name] for name in _MACHINE}
