"""One server start: its record, its server up, watched and ready, and what the server says of itself.

Knows no load. Engines are reached through their dict.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines import API_PRICES, ENGINES
from harness.contracts import METRICS_PATH, Engine, LaunchSpec, PlannedStart
from harness.errors import ServerError
from harness.install.builds import uses_devices
from harness.plan.terms import Device, expected
from harness.run.launch import key_of, launch_spec, launched
from harness.run.site import Site
from harness.run.watch import Watch, watch_memory
from harness.sampling import gpu, host
from harness.sampling.sampling import Memory
from harness.servers import probe, server
from harness.store.store import Kept, StartRecord

_log = logging.getLogger(__name__)
_PROMPT_TIMEOUT_S = 60.0
_MEMORY_BACK_S = {"host": 5.0, "device": 10.0}


@dataclass(frozen=True)
class Serving:
    """A start whose server runs. `process` is None for a server that bench did not start."""

    start: PlannedStart
    spec: LaunchSpec
    process: server.Server | None
    watch: Watch
    record: Kept[StartRecord]

    @property
    def engine(self) -> Engine:
        return ENGINES[self.start.deployment.engine]

    @property
    def log_path(self) -> Path:
        return self.record.path.with_name("server.log")

    @property
    def key(self) -> str | None:
        return key_of(self.start.deployment)

    def check(self) -> None:
        """Raise ServerError if the server has exited."""
        if self.process:
            server.check_alive(self.process)


# --- the record ------------------------------------------------------------------------------------


def new_record(start: PlannedStart, site: Site) -> Kept[StartRecord]:
    """Write start.json with what is known before the server is started."""
    deployment, engine = start.deployment, ENGINES[start.deployment.engine]
    weights = site.provisions.weights_of(deployment)
    device: Device = "cuda" if uses_devices(deployment) and site.devices else "cpu"
    facts = weights.facts if weights else None
    record = StartRecord(
        name=start.name,
        index=start.index,
        deployment=deployment,
        repeat=start.repeat,
        status="running",
        attached=deployment.terms.base_url is not None,
        weights={
            "file": weights.path.name,
            "size_bytes": weights.size_bytes,
            "sha256": weights.sha256,
            "note": weights.note,
        }
        if weights
        else {},
        unmatched=dict(engine.unmatched(deployment)),
        forces_length=engine.forces_length(deployment),
        model_facts=facts,
        api_prices=API_PRICES.get(deployment.model, ()),
        memory_expected=expected(deployment, facts, device),
    )
    return Kept(site.run_dir / "starts" / start.name / "start.json", record)


def fail(record: Kept[StartRecord], error: Exception, start: PlannedStart, site: Site) -> None:
    """Record that the start failed, and why."""
    record.update(
        status="failed",
        error=str(error),
        log_tail=error.log_tail if isinstance(error, ServerError) else None,
    )
    site.observer.start_failed(start, str(error))


def wait_for_memory(record: Kept[StartRecord]) -> None:
    """Wait until the memory of a stopped server is back, and record what is not: it matters after a crash."""
    start = record.record
    if start.stopped_ns is None or start.baseline_bytes is None:
        return
    used, timeout_s = _used_memory(start.devices), _MEMORY_BACK_S[start.memory_kind]
    is_back, after_bytes = used.wait(start.baseline_bytes, timeout_s)
    record.update(after_bytes=after_bytes, returned_to_baseline=is_back)


# --- up and down -----------------------------------------------------------------------------------


@contextmanager
def bring_up(start: PlannedStart, site: Site, record: Kept[StartRecord]) -> Iterator[Serving]:
    """Bring the start's server up for a `with` block, watched from its spawn on. It need not be ready yet."""
    devices = site.devices if uses_devices(start.deployment) else ()
    used = _used_memory(devices)
    idle = site.guard.before_start(used, devices, partial(site.observer.start_held, start))
    spec = launch_spec(start, site, record.path.parent, devices)  # its port is free now, not before the wait
    site.observer.start_launches(start)
    record.update(
        memory_kind=used.kind,
        devices=tuple(devices),
        baseline_bytes=idle.used_bytes,
        idle_power_w=idle.power_w,
        idle_power_note=idle.note,
    )
    with (
        launched(start, spec, site, record) as process,
        watch_memory(process.pid if process else None, devices, record) as watch,
    ):
        watch.mark("spawned")
        yield Serving(start, spec, process, watch, record)


# --- ready -----------------------------------------------------------------------------------------


def wait_ready(up: Serving, site: Site) -> None:
    """Block until the server is ready; then record what it says of itself. Raises ServerError."""
    if up.process is None:
        up.record.update(ready_ns=time.monotonic_ns())
    else:
        _wait_started(up, up.process, site)
    up.watch.mark("ready")
    up.watch.ask_server(up.spec.base_url, METRICS_PATH, up.engine.metrics, up.key)
    site.observer.start_ready(up.start, up.record.record.launch_s)
    said, problems = probe.read_said(up.engine, up.spec.base_url, up.log_path, up.key)
    for problem in problems:
        _log.warning(problem)
    version = said.terms.get("engine_version") or up.record.record.version
    up.record.update(
        resolved=dict(said.terms),
        memory_said=dict(said.memory),
        version=None if version is None else str(version),
        prompt_tokens=probe.count_prompt_tokens(
            up.spec.base_url, up.spec.served_model, timeout_s=_PROMPT_TIMEOUT_S, key=up.key
        ),
    )


def _wait_started(up: Serving, process: server.Server, site: Site) -> None:
    """Wait for a server of ours. The record gets the instants of its stages, also if it fails."""

    def reached(stage: str) -> None:
        up.watch.mark(stage)
        site.observer.start_stage(up.start, stage)

    def waits(age_s: float, problem: str) -> None:
        site.observer.line(f"{up.start.name}: still starting after {age_s:.0f} s ({problem})")

    with server.watched_stages(up.log_path, up.engine.stages, reached) as stages:
        try:
            instants = server.wait_ready(process, up.start.deployment.terms.start_timeout_s, waits)
        finally:
            stages.look()
            up.record.update(stages=stages.reached)
    ready_ns = instants.pop("ready")
    up.record.update(ready_ns=ready_ns, stages={**stages.reached, **instants})


def hear_out(up: Serving) -> None:
    """Read the server's last words before it is stopped. Raises ServerError if it died in its last cell."""
    up.check()
    up.watch.mark("stopping")
    # Some of a server's memory comes with load, and its log tells of it only then.
    said, _ = probe.read_said(up.engine, up.spec.base_url, up.log_path, up.key)
    up.record.update(memory_said=dict(said.memory))


def _used_memory(devices: Sequence[int]) -> Memory:
    return gpu.memory(devices) if devices else host.memory()
