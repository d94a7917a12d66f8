"""The results of `bench selftest` in the cache directory: one of each machine that shares it.

Copied into the record of every run on that machine. Knows not how they are measured (harness/selftest.py).
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import msgspec

from harness import host
from harness.contracts import Scalar, SelfTest

# What the client's error depends on.
_MACHINE = ("kernel", "architecture", "cpu_model", "cores_usable", "python")


def keep(cache: Path, result: SelfTest) -> Path:
    """Write a result to the cache's selftest.json instead of an earlier one of the same machine."""
    path = cache / "selftest.json"
    others = [each for each in _stored(path) if each.machine != result.machine]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(msgspec.json.format(msgspec.json.encode([*others, result]), indent=1) + b"\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def find(cache: Path) -> SelfTest | None:
    """The result of this machine under this version of bench; None where there is none."""
    here, now = machine(), version()
    found = (each for each in _stored(cache / "selftest.json") if each.machine == here)
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
