"""What every measuring command shares: a results directory of its own, what a resumed one lacks, servers and
weights for its starts, and `measure`, one `bench run` from its first start to its end, with the blocks that
`until` adds. `bench search` has its own loop (harness/run/search.py).

Knows no terminal and no report: the commands hand in who shows progress, who finds weights, and who tells how
sure a run is.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec

from harness.cli.progress.progress import Show
from harness.contracts import AttachSpec, Deployment, Plan, PlannedStart, SelfTest, masked_argv
from harness.errors import BenchError, StoreError, UserError
from harness.install.provision import (
    Provisions,
    WeightsStore,
    check_builds,
    device_of,
    images_of,
    provide,
    select_devices,
)
from harness.load import limits
from harness.plan import durations, plan
from harness.processes.running import reap
from harness.run.cell import Site
from harness.run.growth import Growth, why_stop, widest
from harness.run.run import run_starts
from harness.sampling import environment, gpu
from harness.sampling.guard import Guard
from harness.servers import container, docker_cli, probe
from harness.settings import config, overrides
from harness.settings.config import Settings
from harness.store import store, tokens
from harness.store.named_files import LOCK_FILE
from harness.store.store import CellRecord, RunRecord, StartRecord


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


def begin(
    directory: Path, settings: Settings, planned: Plan, known_error: SelfTest | None = None
) -> RunRecord:
    """Write run.json of a new run; `known_error` is what bench knows of its own error on this machine."""
    facts = environment.facts()
    if known_error:
        facts["selftest"] = msgspec.to_builtins(known_error)
    record = RunRecord(
        schema_version=store.SCHEMA_VERSION,
        run_id=directory.name,
        created_at=now(),
        argv=masked_argv(sys.argv),
        settings=settings.given,
        plan=planned,
        environment=facts,
        price=settings.price,
        slo=settings.slo,
        until=settings.until,
        compare=settings.compare,
    )
    store.write_record(directory / "run.json", record)
    return record


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Make and hold a run's directory; a killed bench holds nothing. Raises UserError where another does.

    Closes NVML at the block's end, which is the run's.
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


def now() -> str:
    """The local time in ISO 8601, with its offset."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def missing_starts(directory: Path, record: RunRecord, whole: Plan) -> list[PlannedStart]:
    """The starts to make for what is not completed, numbered on from the ones that are there.

    Raises StoreError where today's bench would plan this run otherwise than the one that began it.
    """
    check_plan(directory, record.plan, whole)
    check_machine(directory, record)
    done = {cell.number for cell in store.read_cells(directory) if cell.counts}
    taken, last = _taken_indices(directory), last_index(directory, record)
    remaining = []
    for start, recorded in zip(whole.starts, record.plan.starts, strict=True):
        cells = tuple(cell for cell in start.cells if cell.number not in done)
        if not cells:
            continue
        is_begun = recorded.index in taken
        last += is_begun
        remaining.append(replace(start, cells=cells, index=last if is_begun else recorded.index))
    return remaining


def check_plan(directory: Path, recorded: Plan, whole: Plan) -> None:
    """Raise StoreError where today's bench plans other deployments, terms, options, scenarios, loads or
    seeds."""
    if _measured(recorded) != _measured(whole):
        raise StoreError(f"{directory}: was planned by another bench, which would measure something else now")


def _measured(planned: Plan) -> list[object]:
    """What a plan is going to measure, its defaults included, as it is when read back from a file."""
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


def check_machine(directory: Path, record: RunRecord) -> None:
    """Raise StoreError where the run was begun on another machine."""
    now = environment.facts()
    was, is_now = record.environment.get("machine", {}), now["machine"]
    changed = [f"{key} {was.get(key)} -> {is_now[key]}" for key in _MACHINE if was.get(key) != is_now[key]]
    if record.environment.get("devices") != msgspec.to_builtins(now["devices"]):
        changed.append("devices")
    if changed:
        raise StoreError(f"{directory}: was begun on another machine ({'; '.join(changed)}); begin a new run")


def check_versions(directory: Path, record: RunRecord, provisions: Provisions) -> None:
    """Raise StoreError where an engine's environment or image is not the one that the run was begun with."""
    for engine, was in record.environment.get("engine_packages", {}).items():
        now = provisions.versions.get(engine)
        if now is not None and dict(was) != dict(now):
            raise StoreError(f"{directory}: {engine} has other versions now; begin a new run")


def last_index(directory: Path, record: RunRecord) -> int:
    """The highest number of a start that is there, or planned."""
    return max([*_taken_indices(directory), *(start.index for start in record.plan.starts)], default=0)


def _taken_indices(directory: Path) -> set[int]:
    names = (path.name for path in directory.glob("starts/*"))
    return {int(match[0]) for name in names if (match := re.match(r"\d+", name))}


def settings_of(record: RunRecord) -> Settings:
    """The settings that a run was begun with."""
    return config.settings(choices_of(record))


def choices_of(record: RunRecord) -> overrides.Choices:
    """What was given when a run or a search was begun."""
    return overrides.parse([f"{key}={','.join(values)}" for key, values in record.settings.items()])


def provision(
    settings: Settings, starts: Sequence[PlannedStart], weights: WeightsStore, cache: Path, show: Show
) -> tuple[Provisions, Site]:
    """End what killed runs left, then find or make all that the starts need, which for a running server is
    that it answers. Blocks; raises MissingError and UserError."""
    limits.check_files(starts)
    _check_tokenizers(starts)
    state_dir = cache / "running"
    for said in [*reap(state_dir), *container.reap()]:
        show.line(said)
    _check_attached(starts)
    device = device_of(settings)
    devices = select_devices(device)
    deployments = [start.deployment for start in starts]
    check_builds(device, deployments)
    images = images_of(deployments, devices)
    if images:
        docker_cli.check(images)
    found = provide(deployments, weights, cache, show.line, has_device=bool(devices))
    found = replace(found, images={image: docker_cli.image_facts(image) for image in images})
    guard = Guard(settings.guard, settings.guard_terms.wait_s)
    return found, Site(Path(), cache, devices, guard)


def _check_tokenizers(starts: Sequence[PlannedStart]) -> None:
    """Raise UserError where a load.tokenizer cannot count: better now than when its load has ended."""
    for path in dict.fromkeys(cell.load.tokenizer for start in starts for cell in start.cells):
        if path:
            tokens.counter(path)


def _check_attached(starts: Sequence[PlannedStart]) -> None:
    """Raise UserError where a server to attach to cannot be measured: better now than in a failed run."""
    deployments = [start.deployment for start in starts]
    asked = dict.fromkeys((d.model, d.terms.base_url, d.terms.api_key_env) for d in deployments)
    for model, base_url, api_key_env in asked:
        if base_url:
            probe.probe_attached(AttachSpec(base_url.rstrip("/"), model), os.environ.get(api_key_env))


def measure(
    directory: Path,
    record: RunRecord,
    starts: Sequence[PlannedStart],
    provisions: Provisions,
    site: Site,
    show: Show,
    growth: Growth | None = None,
) -> list[CellRecord]:
    """Run the starts, and with `growth` one block more at a time as long as it wants; write the run's end.

    Raises Interrupted when all is stored.
    """
    check_versions(directory, record, provisions)
    site, before_s, begun_s = replace(site, run_dir=directory), measured_s(directory), time.monotonic()
    record = going_on(record, provisions)
    store.write_record(directory / "run.json", record)
    planned = replace(record.plan, starts=tuple(starts))
    show.begin(planned, _expectation(provisions, site), may_grow=growth is not None)
    names, records = [start.name for start in starts], list[CellRecord]()
    try:
        records += run_starts(starts, provisions, site, show)
        while growth and record.stopped_because is None:
            spent_s = before_s + time.monotonic() - begun_s
            record, growth, block = _grown(directory, record, growth, spent_s, show)
            # What is about to be measured is on record before it begins.
            store.write_record(directory / "run.json", record)
            names += [start.name for start in block]
            records += run_starts(block, provisions, site, show)
    except BaseException:  # whatever it is, run.json must not say for ever that the run goes on
        store.end_run(directory, record, "interrupted", now())
        raise
    finally:
        learn(directory, names, site.cache_dir)
    store.end_run(directory, record, "completed", now())
    return records


def _expectation(provisions: Provisions, site: Site) -> plan.Expect:
    """What earlier runs took of starts on the devices that this one uses."""

    def expect(deployment: Deployment) -> durations.Expected | None:
        return durations.expected(site.cache_dir, deployment, provisions.devices_of(deployment, site.devices))

    return expect


def going_on(record: RunRecord, provisions: Provisions) -> RunRecord:
    """The record of a run that is measured from now on, with the versions of what it starts."""
    engines = {engine: dict(versions) for engine, versions in provisions.versions.items()}
    known = record.environment.get("engine_packages", {})
    facts = {**record.environment, "engine_packages": {**known, **engines}}
    return replace(record, environment=facts, status="running", ended_at=None, stopped_because=None)


def _grown(
    directory: Path, record: RunRecord, growth: Growth, spent_s: float, show: Show
) -> tuple[RunRecord, Growth, tuple[PlannedStart, ...]]:
    """The record and the plan with one more block, and its starts; or with the reason that there is none."""
    found = growth.precisions(directory)
    if stop := why_stop(growth.until, found, growth.whole.blocks, spent_s):
        show.line(f"no further repeat: {stop}")
        return replace(record, stopped_because=stop), growth, ()
    first_index = last_index(directory, record) + 1
    whole = plan.grown(growth.whole, growth.settings, first_index, growth.expect)
    block = whole.starts[len(growth.whole.starts) :]
    show.grow(block, f"repeat {whole.blocks} follows: {widest(growth.until, found)}")
    recorded = replace(
        record.plan, starts=(*record.plan.starts, *block), estimate_s=whole.estimate_s, learnt=whole.learnt
    )
    return replace(record, plan=recorded), replace(growth, whole=whole), block


def measured_s(directory: Path) -> float:
    """Seconds that a run has measured: the lives of its servers, those that were measured again included.
    What was between them, and the time in which bench was not there, is not counted."""
    return sum(map(_life_s, store.read_starts(directory)))


def _life_s(start: StartRecord) -> float:
    seen = [start.spawned_ns, start.ready_ns, start.stopped_ns, *(phase.t_ns for phase in start.phases)]
    known = [t_ns for t_ns in seen if t_ns is not None]
    return (max(known) - min(known)) / 1e9 if known else 0.0


def learn(directory: Path, names: Sequence[str], cache: Path) -> None:
    """Keep how long these starts took, as far as they came; no run fails of it."""
    with suppress(BenchError, OSError):
        records = {start.name: start for start in store.read_starts(directory)}
        starts = [records[name] for name in names if name in records]
        durations.learn(cache, starts, store.read_cells(directory))
