"""Watches one start: the server's process tree, its devices where it has any, and what it tells of itself.

Puts the samplers of host, devices and metrics page together and saves what they saw. Reads neither psutil nor
NVML.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.contracts import ServerMetric, ServerTerm
from harness.sampling import host
from harness.sampling.device_sample import sample_devices
from harness.sampling.guard import Seen
from harness.sampling.process_tree import ProcessTree
from harness.sampling.sampling import Sampling, total
from harness.servers import scrape
from harness.store import store
from harness.store.store import Kept, Phase, StartRecord

# Samples come at 10 Hz, the server's page at 1 Hz: one that is older says nothing of now.
_FRESH_S = 5.0
_OUT_OF_SIGHT = "the server is out of sight: only the machine's memory is known"


@dataclass(frozen=True)
class Now:
    """What the newest samples say, for a person to see. `memory_of` says whose memory it is, in words.

    None: not known, or not lately.
    """

    running: float | None = None
    waiting: float | None = None
    memory_bytes: int | None = None
    memory_of: str | None = None


@dataclass
class Watch:
    """The samplers of one start by name, and its phases. They end with `stack`."""

    samplers: dict[str, Sampling[Any]]
    stack: ExitStack
    record: Kept[StartRecord]
    has_server: bool
    devices: int = 0
    phases: list[Phase] = field(default_factory=list)

    def mark(self, name: str, t_ns: int | None = None) -> None:
        """Note that a phase begins now, from any thread, and read what is costly once.

        With `t_ns` it began at that instant, which must lie in the past, and nothing is read.
        """
        self.phases.append(Phase(name, time.monotonic_ns() if t_ns is None else t_ns))
        if t_ns is None:
            for sampler in list(self.samplers.values()):  # ask_server may add one meanwhile
                sampler.mark()

    def seen(self, since_ns: int, until_ns: int) -> Seen:
        """Return the samples from one instant up to another. Without a device there are none of one."""
        return Seen(self._rows("host", since_ns, until_ns), self._rows("device", since_ns, until_ns))

    def _rows(self, name: str, since_ns: int, until_ns: int) -> list[Any]:
        rows = self.samplers[name].rows() if name in self.samplers else []
        return sorted((row for row in rows if since_ns <= row.t_ns < until_ns), key=lambda row: row.t_ns)

    def now(self) -> Now:
        """Return the newest samples. It costs next to nothing, however many there are."""
        told = self._newest("server")
        running, waiting = (told[0].running, told[0].waiting) if told else (None, None)
        size_bytes, whose = self._memory()
        return Now(running, waiting, size_bytes, whose if size_bytes is not None else None)

    def _memory(self) -> tuple[int | None, str]:
        """Return the server's memory as the report shows it: a device's, else the RSS of its processes."""
        if not self.devices:
            rows = self._newest("host")
            return rows[0].rss_bytes if rows else None, "RSS of its processes"
        # A reading has one row for each device.
        rows = self._newest("device", self.devices)
        if len({row.device for row in rows}) < self.devices:
            return None, ""
        if own := total(row.process_bytes for row in rows):
            return own, "on the device, its own"
        return total(row.used_bytes for row in rows), "on the device, of all"

    def _newest(self, name: str, count: int = 1) -> list[Any]:
        since_ns = time.monotonic_ns() - int(_FRESH_S * 1e9)
        rows = self.samplers[name].last(count) if name in self.samplers else []
        return rows if rows and all(row.t_ns >= since_ns for row in rows) else []

    def ask_server(
        self, base_url: str, path: str, metrics: Mapping[ServerTerm, ServerMetric], key: str | None
    ) -> None:
        """Ask a ready server for its page at `path` once a second, from now on to the watch's end.

        A server without `metrics` is not asked. See scrape.sample_server.
        """
        if metrics:
            sampler = scrape.sample_server(base_url, path, metrics, key=key)
            self.samplers["server"] = self.stack.enter_context(sampler)

    def save(self) -> None:
        """Write {host,device,server}.parquet, whole, and the phases and the samplers' own cost."""
        timing: dict[str, Any] = {}
        notes = {} if self.has_server else {"memory": _OUT_OF_SIGHT}
        for name, sampler in self.samplers.items():
            rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
            store.write_samples(self.record.path.parent / f"{name}.parquet", rows)
            timing |= {f"{name}_{key}": value for key, value in sampler.timing().items()}
            # Why a value is missing, by sampler and field. One of a device begins with the device anyway.
            for missing, reason in sampler.notes.items():
                notes[missing if missing.startswith(f"{name} ") else f"{name} {missing}"] = reason
            if sampler.error:
                notes[f"{name} sampler"] = sampler.error
        phases = tuple(sorted(self.phases, key=lambda phase: phase.t_ns))
        self.record.update(phases=phases, sampler=timing, memory_notes=notes)


@contextmanager
def watch_memory(pid: int | None, devices: Sequence[int], record: Kept[StartRecord]) -> Iterator[Watch]:
    """Sample at 10 Hz while the block runs, and save at its end, however it ends.

    Without a pid it is the machine alone.
    """
    tree = ProcessTree(pid)
    with ExitStack() as stack:
        samplers: dict[str, Sampling[Any]] = {"host": stack.enter_context(host.sample_host(tree))}
        if devices:
            samplers["device"] = stack.enter_context(sample_devices(devices, tree.among))
        watch = Watch(samplers, stack, record, pid is not None, len(devices))
        try:
            yield watch
        finally:
            watch.save()
