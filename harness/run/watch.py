"""Watches one start: the server's process tree, its devices where it has any, and what it tells of itself.

Puts harness/sampling/host.py, harness/sampling/gpu.py and harness/servers/scrape.py together and saves what
they saw; reads neither psutil nor NVML.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.contracts import ServerMetric, ServerTerm
from harness.sampling import gpu, host
from harness.sampling.device_sample import DeviceSample
from harness.sampling.host import HostSample
from harness.sampling.process_tree import ProcessTree
from harness.sampling.sampling import Sampling
from harness.servers import scrape
from harness.store import store
from harness.store.store import Phase

# Samples come at 10 Hz, the server's page at 1 Hz: one that is older says nothing of now.
_FRESH_S = 5.0
_OUT_OF_SIGHT = "the server is out of sight: only the machine's memory is known"


@dataclass(frozen=True)
class Now:
    """What the newest samples say, for a person to see. `memory_of` says in words whose memory it is. None:
    not known, or not lately."""

    running: float | None = None
    waiting: float | None = None
    memory_bytes: int | None = None
    memory_of: str | None = None


class Keeper(Protocol):
    """Who keeps a start's record."""

    def update(self, **facts: object) -> None: ...


class Watch:
    """The samplers of one start. `mark` names a phase, from any thread; `save` writes what there is."""

    def __init__(
        self,
        samplers: dict[str, Sampling[Any]],
        stack: ExitStack,
        directory: Path,
        keeper: Keeper,
        *,
        has_server: bool,
        devices: int = 0,
    ) -> None:
        self._samplers = samplers
        self._stack = stack
        self._directory = directory
        self._keeper = keeper
        self._phases: list[Phase] = []
        self._has_server = has_server
        self._devices = devices

    def mark(self, name: str, t_ns: int | None = None) -> None:
        """A phase begins now, or began at t_ns, which must lie in the past. Reads what is costly, once."""
        self._phases.append(Phase(name, time.monotonic_ns() if t_ns is None else t_ns))
        if t_ns is None:
            for sampler in list(self._samplers.values()):  # ask_server may add one meanwhile
                sampler.mark(name)

    def host_rows(self, since_ns: int, until_ns: int) -> list[HostSample]:
        return self._rows("host", since_ns, until_ns)

    def device_rows(self, since_ns: int, until_ns: int) -> list[DeviceSample]:
        """Of all devices, in order; none where the start has no device."""
        return self._rows("device", since_ns, until_ns)

    def _rows(self, name: str, since_ns: int, until_ns: int) -> list[Any]:
        rows = self._samplers[name].rows() if name in self._samplers else []
        return sorted((row for row in rows if since_ns <= row.t_ns < until_ns), key=lambda row: row.t_ns)

    def now(self) -> Now:
        """The newest samples; costs next to nothing, however many there are."""
        said = self._newest("server")
        memory_bytes, memory_of = self._memory()
        return Now(
            running=said[0].running if said else None,
            waiting=said[0].waiting if said else None,
            memory_bytes=memory_bytes,
            memory_of=memory_of if memory_bytes is not None else None,
        )

    def _memory(self) -> tuple[int | None, str]:
        """The server's memory as the report shows it over time: a device's, else the RSS of its processes."""
        if not self._devices:
            rows = self._newest("host")
            return rows[0].rss_bytes if rows else None, "RSS of its processes"
        # A reading has one row for each device.
        by_device = {row.device: row for row in self._newest("device", self._devices)}
        if len(by_device) < self._devices:
            return None, ""
        if own := _sum(row.process_bytes for row in by_device.values()):
            return own, "on the device, its own"
        return _sum(row.used_bytes for row in by_device.values()), "on the device, of all"

    def _newest(self, name: str, count: int = 1) -> list[Any]:
        since_ns = time.monotonic_ns() - int(_FRESH_S * 1e9)
        rows = self._samplers[name].last(count) if name in self._samplers else []
        return rows if rows and all(row.t_ns >= since_ns for row in rows) else []

    def ask_server(
        self, base_url: str, path: str, metrics: Mapping[ServerTerm, ServerMetric], key: str | None
    ) -> None:
        """From now on to the watch's end, ask a ready server once a second for what its page at `path` tells;
        see scrape.sample_server. One without `metrics` is not asked."""
        if metrics:
            sampler = scrape.sample_server(base_url, path, metrics, key=key)
            self._samplers["server"] = self._stack.enter_context(sampler)

    def save(self) -> None:
        """Write {host,device,server}.parquet, whole, and the phases and the samplers' own cost."""
        for name, sampler in self._samplers.items():
            rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
            store.write_samples(self._directory / f"{name}.parquet", rows)
        self._keeper.update(
            phases=tuple(sorted(self._phases, key=lambda phase: phase.t_ns)),
            sampler=self._facts(),
            memory_notes=self._notes(),
        )

    def _facts(self) -> dict[str, Any]:
        return {
            f"{name}_{key}": value
            for name, sampler in self._samplers.items()
            for key, value in asdict(sampler.timing()).items()
        }

    def _notes(self) -> dict[str, str]:
        """Why a value is missing, by sampler and field; one of a device begins with the device anyway."""
        said = {} if self._has_server else {"memory": _OUT_OF_SIGHT}
        for name, sampler in self._samplers.items():
            for field, reason in sampler.notes.items():
                said[field if field.startswith(f"{name} ") else f"{name} {field}"] = reason
            if sampler.error:
                said[f"{name} sampler"] = sampler.error
        return said


def _sum(sizes_bytes: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    known = list(sizes_bytes)
    return sum(size for size in known if size is not None) if known and None not in known else None


@contextmanager
def watch_memory(pid: int | None, devices: Sequence[int], directory: Path, keeper: Keeper) -> Iterator[Watch]:
    """Sample at 10 Hz while the block runs; saved at its end, however it ends. pid None: the machine only."""
    tree = ProcessTree(pid)
    with ExitStack() as stack:
        samplers: dict[str, Sampling[Any]] = {"host": stack.enter_context(host.sample_host(tree))}
        if devices:
            samplers["device"] = stack.enter_context(gpu.sample_devices(devices, tree.among))
        watch = Watch(samplers, stack, directory, keeper, has_server=pid is not None, devices=len(devices))
        try:
            yield watch
        finally:
            watch.save()
