"""Take one run or search from its directory to its end: begin or resume it, provide its needs, measure it."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from errno import EDQUOT, ENOSPC
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec

from serving_bench.harness.contracts import (
    Deployment,
    Plan,
    PlannedStart,
    RunStatus,
    known_secrets,
    masked_argv,
    masked_known,
)
from serving_bench.harness.errors import CellError, StoreError, UserError
from serving_bench.harness.install.builds import check_builds, images_of, select_devices
from serving_bench.harness.install.provision import device_of, provide
from serving_bench.harness.install.provisions import WeightsStore
from serving_bench.harness.load import limits
from serving_bench.harness.plan.candidates import NO_QUANTIZATION
from serving_bench.harness.processes.supervise import reap
from serving_bench.harness.quality.planned import Due
from serving_bench.harness.run.output_lock import missing, remove_made, taken_lock
from serving_bench.harness.run.recorded import OUTSIDE, outside
from serving_bench.harness.run.room import left_bytes, needed_bytes
from serving_bench.harness.run.run import run_starts
from serving_bench.harness.run.start import api_of, attach_spec, key_of
from serving_bench.harness.run.watch import Observer, Site
from serving_bench.harness.sampling import environment, guard
from serving_bench.harness.selftest import known_error
from serving_bench.harness.servers import container, probe
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store import checksums, store, tokenizer
from serving_bench.harness.store.named_files import LOCK_FILE, RUN_FILE
from serving_bench.harness.whole_files import disk_size, private, remove_left

RESULTS = Path("results")
# Room that is kept during a run, so that its end can be written to a full disk.
_RESERVE, _RESERVE_BYTES = ".reserve", 1 << 18
# The remedies where another bench has the directory: of a resumed run, and of a new one.
_WAIT, _OTHER_OUTPUT = "wait until it ends", "give another --output"


def new_run_dir(parent: Path, *names: str) -> Path:
    """Make a directory that did not exist, with a name that sorts by time and says what is in it."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "-".join(dict.fromkeys([stamp, *names]))
    path = parent / name[:80]
    while True:
        try:
            path.mkdir(mode=0o700, parents=True)  # private: requests hold what users said
            return path
        except FileExistsError:
            path = path.with_name(f"{name[:80]}-{secrets.token_hex(2)}")


def check_output(directory: Path | None) -> None:
    """Raise UserError if a new run cannot be written to this directory, or to a new one in RESULTS."""
    wanted = directory or RESULTS
    key = f"--output {directory}" if directory else str(RESULTS)
    remedy = f"give {'one' if directory else '--output DIR'} in a directory that you may write to"
    existing = next(path for path in (wanted, *wanted.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{key}: {existing} is not a directory; {remedy}")
    # A bench that was killed before it had written run.json leaves only its lock.
    if existing == directory and {path.name for path in directory.iterdir()} - {LOCK_FILE}:
        is_run = (directory / RUN_FILE).is_file()
        other = f"continue its run with --resume {directory}" if is_run else "give a new or an empty one"
        raise UserError(f"{key}: exists and is not empty; {other}")
    try:
        TemporaryFile(dir=existing).close()  # without a name, which another bench there would trip over
    except OSError as error:
        raise UserError(f"{key}: no file can be made in {existing} ({error.strerror}); {remedy}") from error


@contextmanager
def sole_writer(directory: Path, remedy: str = _WAIT, folders: Sequence[Path] = ()) -> Iterator[None]:
    """Make and lock a run's directory for the block. Files that are written in it are private to the user.

    What a killed bench had begun to write is removed. The `folders` made for the run, and those that are made
    here, are removed if nothing is written before an error. Raises UserError, which names the holder and the
    remedy, if another bench has the lock; also on a file system without locks. Raises StoreError, before
    anything is written, for a run with a link in it.
    """
    folders = [*folders, *missing(directory)]
    with private(), taken_lock(directory, remedy, folders) as lock:
        checksums.check_unlinked(directory)
        lock.truncate(0)
        with suppress(OSError):  # on a full disk the lock does not name its holder
            lock.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}".encode())
        remove_left(directory)
        for left in (directory / _RESERVE, *directory.glob("cells/*/*.board")):
            left.unlink(missing_ok=True)
        try:
            yield
        except BaseException:
            remove_made(directory, folders)
            raise
        finally:
            # The disk may be full, or the list damaged. The block's own error says more, or `bench verify`.
            with suppress(OSError, StoreError):
                checksums.end(directory)


@contextmanager
def new_directory(output: Path | None, *names: str) -> Iterator[Path]:
    """Make and lock the directory of a new run: the one asked for, or one in RESULTS.

    It is removed if the block raises before anything is written there. Raises UserError.
    """
    check_output(output)
    folders = [] if output else missing(RESULTS)
    directory = output or new_run_dir(RESULTS, *names)
    with sole_writer(directory, _OTHER_OUTPUT, folders if output else [directory, *folders]):
        check_output(directory)  # another bench may have written there meanwhile
        yield directory


def own_argv() -> tuple[str, ...]:
    """Return bench's command line without this environment's secrets, and without what looks like one."""
    secret_values = known_secrets(os.environ).values()
    return tuple(masked_known(word, secret_values) for word in masked_argv(sys.argv))


def new_record(
    run_id: str, settings: Settings, planned: Plan, only_repeat: int | None = None
) -> store.RunRecord:
    """Return the record of a run that has not begun, and so has no environment yet."""
    return store.RunRecord(
        schema_version=store.SCHEMA_VERSION,
        run_id=run_id,
        created_at=now(),
        argv=own_argv(),
        settings=settings.given,
        plan=planned,
        environment={},
        price=settings.price,
        slo=settings.slo,
        until=settings.until,
        compare=settings.compare,
        quality=settings.quality,
        search=settings.search,
        only_repeat=only_repeat,
    )


def begin(directory: Path, record: store.RunRecord, site: Site) -> store.Kept[store.RunRecord]:
    """Write that a run begins or goes on. Raises StoreError if an engine has other versions now."""
    was_here = record.environment or _environment(record.plan, site.cache_dir)
    packages = was_here.get("engine_packages")
    recorded = packages if isinstance(packages, dict) else {}
    engines = {engine: dict(versions) for engine, versions in site.provisions.versions.items()}
    for engine, was in recorded.items():
        if engines.get(engine, was) != was:
            raise StoreError(f"{directory}: {engine} has other versions now; begin a new run")
    facts = {**was_here, "engine_packages": {**recorded, **engines}}
    running = replace(record, environment=facts, status="running", ended_at=None, stopped_because=None)
    checksums.begin(directory)
    return store.Kept(directory / RUN_FILE, replace(running, schema_version=store.SCHEMA_VERSION))


def _environment(planned: Plan, cache_dir: Path) -> dict[str, Any]:
    """Return what is known of this machine, with what `bench selftest` measured here."""
    facts = environment.facts() | {OUTSIDE: outside(planned)}
    deployments = planned.deployments.values()
    if any(each.model != NO_QUANTIZATION and each.terms.base_url is None for each in deployments):
        facts["memory"] = {"read_bytes_per_s": environment.read_bytes_per_s()}
    own = {"selftest": known_error.find(cache_dir), "alike": known_error.find_alike(cache_dir)}
    return facts | {name: msgspec.to_builtins(each) for name, each in own.items() if each}


def measure(run: store.Kept[store.RunRecord], starts: Iterable[PlannedStart], site: Site) -> None:
    """Run the starts and write the run's end.

    Raises Interrupted after everything is stored, and CellError if something cannot be stored.
    """
    directory = run.path.parent
    reserve = directory / _RESERVE
    try:
        reserve.unlink(missing_ok=True)
        with reserve.open("xb") as file:
            file.write(os.urandom(_RESERVE_BYTES))  # zeros take no room on some disks
        run_starts(starts, site)
        reserve.unlink(missing_ok=True)
        _write_end(run, "completed")
    except BaseException as error:
        # Whatever the error is, run.json must not say for ever that the run is going on.
        with suppress(OSError):
            reserve.unlink(missing_ok=True)
            _write_end(run, "interrupted")
        if isinstance(error, OSError):
            remedy = _room_needed(run) if error.errno in (ENOSPC, EDQUOT) else "once it can be"
            raise CellError(
                f"{directory}: what was measured last could not be stored: {error.strerror or error}; "
                f"{remedy}, `{store.resuming(directory, run.record)}` measures it again"
            ) from error
        raise


def _room_needed(run: store.Kept[store.RunRecord]) -> str:
    try:
        left = left_bytes(run.path.parent, run.record.plan)
    except StoreError:  # a record that is torn
        left = needed_bytes(run.record.plan.starts)
    return f"about {disk_size(left)} are needed; once they are free"


def _write_end(run: store.Kept[store.RunRecord], status: RunStatus) -> None:
    run.update(status=status, ended_at=now(), looks=_looks(run.path.parent, run.record))


def end(directory: Path, record: store.RunRecord) -> None:
    """Write the end of a run that lacks nothing: bench may have been killed after its last cell."""
    if record.status != "completed":
        ended = replace(record, status="completed", ended_at=now(), looks=_looks(directory, record))
        checksums.begin(directory)
        store.Kept(directory / RUN_FILE, ended)


def _looks(directory: Path, record: store.RunRecord) -> tuple[int, ...]:
    """Return the looks at a run, this one included: the number of starts that its report then had.

    Starts that were only for quality do not count, since they say nothing about speed.
    """
    measured = sum(not start.is_for_quality for start in store.read_starts(directory))
    return record.looks if record.looks[-1:] == (measured,) else (*record.looks, measured)


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def provide_site(
    directory: Path,
    settings: Settings,
    starts: Sequence[PlannedStart],
    quality: Due | None,
    weights: WeightsStore,
    cache: Path,
    observer: Observer,
) -> Site:
    """End what killed runs have left, then find or make everything that the starts need. Blocks.

    Raises MissingError, and UserError if a running server does not answer.
    """
    limits.check_files(starts)
    deployments = [start.deployment for start in starts]
    # A tokenizer that cannot be read should fail now, not after a load.
    loads = [cell.load for start in starts for cell in start.cells]
    for path in dict.fromkeys(load.tokenizer for load in loads if load.tokenizer):
        tokenizer.read_tokenizer(path)
    for line in [*reap(cache / "running"), *container.reap()]:
        observer.line(line)
    # Deployments of one running server differ only in what bench sends it, so it is asked once.
    for deployment in {(attach_spec(each), key_of(each)): each for each in deployments}.values():
        _probe(deployment, settings, observer)
    device = device_of(settings)
    devices = select_devices(device)
    check_builds(device, deployments)
    images = images_of(deployments, devices)
    if images:
        container.check(images)
    provisions = provide(deployments, weights, cache, observer, has_device=bool(devices))
    provisions = replace(provisions, images={image: container.image_facts(image) for image in images})
    judge = guard.Guard(settings.guard, settings.guard_terms.wait_s, observer)
    return Site(directory, cache, devices, judge, observer, provisions, quality=quality)


def _probe(deployment: Deployment, settings: Settings, observer: Observer) -> None:
    """Raise UserError if a running server cannot be measured, or its key's variable is not set. Blocks."""
    spec, key, terms = attach_spec(deployment), key_of(deployment), deployment.terms
    if spec is None:
        return
    if not key and "engine.api_key_env" in settings.given:
        raise UserError(
            f"engine.api_key_env={terms.api_key_env}: no such variable in the environment, or it is "
            "empty; set it to the key"
        )
    is_given = "engine.start_timeout" in settings.given
    limit_s = terms.start_timeout_s if is_given else probe.ATTACHED_TIMEOUT_S
    probe.probe_attached(spec, key, observer, timeout_s=limit_s, api=api_of(deployment))
