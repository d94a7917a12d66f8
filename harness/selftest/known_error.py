"""Keep the results of `bench selftest` in the cache directory: one of each machine and program of the server.

The record of every run on that machine gets a copy. Knows nothing of how they are measured.
"""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from harness.contracts import Scalar, SelfTest, SelfTestStep
from harness.sampling import environment
from harness.whole_files import write_whole

# An error that a latency of some milliseconds can bear.
LIMIT_S = 1e-3
# What the client's error depends on.
_MACHINE = ("kernel", "architecture", "cpu_model", "cores_usable", "python")


def keep(cache: Path, result: SelfTest) -> Path | None:
    """Write a result to the cache's selftest.json, and return the file.

    Loads that the same version measured before, with the same program on the same machine, stay if `result`
    has not measured them again. A result of another version goes. If no request of `result` could be judged,
    nothing is written and None returned.
    """
    if all(step.ttft_error_s is None for step in result.steps):
        return None
    path = cache / "selftest.json"
    kept: list[SelfTest] = []
    for each in _stored(path):
        if (each.machine, each.program) != (result.machine, result.program):
            kept.append(each)
        elif each.bench_version == result.bench_version:
            result = merged(each, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode([*kept, result]), indent=1) + b"\n")
    return path


def merged(before: SelfTest, result: SelfTest) -> SelfTest:
    """Return all loads of two results, by rising load, and the newer `result`'s of those that both have.

    Its stamps are the kernel's if those of both were. What stopped it is what stopped the one that came to
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
    """Return what orders loads: chunks per second of all streams, then the streams."""
    return step.streams * step.chunks_per_s, step.streams


def largest(steps: Sequence[SelfTestStep]) -> tuple[int, float] | None:
    """Return the load with the most chunks per second at which bench is exact, None if there is none.

    Exact at a load: the p99 of TTFT's error is under LIMIT_S and nothing failed, there and at all steps with
    neither more streams nor a higher rate.
    """
    failed = [
        step
        for step in steps
        if step.ttft_error_s is None
        or step.ttft_error_s[1] >= LIMIT_S
        or step.failed
        or not step.server_kept_up
    ]
    held = [
        here
        for here in steps
        if not any(low.streams <= here.streams and low.chunks_per_s <= here.chunks_per_s for low in failed)
    ]
    most = max(held, key=_chunks_per_s, default=None)
    return _load(most) if most else None


def find(cache: Path) -> SelfTest | None:
    """Return the result of this machine under this version of bench, None if there is none.

    Of two, it is that of the native reference server, the better judge.
    """
    here = (machine(), version())
    stored = sorted(_stored(cache / "selftest.json"), key=lambda each: each.program != "native")
    return next((each for each in stored if (each.machine, each.bench_version) == here), None)


def _stored(path: Path) -> list[SelfTest]:
    """Read all results; none if the file is absent, damaged or of another format: it is made again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[SelfTest])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []


def version() -> str:
    """Return the version of bench that is installed."""
    return importlib.metadata.version("serving-bench")


def machine() -> dict[str, Scalar]:
    """Return the facts that must be the same for a result to hold."""
    facts = environment.machine_facts()
    return {name: facts[name] for name in _MACHINE}
