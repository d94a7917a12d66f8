"""Watches memory beside one start: the server's process tree, and its devices where it has any.

Puts harness/host.py and harness/gpu.py together and saves what they saw; reads neither psutil nor NVML.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from harness import gpu, host, store
from harness.sampling import Sampling
from harness.store import Phase


class Keeper(Protocol):
    """Who keeps a start's record."""

    def update(self, **facts: object) -> None: ...


class Watch:
    """The samplers of one start. `mark` names a phase; `save` writes what there is so far."""

    def __init__(
        self, samplers: dict[str, Sampling[Any]], directory: Path, keeper: Keeper, *, has_server: bool
    ) -> None:
        self._samplers = samplers
        self._directory = directory
        self._keeper = keeper
        self._phases: list[Phase] = []
        self._has_server = has_server

    def mark(self, name: str, t_ns: int | None = None) -> None:
        """A phase begins now, or began at t_ns, which must lie in the past. Reads what is costly, once."""
        self._phases.append(Phase(name, time.monotonic_ns() if t_ns is None else t_ns))
        if t_ns is None:
            for sampler in self._samplers.values():
                sampler.mark(name)

    def save(self) -> None:
        """Write host.parquet and device.parquet, whole, and the phases and the samplers' own cost."""
        for name, sampler in self._samplers.items():
            rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
            store.write_samples(self._directory / f"{name}.parquet", rows)
        self._keeper.update(
            phases=tuple(sorted(self._phases, key=lambda phase: phase.t_ns)),
            sampler=self._facts(),
            memory_note=self._note(),
        )

    def _facts(self) -> dict[str, Any]:
        return {
            f"{name}_{key}": value
            for name, sampler in self._samplers.items()
            for key, value in asdict(sampler.timing()).items()
        }

    def _note(self) -> str | None:
        said = [] if self._has_server else ["the server is out of sight: only the machine's memory is known"]
        for name, sampler in self._samplers.items():
            said += [f"{name}: {field}: {reason}" for field, reason in sampler.notes.items()]
            said += [f"{name}: {sampler.error}"] if sampler.error else []
        return "; ".join(said) or None


@contextmanager
def watch_memory(pid: int | None, devices: Sequence[int], directory: Path, keeper: Keeper) -> Iterator[Watch]:
    """Sample at 10 Hz while the block runs; saved at its end, however it ends. pid None: the machine only."""
    tree = host.ProcessTree(pid)
    with ExitStack() as stack:
        samplers: dict[str, Sampling[Any]] = {"host": stack.enter_context(host.sample_host(tree))}
        if devices:
            samplers["device"] = stack.enter_context(gpu.sample_devices(devices, tree.pids))
        watch = Watch(samplers, directory, keeper, has_server=pid is not None)
        try:
            yield watch
        finally:
            watch.save()
