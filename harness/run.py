"""The loop: each start of the plan in turn, its server up and watched, its cells measured and stored.

Every record is written as soon as it is known; what is measured is never lost to a later failure. Knows no
engine, no statistic and no terminal: it tells an Observer what happens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from engines import ENGINES
from harness import gpu, host, judge, probe, server, store, tokens
from harness.contracts import (
    AttachSpec,
    LaunchSpec,
    LoadJob,
    LoadSummary,
    NativeSpec,
    Place,
    PlannedCell,
    PlannedStart,
    WeightsFile,
)
from harness.errors import BenchError, Interrupted, ServerError, UserError
from harness.load.processes import Progress, read_summary, run_load
from harness.provision import Provisions
from harness.store import CellRecord, StartRecord
from harness.watch import Watch, watch_memory

_HOST = "127.0.0.1"


class Observer(Protocol):
    """Who shows a run's progress. All calls come from the thread that runs it."""

    def start_begins(self, start: PlannedStart) -> None: ...
    def start_waits(self, start: PlannedStart, age_s: float, problem: str) -> None: ...
    def start_ready(self, start: PlannedStart, launch_s: float | None) -> None: ...
    def start_failed(self, start: PlannedStart, error: str) -> None: ...
    def cell_begins(self, start: PlannedStart, cell: PlannedCell) -> None: ...
    def cell_progress(self, cell: PlannedCell, progress: Progress) -> None: ...
    def cell_ends(self, start: PlannedStart, record: CellRecord) -> None: ...


@dataclass(frozen=True)
class Site:
    """Where a run takes place: its directory, the state directory that all runs share, device indices."""

    run_dir: Path
    state_dir: Path
    devices: tuple[int, ...]


def run_starts(
    starts: Sequence[PlannedStart], provisions: Provisions, site: Site, observer: Observer
) -> list[CellRecord]:
    """Measure the cells of all starts, in order; returns their records. Raises Interrupted."""
    records: list[CellRecord] = []
    for start in starts:
        observer.start_begins(start)
        records += _run_start(start, provisions, site, observer)
    return records


def _run_start(
    start: PlannedStart, provisions: Provisions, site: Site, observer: Observer
) -> list[CellRecord]:
    directory = site.run_dir / "starts" / start.name
    directory.mkdir(parents=True, exist_ok=True)
    keeper = _Keeper(directory / "start.json", _first_record(start, provisions.weights_of(start.deployment)))
    cells: list[CellRecord] = []
    try:
        _measure_start(start, provisions, site, observer, keeper, cells)
        keeper.update(status="completed")
    except (BenchError, OSError) as error:
        # Not only the server's errors: a device that is lost or a full disk ends this start, not the run.
        tail = error.log_tail if isinstance(error, ServerError) else None
        keeper.update(status="failed", error=str(error), log_tail=tail)
        observer.start_failed(start, str(error))
        cells += _fail_rest(start, site, cells, str(error), observer)
    except Interrupted:
        keeper.update(status="interrupted")
        raise
    if keeper.record.stopped_ns is not None:
        _after_stop(keeper, provisions.devices_of(start.deployment, site.devices))
    return cells


class _Keeper:
    """start.json, written anew with every fact that is learnt."""

    def __init__(self, path: Path, record: StartRecord) -> None:
        self.path = path
        self.record = record
        self.update()

    def update(self, **facts: object) -> None:
        self.record = replace(self.record, **facts)  # type: ignore[arg-type]
        store.write_record(self.path, self.record)


def _first_record(start: PlannedStart, weights: WeightsFile | None) -> StartRecord:
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
    )


def _measure_start(
    start: PlannedStart,
    provisions: Provisions,
    site: Site,
    observer: Observer,
    keeper: _Keeper,
    cells: list[CellRecord],
) -> None:
    """Server up, cells, server down; appends each finished cell to `cells`."""
    directory = keeper.path.parent
    devices = provisions.devices_of(start.deployment, site.devices)
    spec = _launch_spec(start, provisions, directory)
    baseline = _baseline_bytes(devices)
    keeper.update(memory_kind="device" if devices else "host", baseline_bytes=baseline)
    with _serving(start, spec, directory, site, keeper) as running:
        pid = running.pid if running else None
        with watch_memory(pid, devices, directory, keeper) as watch:
            watch.mark("spawned")
            if running:
                server.wait_ready(
                    running,
                    start.deployment.terms.start_timeout_s,
                    lambda age_s, problem: observer.start_waits(start, age_s, problem),
                )
            keeper.update(ready_ns=time.monotonic_ns())
            watch.mark("ready")
            observer.start_ready(start, keeper.record.launch_s)
            keeper.update(resolved=_resolved(start, spec, directory))
            for cell in start.cells:
                _check(running)
                cells.append(_run_cell(start, cell, spec, running, watch, site, observer))
                watch.save()
            _check(running)  # one that died in the last cell did not complete its start
            watch.mark("stopping")


def _launch_spec(start: PlannedStart, provisions: Provisions, directory: Path) -> LaunchSpec:
    deployment = start.deployment
    if deployment.terms.base_url:
        return AttachSpec(deployment.terms.base_url.rstrip("/"), deployment.model)
    weights = provisions.weights_of(deployment)
    environment = provisions.environment_of(deployment)
    place = Place(
        python=environment.python if environment else None,
        weights=weights.path if weights else None,
        host=_HOST,
        port=server.free_port(_HOST),
        scratch=directory,
        program=environment.program if environment else None,
    )
    return ENGINES[deployment.engine].launch(deployment, place)


@contextmanager
def _serving(
    start: PlannedStart, spec: LaunchSpec, directory: Path, site: Site, keeper: _Keeper
) -> Iterator[server.Server | None]:
    """The started server, or None for one that runs already and answers."""
    if isinstance(spec, AttachSpec):
        try:
            probe.probe_attached(spec, _key(start))
        except UserError as error:
            raise ServerError(str(error)) from error
        yield None
        return
    assert isinstance(spec, NativeSpec)
    engine = start.deployment.engine
    running: server.Server | None = None
    try:
        with server.running_server(
            spec,
            engine=start.deployment.label,
            log_path=directory / "server.log",
            state_dir=site.state_dir,
            hints=ENGINES[engine].hints,
        ) as running:
            keeper.update(spawned_ns=running.started_ns, pid=running.pid)
            yield running
    finally:
        if running and (ended := running.process.ended):
            keeper.update(stopped_ns=time.monotonic_ns(), exit_code=ended.exit_code)


def _key(start: PlannedStart) -> str | None:
    return os.environ.get(start.deployment.terms.api_key_env)


def _check(running: server.Server | None) -> None:
    if running:
        server.check_alive(running)


def _resolved(
    start: PlannedStart, spec: LaunchSpec, directory: Path
) -> Mapping[str, str | int | float | bool | None]:
    engine = ENGINES[start.deployment.engine]
    log = directory / "server.log"
    facts = probe.fetch_facts(spec.base_url, engine.fact_paths, key=_key(start))
    return dict(engine.resolved(log.read_text(errors="replace") if log.is_file() else "", facts))


def _baseline_bytes(devices: Sequence[int]) -> int | None:
    return gpu.baseline_bytes(devices) if devices else host.baseline_bytes()


def _after_stop(keeper: _Keeper, devices: Sequence[int]) -> None:
    """Wait for the memory to come back, which matters most after a server that crashed."""
    baseline = keeper.record.baseline_bytes
    tolerance = max(128 << 20, int(0.02 * (baseline or 0)))
    back = (
        gpu.wait_for_baseline(devices, baseline, tolerance, 10.0)
        if devices
        else host.wait_for_baseline(baseline or 0, tolerance, 5.0)
    )
    above = back.difference_bytes
    after = baseline + above if baseline is not None and above is not None else None
    keeper.update(after_bytes=after, returned_to_baseline=back.returned)


# --- one cell --------------------------------------------------------------------------------------


def _run_cell(
    start: PlannedStart,
    cell: PlannedCell,
    spec: LaunchSpec,
    running: server.Server | None,
    watch: Watch,
    site: Site,
    observer: Observer,
) -> CellRecord:
    """Play one cell and store it; its record says how it went. Raises Interrupted, stored."""
    directory = store.begin_cell(site.run_dir, cell.number)
    job = _job(start, cell, spec, directory)
    record = _cell_record(start, cell)
    observer.cell_begins(start, cell)
    watch.mark(f"cell {cell.number:03d} warm-up")
    try:
        summary = run_load(
            job,
            directory,
            site.state_dir,
            lambda progress: observer.cell_progress(cell, progress),
            lambda: _check(running),
        )
        _check(running)
    except (BenchError, OSError) as error:
        return _keep(site, job, replace(record, status="failed", error=str(error)), None, observer, start)
    except Interrupted:
        _keep(site, job, replace(record, status="interrupted", error="interrupted"), None, observer, start)
        raise
    try:
        watch.mark(f"cell {cell.number:03d} window", summary.window_start_ns)
        watch.mark(f"cell {cell.number:03d} drain", summary.window_end_ns)
        return _keep(site, job, record, summary, observer, start)
    except Interrupted:
        # The load had ended well: what it measured is kept, though the interrupt came while it was written.
        if not (directory / "cell.json").is_file():
            _keep(site, job, record, summary, observer, start)
        raise


def _job(start: PlannedStart, cell: PlannedCell, spec: LaunchSpec, directory: Path) -> LoadJob:
    deployment = start.deployment
    return LoadJob(
        cell=f"{cell.number:03d}",
        base_url=spec.base_url,
        model=spec.served_model,
        api_key_env=deployment.terms.api_key_env,
        engine=deployment.engine,
        engine_options=store.as_mapping(deployment.options),
        fairness=deployment.terms.fairness,
        scenario=cell.scenario.name,
        scenario_options=store.as_mapping(cell.scenario.options),
        load=cell.load,
        seed=cell.seed,
        rows_path=str(directory / "rows.jsonl"),
        summary_path=str(directory / "summary.json"),
        begun_path=str(directory / "begun.jsonl"),
    )


def _cell_record(start: PlannedStart, cell: PlannedCell) -> CellRecord:
    return CellRecord(
        number=cell.number,
        start=start.name,
        deployment=start.deployment.label,
        repeat=cell.repeat,
        scenario=cell.scenario,
        load=cell.load,
        seed=cell.seed,
        status="completed",
    )


def _keep(
    site: Site,
    job: LoadJob,
    record: CellRecord,
    summary: LoadSummary | None,
    observer: Observer,
    start: PlannedStart,
) -> CellRecord:
    """Store a cell: its requests as a table, then its record, which makes it exist."""
    directory = store.cell_dir(site.run_dir, record.number)
    summary = summary or read_summary(job)
    count_tokens = tokens.counter(job.load.tokenizer) if job.load.tokenizer else None
    tally = store.write_requests(directory, Path(job.rows_path), summary, count_tokens)
    judged = judge.judged(replace(record, summary=summary), tally)
    store.write_record(directory / "cell.json", judged)
    for path in (job.rows_path, job.summary_path, job.begun_path, directory / "job.json"):
        Path(path).unlink(missing_ok=True)
    observer.cell_ends(start, judged)
    return judged


def _fail_rest(
    start: PlannedStart, site: Site, done: Sequence[CellRecord], error: str, observer: Observer
) -> list[CellRecord]:
    """Record the cells of a start that could not be measured, with the start's reason."""
    numbers = {record.number for record in done}
    failed = []
    for cell in start.cells:
        if cell.number not in numbers:
            record = replace(_cell_record(start, cell), status="failed", error=error)
            directory = store.begin_cell(site.run_dir, cell.number)
            store.write_record(directory / "cell.json", record)
            observer.cell_ends(start, record)
            failed.append(record)
    return failed
