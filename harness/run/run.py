"""The loop: each start of the plan in turn, its server up and watched, its cells measured and stored.

Every record is written as soon as it is known; what is measured is never lost to a later failure. Knows no
engine, no statistic and no terminal: it tells an Observer what happens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from engines import API_PRICES, ENGINES
from harness.contracts import (
    AttachSpec,
    ContainerSpec,
    LaunchSpec,
    NativeSpec,
    Place,
    PlannedCell,
    PlannedStart,
    masked_argv,
)
from harness.errors import BenchError, Interrupted, ServerError, UnfitError, UserError
from harness.fit import fit
from harness.install.builds import program_of
from harness.install.install import compiled_dir
from harness.install.inventory import version_of
from harness.install.provision import Provisions
from harness.run import cell as cells
from harness.run.cell import Site
from harness.run.watch import Watch, watch_memory
from harness.sampling import environment, gpu, host
from harness.sampling.guard import Memory, tolerance_bytes
from harness.sampling.sampling import BaselineReturn, Idle
from harness.servers import probe, server
from harness.servers.container import running_container
from harness.servers.log import watched_stages
from harness.store import store
from harness.store.store import CellRecord, StartRecord

_HOST = "127.0.0.1"
_PROMPT_TIMEOUT_S = 60.0
_FACTS_TIMEOUT_S = 5.0


class Observer(cells.Observer, Protocol):
    """Who shows a run's progress. Calls come from the thread that runs it, but for `start_stage`."""

    def start_begins(self, start: PlannedStart) -> None: ...
    def start_stage(self, start: PlannedStart, stage: str) -> None: ...
    def start_held(self, start: PlannedStart, unfit: str) -> None: ...
    def start_launches(self, start: PlannedStart) -> None: ...
    def start_waits(self, start: PlannedStart, age_s: float, problem: str) -> None: ...
    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None: ...
    def start_failed(self, start: PlannedStart, error: str) -> None: ...


# What a start measures next, given what it has measured; None when it is done.
NextCell = Callable[[PlannedStart, Sequence[CellRecord]], PlannedCell | None]


def planned_cell(start: PlannedStart, done: Sequence[CellRecord]) -> PlannedCell | None:
    """The next of the start's own cells."""
    return start.cells[len(done)] if len(done) < len(start.cells) else None


def run_starts(
    starts: Sequence[PlannedStart],
    provisions: Provisions,
    site: Site,
    observer: Observer,
    next_cell: NextCell = planned_cell,
) -> list[CellRecord]:
    """Measure the cells of all starts, in order; returns their records. Raises Interrupted."""
    records: list[CellRecord] = []
    for start in starts:
        observer.start_begins(start)
        records += _run_start(start, provisions, site, observer, next_cell)
    return records


def _run_start(
    start: PlannedStart, provisions: Provisions, site: Site, observer: Observer, next_cell: NextCell
) -> list[CellRecord]:
    directory = site.run_dir / "starts" / start.name
    directory.mkdir(parents=True, exist_ok=True)
    keeper = _Keeper(directory / "start.json", _first_record(start, provisions, site.devices))
    done: list[CellRecord] = []
    try:
        _measure_start(start, provisions, site, observer, keeper, done, next_cell)
        keeper.update(status="completed")
    except (BenchError, OSError) as error:
        # Not only the server's errors: a device that is lost or a full disk ends this start, not the run.
        tail = error.log_tail if isinstance(error, ServerError) else None
        keeper.update(status="failed", error=str(error), log_tail=tail)
        observer.start_failed(start, str(error))
        found = error.findings if isinstance(error, UnfitError) else ()
        done += cells.fail_rest(start, site, done, str(error), observer, found)
    except Interrupted:
        keeper.update(status="interrupted")
        raise
    if keeper.record.stopped_ns is not None:
        _after_stop(keeper, provisions.devices_of(start.deployment, site.devices))
    return done


class _Keeper:
    """start.json, written anew with every fact that is learnt."""

    def __init__(self, path: Path, record: StartRecord) -> None:
        self.path = path
        self.record = record
        self.update()

    def update(self, **facts: object) -> None:
        self.record = replace(self.record, **facts)  # type: ignore[arg-type]
        store.write_record(self.path, self.record)


def _first_record(start: PlannedStart, provisions: Provisions, devices: Sequence[int]) -> StartRecord:
    engine, weights = ENGINES[start.deployment.engine], provisions.weights_of(start.deployment)
    device: fit.Device = "cuda" if provisions.devices_of(start.deployment, devices) else "cpu"
    described: dict[str, str | int | float | bool | None] = {}
    if weights is not None:
        described = {
            "file": weights.path.name,
            "size_bytes": weights.size_bytes,
            "sha256": weights.sha256,
            "note": weights.note,
        }
    return StartRecord(
        name=start.name,
        index=start.index,
        deployment=start.deployment,
        repeat=start.repeat,
        status="running",
        attached=start.deployment.terms.base_url is not None,
        weights=described,
        unmatched=dict(engine.unmatched(start.deployment)),
        forces_length=engine.forces_length(start.deployment),
        model_facts=weights.facts if weights else None,
        api_prices=API_PRICES.get(start.deployment.model, ()),
        memory_expected=fit.expected(start.deployment, weights.facts if weights else None, device),
    )


def _measure_start(
    start: PlannedStart,
    provisions: Provisions,
    site: Site,
    observer: Observer,
    keeper: _Keeper,
    done: list[CellRecord],
    next_cell: NextCell,
) -> None:
    """Server up, cells, server down; appends each finished cell to `done`."""
    directory = keeper.path.parent
    devices = provisions.devices_of(start.deployment, site.devices)
    spec = _launch_spec(start, provisions, site, directory, devices)
    memory = _memory(devices)
    idle = site.guard.before_start(memory, devices, lambda why: observer.start_held(start, why))
    observer.start_launches(start)
    keeper.update(memory_kind=memory.kind, devices=tuple(devices), **_of_idle(idle))
    with (
        _serving(start, spec, directory, site, provisions, keeper) as running,
        watch_memory(running.pid if running else None, devices, directory, keeper) as watch,
    ):
        watch.mark("spawned")
        _await(start, running, directory, observer, keeper, watch)
        watch.mark("ready")
        engine = ENGINES[start.deployment.engine]
        watch.ask_server(spec.base_url, engine.metrics_path, engine.metrics, _key(start))
        observer.start_ready(start, keeper.record.launch_s)
        keeper.update(**_said_by_server(start, spec, directory))
        while (cell := next_cell(start, done)) is not None:
            cells.check(running)
            done.append(cells.run_cell(start, cell, spec, running, watch, site, observer))
            watch.save()
        cells.check(running)  # one that died in the last cell did not complete its start
        watch.mark("stopping")
        # Some of a server's memory comes with load, and its log tells of it only then.
        keeper.update(memory_said=_memory_said(start, _facts(start, spec), directory))


def _of_idle(idle: Idle) -> dict[str, object]:
    """What a start's record has of the machine before it."""
    return {
        "baseline_bytes": idle.used_bytes,
        "idle_power_w": idle.power_w,
        "idle_power_note": idle.power_note,
    }


def _await(
    start: PlannedStart,
    running: server.Server | None,
    directory: Path,
    observer: Observer,
    keeper: _Keeper,
    watch: Watch,
) -> None:
    """Block until a server of ours is ready; its record gets the instants, also of a start that fails."""
    if running is None:
        keeper.update(ready_ns=time.monotonic_ns())
        return
    log, engine = directory / "server.log", ENGINES[start.deployment.engine]

    def reached(stage: str) -> None:
        observer.start_stage(start, stage)
        watch.mark(stage)

    with watched_stages(log, engine.stages, reached) as stages:
        try:
            startup = server.wait_ready(
                running,
                start.deployment.terms.start_timeout_s,
                lambda age_s, problem: observer.start_waits(start, age_s, problem),
            )
        finally:
            stages.look()
            keeper.update(stages=stages.reached)
    instants = {
        "listening": startup.listening_ns,
        "first_token": startup.first_token_ns,
        "steady_token": startup.steady_token_ns,
    }
    seen = {name: t_ns for name, t_ns in instants.items() if t_ns is not None}
    keeper.update(ready_ns=startup.ready_ns, stages={**stages.reached, **seen})


def _launch_spec(
    start: PlannedStart, provisions: Provisions, site: Site, directory: Path, devices: Sequence[int]
) -> LaunchSpec:
    deployment = start.deployment
    if deployment.terms.base_url:
        return AttachSpec(deployment.terms.base_url.rstrip("/"), deployment.model)
    weights = provisions.weights_of(deployment)
    installed = provisions.environment_of(deployment)
    place = Place(
        python=installed.python if installed else None,
        weights=weights.path if weights else None,
        host=_HOST,
        port=server.free_port(_HOST),
        scratch=directory,
        program=installed.program if installed else None,
        devices=tuple(devices),
        facts=weights.facts if weights else None,
        chat_template=weights.chat_template if weights else None,
        cache=compiled_dir(site.cache_dir, (installed and installed.name) or deployment.engine),
    )
    spec = ENGINES[deployment.engine].launch(deployment, place)
    return _on_devices(spec, devices) if isinstance(spec, NativeSpec) else spec


def _on_devices(spec: NativeSpec, devices: Sequence[int]) -> NativeSpec:
    """With the devices that CUDA is to show the server, counted as NVML counts them."""
    if not devices:
        return spec
    shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
    return replace(spec, environment={**shown, **spec.environment})


@contextmanager
def _serving(
    start: PlannedStart,
    spec: LaunchSpec,
    directory: Path,
    site: Site,
    provisions: Provisions,
    keeper: _Keeper,
) -> Iterator[server.Server | None]:
    """The started server, or None for one that runs already and answers."""
    if isinstance(spec, AttachSpec):
        try:
            probe.probe_attached(spec, _key(start))
        except UserError as error:
            raise ServerError(str(error)) from error
        yield None
        return
    running: server.Server | None = None
    try:
        with _started(start, spec, directory / "server.log", site) as running:
            keeper.update(
                spawned_ns=running.started_ns,
                pid=running.pid,
                argv=masked_argv(running.argv),
                environment=environment.of_server(spec.environment, inherits=isinstance(spec, NativeSpec)),
                image=provisions.images.get(spec.image, {}) if isinstance(spec, ContainerSpec) else {},
                version=_known_version(start, spec, provisions),
            )
            yield running
    finally:
        if running and (ended := running.process.ended):
            keeper.update(stopped_ns=time.monotonic_ns(), exit_code=ended.exit_code)


def _started(
    start: PlannedStart, spec: NativeSpec | ContainerSpec, log_path: Path, site: Site
) -> AbstractContextManager[server.Server]:
    """A server of ours, by the launcher that its specification is of."""
    label, hints = start.deployment.label, ENGINES[start.deployment.engine].hints
    if isinstance(spec, ContainerSpec):
        return running_container(spec, engine=label, log_path=log_path, state_dir=site.state_dir, hints=hints)
    return server.running_server(spec, engine=label, log_path=log_path, state_dir=site.state_dir, hints=hints)


def _key(start: PlannedStart) -> str | None:
    return os.environ.get(start.deployment.terms.api_key_env)


def _known_version(
    start: PlannedStart, spec: NativeSpec | ContainerSpec, provisions: Provisions
) -> str | None:
    """The version as the environment or the image has it."""
    if isinstance(spec, ContainerSpec):
        return provisions.images.get(spec.image, {}).get("image_version")
    installed = provisions.environment_of(start.deployment)
    versions = installed.versions if installed else {}
    return version_of(start.deployment.engine, program_of(start.deployment), versions)


def _said_by_server(start: PlannedStart, spec: LaunchSpec, directory: Path) -> dict[str, object]:
    """What a ready server says of itself: resolved values, its version if it knows it, and its count of fixed
    prompts."""
    facts = _facts(start, spec)
    resolved = dict(ENGINES[start.deployment.engine].resolved(_log_text(directory), facts))
    counted = probe.count_prompt_tokens(
        spec.base_url, spec.served_model, timeout_s=_PROMPT_TIMEOUT_S, key=_key(start)
    )
    said: dict[str, object] = {
        "resolved": resolved,
        "prompt_tokens": counted,
        "memory_said": _memory_said(start, facts, directory),
    }
    version = resolved.get("engine_version")
    return said if version is None else {**said, "version": str(version)}


def _memory_said(start: PlannedStart, facts: dict[str, Any], directory: Path) -> dict[str, int]:
    said = ENGINES[start.deployment.engine].memory_said(_log_text(directory), facts)
    return {str(part): size for part, size in said.items()}


def _log_text(directory: Path) -> str:
    log = directory / "server.log"
    return log.read_text(errors="replace") if log.is_file() else ""


def _facts(start: PlannedStart, spec: LaunchSpec) -> dict[str, Any]:
    """The server's JSON pages by path: by the engine's own client, and what that did not get, over HTTP."""
    engine, key = ENGINES[start.deployment.engine], _key(start)
    read = dict(engine.read_facts(spec.base_url, key, _FACTS_TIMEOUT_S)) if engine.read_facts else {}
    missing = [path for path in engine.fact_paths if path not in read]
    return read | probe.fetch_facts(spec.base_url, missing, timeout_s=_FACTS_TIMEOUT_S, key=key)


def _memory(devices: Sequence[int]) -> Memory:
    """How the guard looks at the memory that a start will use."""

    def measure() -> Idle:
        return gpu.measure_idle(devices) if devices else host.measure_idle()

    def wait(baseline_bytes: int, timeout_s: float) -> BaselineReturn:
        return _wait_for_memory(devices, baseline_bytes, timeout_s)

    return Memory("device" if devices else "host", measure, wait)


def _wait_for_memory(devices: Sequence[int], baseline_bytes: int, timeout_s: float) -> BaselineReturn:
    tolerance = tolerance_bytes(baseline_bytes)
    if devices:
        return gpu.wait_for_baseline(devices, baseline_bytes, tolerance, timeout_s)
    return host.wait_for_baseline(baseline_bytes, tolerance, timeout_s)


def _after_stop(keeper: _Keeper, devices: Sequence[int]) -> None:
    """Wait for the memory to come back, which matters most after a server that crashed."""
    baseline = keeper.record.baseline_bytes
    if baseline is None:
        return
    back = _wait_for_memory(devices, baseline, 10.0 if devices else 5.0)
    above = back.difference_bytes
    after = baseline + above if above is not None else None
    keeper.update(after_bytes=after, returned_to_baseline=back.returned)
