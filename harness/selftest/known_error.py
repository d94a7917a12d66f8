"""The results of `bench selftest` in the cache directory: one of each machine and program of the server.

Copied into the record of every run on that machine. Knows not how they are measured
(harness/selftest/selftest.py).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from harness.contracts import Scalar, SelfTest, SelfTestStep
from harness.sampling import host
from harness.whole_files import write_whole

# The error that a latency of some ms can bear.
LIMIT_S = 1e-3
# What the client's error depends on.
_MACHINE = ("kernel", "architecture", "cpu_model", "cores_usable", "python")


def keep(cache: Path, result: SelfTest) -> Path | None:
    """Write a result to the cache's selftest.json: its loads take the place of the same ones measured before.

    That is, by the same version with the same program on the same machine; a result of another version goes.
    None, and nothing is written, where no request of `result` could be judged.
    """
    if all(step.ttft_error_s is None for step in result.steps):
        return None
    path = cache / "selftest.json"
    stored = _stored(path)
    others = [each for each in stored if not _is_replaced(each, result)]
    for before in stored:
        if _is_replaced(before, result) and before.bench_version == result.bench_version:
            result = merged(before, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode([*others, result]), indent=1) + b"\n")
    return path


def _is_replaced(before: SelfTest, result: SelfTest) -> bool:
    return (before.machine, before.program) == (result.machine, result.program)


def merged(before: SelfTest, result: SelfTest) -> SelfTest:
    """All loads of two results, by rising load: the newer `result`'s where both have one.

    Its stamps are the kernel's if those of all were. What stopped it is what stopped the one that came to
    the larger load.
    """
    new = {_load(step) for step in result.steps}
    old = [step for step in before.steps if _load(step) not in new]
    if not old:
        return result
    steps = tuple(sorted([*old, *result.steps], key=_chunks_per_s))
    is_farther = max(map(_chunks_per_s, old)) > max(map(_chunks_per_s, result.steps))
    return replace(
        result,
        steps=steps,
        largest=largest(steps),
        stopped=before.stopped if is_farther else result.stopped,
        stamp_source="kernel" if {before.stamp_source, result.stamp_source} == {"kernel"} else "read",
    )


def _load(step: SelfTestStep) -> tuple[int, float]:
    return step.streams, step.chunks_per_s


def _chunks_per_s(step: SelfTestStep) -> tuple[float, int]:
    """What orders loads: chunks per second of all streams, then the streams."""
    return step.streams * step.chunks_per_s, step.streams


def largest(steps: Sequence[SelfTestStep]) -> tuple[int, float] | None:
    """The load with the most chunks per second among those at which, and at all steps with neither more
    streams nor a higher rate, the p99 of TTFT's error is under LIMIT_S and nothing failed."""
    held = [
        here
        for here in steps
        if all(
            _holds(low)
            for low in steps
            if low.streams <= here.streams and low.chunks_per_s <= here.chunks_per_s
        )
    ]
    most = max(held, key=_chunks_per_s, default=None)
    return _load(most) if most else None


def _holds(step: SelfTestStep) -> bool:
    is_exact = step.ttft_error_s is not None and step.ttft_error_s[1] < LIMIT_S
    return is_exact and step.failed == 0 and step.server_kept_up


def find(cache: Path) -> SelfTest | None:
    """The result of this machine under this version of bench; None where there is none.

    Of two, that of the native reference server, the better judge.
    """
    here, now = machine(), version()
    stored = sorted(_stored(cache / "selftest.json"), key=lambda each: each.program != "native")
    found = (each for each in stored if each.machine == here)
    return next((each for each in found if each.bench_version == now), None)


def _stored(path: Path) -> list[SelfTest]:
    """All results; none where the file is absent, or damaged or another version's: it is made again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[SelfTest])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []


def version() -> str:
    """Of bench, as installed."""
    return importlib.metadata.version("serving-bench")


def machine() -> dict[str, Scalar]:
    """The facts that must be the same for a result to hold."""
    facts = host.machine_facts()
    return {name: facts[name] for name in _MACHINE}
