"""One run or search from its directory to its end: begun or resumed, provided for, measured.

Knows no terminal and no report: the commands hand in who shows progress and who finds weights.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec

from harness.contracts import AttachSpec, Plan, PlannedCell, PlannedStart, SearchTerms, SelfTest, masked_argv
from harness.errors import StoreError, UserError
from harness.install.provision import Provisions, WeightsStore, provide
from harness.install.startable import check_builds, device_of, images_of, select_devices
from harness.load import limits
from harness.processes.running import reap
from harness.run.run import NextCell, planned_cell, run_starts
from harness.run.site import Observer, Site
from harness.run.start import key_of
from harness.sampling import environment, gpu
from harness.sampling.guard import Guard
from harness.servers import container, docker_cli, probe
from harness.settings import config, overrides
from harness.settings.config import Settings
from harness.settings.values import Choices
from harness.store import store, tokens
from harness.store.named_files import LOCK_FILE
from harness.store.store import CellRecord, Kept, RunRecord, StartRecord

# --- the directory ---------------------------------------------------------------------------------


def new_run_dir(parent: Path, settings: Settings) -> Path:
    """Make a directory whose name sorts by time and says what is in it; never one that is there already."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "-".join(dict.fromkeys([stamp, *(scenario.name for scenario in settings.scenarios)]))
    path = parent / name[:80]
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            path = path.with_name(f"{name[:80]}-{secrets.token_hex(2)}")


def check_output(directory: Path) -> None:
    """Raise UserError where a new run cannot be written."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output {directory}: is not a directory")
    if directory.exists() and any(directory.iterdir()):
        raise UserError(
            f"--output {directory}: exists and is not empty; continue a run with --resume {directory}"
        )
    existing = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise UserError(f"--output {directory}: {existing} is not a directory")


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Make and hold a run's directory, and close NVML at the block's end, which is the run's.

    A killed bench holds nothing. Raises UserError if another holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{directory}: another bench is measuring this run; wait until it ends"
            ) from error
        try:
            yield
        finally:
            gpu.close()


# --- begun, resumed, ended -------------------------------------------------------------------------


def begin(
    directory: Path,
    settings: Settings,
    planned: Plan,
    known_error: SelfTest | None = None,
    search: SearchTerms | None = None,
) -> RunRecord:
    """Write run.json of a new run. `known_error` is what bench knows of its own error on this machine."""
    facts = environment.facts()
    if known_error:
        facts["selftest"] = msgspec.to_builtins(known_error)
    record = RunRecord(
        schema_version=store.SCHEMA_VERSION,
        run_id=directory.name,
        created_at=_now(),
        argv=masked_argv(sys.argv),
        settings=settings.given,
        plan=planned,
        environment=facts,
        price=settings.price,
        slo=settings.slo,
        until=settings.until,
        compare=settings.compare,
        search=search,
    )
    store.write_record(directory / "run.json", record)
    return record


def go_on(directory: Path, record: RunRecord, provisions: Provisions) -> Kept[RunRecord]:
    """Write in run.json that the run is measured from now on, with the versions of what it starts.

    Raises StoreError if an engine's environment or image is not the one that the run was begun with.
    """
    known = record.environment.get("engine_packages", {})
    for engine, was in known.items():
        now = provisions.versions.get(engine)
        if now is not None and dict(was) != dict(now):
            raise StoreError(f"{directory}: {engine} has other versions now; begin a new run")
    engines = {engine: dict(versions) for engine, versions in provisions.versions.items()}
    facts = {**record.environment, "engine_packages": {**known, **engines}}
    running = replace(record, environment=facts, status="running", ended_at=None, stopped_because=None)
    return Kept(directory / "run.json", running)


def measure(
    run: Kept[RunRecord], starts: Iterable[PlannedStart], site: Site, next_cell: NextCell = planned_cell
) -> list[CellRecord]:
    """Run the starts and write the run's end. Raises Interrupted when all is stored."""
    try:
        records = run_starts(starts, replace(site, run_dir=run.path.parent), next_cell)
    except BaseException:  # whatever it is, run.json must not say for ever that the run goes on
        run.update(status="interrupted", ended_at=_now())
        raise
    run.update(status="completed", ended_at=_now())
    return records


def end(directory: Path, record: RunRecord) -> None:
    """Write the end of a run that has nothing left: bench may have been killed after its last cell."""
    if record.status != "completed":
        Kept(directory / "run.json", replace(record, status="completed", ended_at=_now()))


def _now() -> str:
    """Return the local time in ISO 8601, with its offset."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def measured_s(directory: Path) -> float:
    """Return the seconds that a run has measured: the lives of its servers, of all attempts."""
    return sum(map(_life_s, store.read_starts(directory)))


def _life_s(start: StartRecord) -> float:
    seen = [start.spawned_ns, start.ready_ns, start.stopped_ns, *(phase.t_ns for phase in start.phases)]
    known = [t_ns for t_ns in seen if t_ns is not None]
    return (max(known) - min(known)) / 1e9 if known else 0.0


# --- what is left of a run -------------------------------------------------------------------------

# The cells of a start that are left: of the start as planned today, as recorded, and whether it was begun.
CellsLeft = Callable[[PlannedStart, PlannedStart, bool], tuple[PlannedCell, ...]]


def missing_starts(directory: Path, record: RunRecord, whole: Plan) -> list[PlannedStart]:
    """Return the starts to make for the cells of a run that do not count yet. See starts_left."""
    done = {cell.number for cell in store.read_cells(directory) if cell.counts}

    def not_done(start: PlannedStart, recorded: PlannedStart, is_begun: bool) -> tuple[PlannedCell, ...]:
        return tuple(cell for cell in start.cells if cell.number not in done)

    return [start for start in starts_left(directory, record, record.plan, whole, not_done) if start.cells]


def starts_left(
    directory: Path, record: RunRecord, recorded: Plan, whole: Plan, cells_left: CellsLeft
) -> list[PlannedStart]:
    """Return every start of the plan with the cells that are left of it.

    One that was begun already gets a number after all that are there. The starts are today's, since what is
    read back from a file has mappings where options were. Raises StoreError if `whole`, today's plan, is not
    `recorded`, or if the run was begun on another machine.
    """
    if _measured(recorded) != _measured(whole):
        raise StoreError(f"{directory}: was planned by another bench, which would measure something else now")
    _check_machine(directory, record)
    taken, last = _taken_indices(directory), last_index(directory, record)
    left = []
    for start, was in zip(whole.starts, record.plan.starts, strict=True):
        is_begun = was.index in taken
        cells = cells_left(start, was, is_begun)
        last += bool(cells) and is_begun
        left.append(replace(start, cells=cells, index=last if cells and is_begun else was.index))
    return left


def last_index(directory: Path, record: RunRecord) -> int:
    """Return the highest number of a start that is there, or planned."""
    return max([*_taken_indices(directory), *(start.index for start in record.plan.starts)], default=0)


def _taken_indices(directory: Path) -> set[int]:
    names = (path.name for path in directory.glob("starts/*"))
    return {int(match[0]) for name in names if (match := re.match(r"\d+", name))}


def _measured(planned: Plan) -> list[object]:
    """Return what a plan is going to measure, its defaults included, as it is when read back from a file."""
    measured = [
        (
            start.deployment.label,
            start.deployment.model,
            start.deployment.terms,
            start.deployment.options,
            [(cell.seed, cell.load, cell.scenario) for cell in start.cells],
        )
        for start in planned.starts
    ]
    return list(msgspec.json.decode(msgspec.json.encode(measured)))


# Facts without which the cells of one run could not stand side by side.
_MACHINE = ("cpu_model", "cores_usable", "memory_bytes", "architecture")


def _check_machine(directory: Path, record: RunRecord) -> None:
    now = environment.facts()
    was, is_now = record.environment.get("machine", {}), now["machine"]
    changed = [f"{key} {was.get(key)} -> {is_now[key]}" for key in _MACHINE if was.get(key) != is_now[key]]
    if record.environment.get("devices") != msgspec.to_builtins(now["devices"]):
        changed.append("devices")
    if changed:
        raise StoreError(f"{directory}: was begun on another machine ({'; '.join(changed)}); begin a new run")


def choices_of(record: RunRecord) -> Choices:
    """Return what was given when a run or a search was begun."""
    return overrides.parse([f"{key}={','.join(values)}" for key, values in record.settings.items()])


def settings_of(record: RunRecord) -> Settings:
    """Return the settings that a run was begun with."""
    return config.settings(choices_of(record))


# --- what it needs ---------------------------------------------------------------------------------


def provide_site(
    settings: Settings,
    starts: Sequence[PlannedStart],
    weights: WeightsStore,
    cache: Path,
    observer: Observer,
) -> Site:
    """End what killed runs left, then find or make all that the starts need. Blocks.

    A running server needs to answer. Raises MissingError and UserError.
    """
    limits.check_files(starts)
    deployments = [start.deployment for start in starts]
    # Better now than when a load has ended.
    for path in dict.fromkeys(cell.load.tokenizer for start in starts for cell in start.cells):
        if path:
            tokens.counter(path)
    for said in [*reap(cache / "running"), *container.reap()]:
        observer.line(said)
    for base_url, model, key in dict.fromkeys((d.terms.base_url, d.model, key_of(d)) for d in deployments):
        if base_url:
            probe.probe_attached(AttachSpec(base_url.rstrip("/"), model), key)
    device = device_of(settings)
    devices = select_devices(device)
    check_builds(device, deployments)
    images = images_of(deployments, devices)
    if images:
        docker_cli.check(images)
    found = provide(deployments, weights, cache, observer.line, has_device=bool(devices))
    found = replace(found, images={image: docker_cli.image_facts(image) for image in images})
    guard = Guard(settings.guard, settings.guard_terms.wait_s)
    return Site(Path(), cache, devices, guard, observer, found)
