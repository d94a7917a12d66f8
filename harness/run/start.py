"""One server start: the server up, watched and ready, what it says of itself, and the start's record.

Knows no load. Engines are reached through their dict.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engines import API_PRICES, ENGINES
from harness.contracts import (
    METRICS_PATH,
    AttachSpec,
    ContainerSpec,
    Deployment,
    Engine,
    LaunchSpec,
    NativeSpec,
    Place,
    PlannedStart,
    masked_argv,
)
from harness.errors import ServerError, UserError
from harness.install.builds import program_of
from harness.install.install import compiled_dir
from harness.install.inventory import version_of
from harness.plan import memory
from harness.run.site import Site
from harness.run.watch import Watch, watch_memory
from harness.sampling import environment, gpu, host
from harness.sampling.guard import Memory, tolerance_bytes
from harness.sampling.sampling import BaselineReturn
from harness.servers import facts, probe, server
from harness.servers.container import running_container
from harness.servers.log import watched_stages
from harness.store.store import Kept, StartRecord

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
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


def key_of(deployment: Deployment) -> str | None:
    """Return the API key from the environment for a running server. One that bench starts gets none."""
    return os.environ.get(deployment.terms.api_key_env) if deployment.terms.base_url else None


# --- the record ------------------------------------------------------------------------------------


def new_record(start: PlannedStart, site: Site) -> Kept[StartRecord]:
    """Write start.json with what is known before the server is started."""
    deployment, engine = start.deployment, ENGINES[start.deployment.engine]
    weights = site.provisions.weights_of(deployment)
    device: memory.Device = "cuda" if site.provisions.devices_of(deployment, site.devices) else "cpu"
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
        memory_expected=memory.expected(deployment, facts, device),
    )
    return Kept(site.run_dir / "starts" / start.name / "start.json", record)


def fail(record: Kept[StartRecord], error: Exception, start: PlannedStart, site: Site) -> None:
    """Record that the start failed, and why."""
    tail = error.log_tail if isinstance(error, ServerError) else None
    record.update(status="failed", error=str(error), log_tail=tail)
    site.observer.start_failed(start, str(error))


def wait_for_memory(record: Kept[StartRecord]) -> None:
    """Wait until the memory of a stopped server is back, and record what is not: it matters after a crash."""
    start = record.record
    if start.stopped_ns is None or start.baseline_bytes is None:
        return
    back = _used_memory(start.devices).wait(start.baseline_bytes, _MEMORY_BACK_S[start.memory_kind])
    above_bytes = back.difference_bytes
    after_bytes = None if above_bytes is None else start.baseline_bytes + above_bytes
    record.update(after_bytes=after_bytes, returned_to_baseline=back.returned)


# --- up and down -----------------------------------------------------------------------------------


@contextmanager
def bring_up(start: PlannedStart, site: Site, record: Kept[StartRecord]) -> Iterator[Serving]:
    """Bring the start's server up for a `with` block, watched from its spawn on. It need not be ready yet."""
    devices = site.provisions.devices_of(start.deployment, site.devices)
    spec = _launch_spec(start, site, record.path.parent, devices)
    used = _used_memory(devices)
    idle = site.guard.before_start(used, devices, partial(site.observer.start_held, start))
    site.observer.start_launches(start)
    record.update(
        memory_kind=used.kind,
        devices=tuple(devices),
        baseline_bytes=idle.used_bytes,
        idle_power_w=idle.power_w,
        idle_power_note=idle.power_note,
    )
    with (
        _process(start, spec, site, record) as process,
        watch_memory(process.pid if process else None, devices, record) as watch,
    ):
        watch.mark("spawned")
        yield Serving(start, spec, process, watch, record)


def _launch_spec(start: PlannedStart, site: Site, scratch: Path, devices: Sequence[int]) -> LaunchSpec:
    deployment = start.deployment
    if deployment.terms.base_url:
        return AttachSpec(deployment.terms.base_url.rstrip("/"), deployment.model)
    weights = site.provisions.weights_of(deployment)
    installed = site.provisions.environment_of(deployment)
    place = Place(
        python=installed.python if installed else None,
        weights=weights.path if weights else None,
        host=_HOST,
        port=server.free_port(_HOST),
        scratch=scratch,
        program=installed.program if installed else None,
        devices=tuple(devices),
        facts=weights.facts if weights else None,
        chat_template=weights.chat_template if weights else None,
        cache=compiled_dir(site.cache_dir, (installed and installed.name) or deployment.engine),
    )
    spec = ENGINES[deployment.engine].launch(deployment, place)
    if not isinstance(spec, NativeSpec) or not devices:
        return spec
    # CUDA is to count the devices as NVML does.
    shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
    return replace(spec, environment={**shown, **spec.environment})


@contextmanager
def _process(
    start: PlannedStart, spec: LaunchSpec, site: Site, record: Kept[StartRecord]
) -> Iterator[server.Server | None]:
    """Start the server, or give None for one that runs already and answers."""
    if isinstance(spec, AttachSpec):
        try:
            probe.probe_attached(spec, key_of(start.deployment))
        except UserError as error:
            raise ServerError(str(error)) from error
        yield None
        return
    running: server.Server | None = None
    try:
        with _started(start, spec, site, record.path.with_name("server.log")) as running:
            image, version = _built(start, spec, site)
            record.update(
                spawned_ns=running.started_ns,
                pid=running.pid,
                argv=masked_argv(running.argv),
                environment=environment.of_server(spec.environment, inherits=isinstance(spec, NativeSpec)),
                image=image,
                version=version,
            )
            yield running
    finally:
        if running and (ended := running.process.ended):
            record.update(stopped_ns=time.monotonic_ns(), exit_code=ended.exit_code)


def _started(
    start: PlannedStart, spec: NativeSpec | ContainerSpec, site: Site, log_path: Path
) -> AbstractContextManager[server.Server]:
    """Start a server of ours, as a process or in a container. Neither gets our API key."""
    label, hints = start.deployment.label, ENGINES[start.deployment.engine].hints
    if isinstance(spec, ContainerSpec):
        return running_container(spec, engine=label, log_path=log_path, state_dir=site.state_dir, hints=hints)
    return server.running_server(
        spec,
        engine=label,
        log_path=log_path,
        state_dir=site.state_dir,
        hints=hints,
        without=(start.deployment.terms.api_key_env,),
    )


def _built(start: PlannedStart, spec: LaunchSpec, site: Site) -> tuple[Mapping[str, str | None], str | None]:
    """Return what identifies a container's image, and the engine's version by its image or environment."""
    if isinstance(spec, ContainerSpec):
        image = site.provisions.images.get(spec.image, {})
        return image, image.get("image_version")
    installed = site.provisions.environment_of(start.deployment)
    versions = installed.versions if installed else {}
    return {}, version_of(start.deployment.engine, program_of(start.deployment), versions)


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
    up.record.update(**_said_by_server(up))


def hear_out(up: Serving) -> None:
    """Read the server's last words before it is stopped. Raises ServerError if it died in its last cell."""
    up.check()
    up.watch.mark("stopping")
    # Some of a server's memory comes with load, and its log tells of it only then.
    said, _ = facts.ask(up.engine, up.spec.base_url, up.log_path, up.key)
    up.record.update(memory_said=dict(said.memory))


def _wait_started(up: Serving, process: server.Server, site: Site) -> None:
    """Wait for a server of ours. The record gets the instants of its stages, also if it fails."""

    def reached(stage: str) -> None:
        up.watch.mark(stage)
        site.observer.start_stage(up.start, stage)

    def waits(age_s: float, problem: str) -> None:
        site.observer.line(f"{up.start.name}: still starting after {age_s:.0f} s ({problem})")

    with watched_stages(up.log_path, up.engine.stages, reached) as stages:
        try:
            startup = server.wait_ready(process, up.start.deployment.terms.start_timeout_s, waits)
        finally:
            stages.look()
            up.record.update(stages=stages.reached)
    instants = {
        "listening": startup.listening_ns,
        "first_token": startup.first_token_ns,
        "steady_token": startup.steady_token_ns,
    }
    seen = {name: t_ns for name, t_ns in instants.items() if t_ns is not None}
    up.record.update(ready_ns=startup.ready_ns, stages={**stages.reached, **seen})


def _said_by_server(up: Serving) -> dict[str, object]:
    """Return what a ready server says of itself, and its count of fixed prompts."""
    said, problems = facts.ask(up.engine, up.spec.base_url, up.log_path, up.key)
    for problem in problems:
        _log.warning(problem)
    counted = probe.count_prompt_tokens(
        up.spec.base_url, up.spec.served_model, timeout_s=_PROMPT_TIMEOUT_S, key=up.key
    )
    stored = {"resolved": dict(said.terms), "prompt_tokens": counted, "memory_said": dict(said.memory)}
    version = said.terms.get("engine_version")
    return stored if version is None else {**stored, "version": str(version)}


def _used_memory(devices: Sequence[int]) -> Memory:
    """Return how the memory that a start will use is looked at."""

    def wait(baseline_bytes: int, timeout_s: float) -> BaselineReturn:
        tolerance = tolerance_bytes(baseline_bytes)
        if devices:
            return gpu.wait_for_baseline(devices, baseline_bytes, tolerance, timeout_s)
        return host.wait_for_baseline(baseline_bytes, tolerance, timeout_s)

    if devices:
        return Memory("device", partial(gpu.measure_idle, devices), wait)
    return Memory("host", host.measure_idle, wait)
