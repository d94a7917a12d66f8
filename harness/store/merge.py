"""Merge results directories that hold repeats of one plan, possibly from several machines, into one.

A repeat is the block of the statistics: it has all deployments once, on one machine. A difference between two
machines affects both sides of every comparison alike, so repeats may come from several.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from serving_bench.harness.contracts import at, because, inert
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.settings import sections
from serving_bench.harness.settings.config import GRID_REPEATS, Settings
from serving_bench.harness.store import checksums
from serving_bench.harness.store.named_files import RUN_FILE, SUMS_FILE
from serving_bench.harness.store.store import (
    REFERENCE,
    SCHEMA_VERSION,
    NodeRecord,
    RunRecord,
    as_stored,
    is_going_on,
    read_cell,
    read_cells,
    read_run,
    read_starts,
    with_units,
    write_record,
    written_or_empty,
)
from serving_bench.harness.whole_files import check_room

# What must be equal for values to stand in one table. The page tells other differences.
_TERMS = ("settings", "price", "slo", "compare", "quality")
NONE_LOST: Mapping[int, Sequence[str]] = MappingProxyType({})
_FOLDERS = ("starts", "cells", REFERENCE)
_FACTS = ("packages.serving-bench", "machine.architecture", "engine_packages", "outside_packages")


def mergeable(folders: Sequence[Path]) -> dict[Path, RunRecord]:
    """Read the records of runs to merge, by folder.

    Raises UserError, with the first difference, unless they have one plan, one set of engine packages and one
    kind of device, and if two have the same repeat. Raises StoreError for a file that bench cannot have
    written, such as a link.
    """
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise UserError(f"{twice}: is given twice; give each folder once")
    records = {folder: read_run(folder) for folder in folders}
    _check_repeats(records)
    for folder in records:
        checksums.check_ours(folder)
    first, *others = records
    for folder in others:
        if difference := next(_differences(records[first], records[folder]), None):
            what, a, b = difference
            raise UserError(
                f"{first} and {folder} are not of one plan: {what} is {_told(a)} and {_told(b)}; merge "
                "what one command measured, repeat by repeat (--only-repeat)"
            )
    return records


def check_repeat(folder: Path, repeat: int, settings: Settings) -> None:
    """Raise BenchError unless a folder has this repeat, from 0, of a run with the settings asked for."""
    # A stranger may have written it, and --resume measures by the settings of the merged run.
    record = mergeable([folder])[folder]
    _check_as_written(folder)
    ours = {**vars(settings), "settings": with_units(settings.given)}
    theirs = [as_stored(getattr(record, name)) for name in _TERMS]
    if theirs != [as_stored(ours[name]) for name in _TERMS] or record.plan.repeats != (repeat,):
        raise StoreError(f"{folder}: has other settings or another repeat than asked for")
    _ = read_starts(folder), read_cells(folder)


def merge(
    records: Mapping[Path, RunRecord],
    into: Path,
    lost: Mapping[int, Sequence[str]] = NONE_LOST,
    *,
    is_own: bool,
) -> None:
    """Copy the starts and cells of mergeable runs into one directory, and write its run.json.

    `lost` has, by repeat from 0, the nodes that began it before and were lost. `is_own`: whether all of their
    settings are this user's. Raises UserError if the disk has no room, StoreError if a file is not as it was
    written, and CellError if a file cannot be written; then nothing of the merged run is left.
    """
    merged = _merged(records, into.name, lost)
    numbers = count(max(start.index for start in merged.plan.starts) + 1)
    copied = [folder / name for folder in records for name, _ in checksums.files(folder, _FOLDERS)]
    size = sum(path.stat().st_size for path in copied)
    check_room(into.absolute(), size, "the whole run", "--output DIR")
    for folder in records:
        _check_as_written(folder)
    with written_or_empty(into, "the repeats are as they were"):
        for folder, record in records.items():
            _copy(folder, {start.name for start in record.plan.starts}, numbers, into)
        write_record(into / RUN_FILE, merged, is_own=is_own)
        checksums.begin(into)
        checksums.end(into)


def _check_as_written(folder: Path) -> None:
    # The merged run gets new checksums, which would hide that a file was changed.
    warning = checksums.told(folder, checksums.changed(folder)) if (folder / SUMS_FILE).exists() else None
    if warning:
        raise StoreError(warning)


def _check_repeats(records: Mapping[Path, RunRecord]) -> None:
    owners = dict[int, Path]()
    for folder, record in records.items():
        if record.search or record.until or record.plan.race:
            name = "a race" if record.plan.race else "a run with until"
            kind = "a search" if record.search else f"{name}, which decides on its repeats itself"
            raise UserError(f"{folder}: is {kind}; merge runs with repeats=N")
        if record.foreign:
            raise UserError(f"{folder}: was measured by {record.foreign.tool}; merge what bench measured")
        if not record.plan.starts:
            raise UserError(f"{folder}: has no starts, so there is nothing to merge; leave it out")
        if is_going_on(folder, record.status):
            raise UserError(f"{folder}: is still being measured; wait until it ends")
        for repeat in record.plan.repeats:
            if repeat in owners:
                raise UserError(f"repeat {repeat + 1} is in {owners[repeat]} and in {folder}; leave one out")
            owners[repeat] = folder


def _copy(folder: Path, planned: Collection[str], numbers: Iterator[int], into: Path) -> None:
    """Copy a run's starts, cells and reference.

    A start that is not in the plan, because it was made again, gets the next of `numbers` as its index.
    """
    names = dict[str, str]()
    for start in read_starts(folder):
        index = start.index if start.name in planned else next(numbers)
        renamed = replace(start, index=index, name=f"{index:02d}-{start.deployment.slug}")
        names[start.name] = renamed.name
        write_record(into / "starts" / renamed.name / "start.json", renamed)
    for file, _ in checksums.files(folder, _FOLDERS):
        top, *inner, name = file.split("/")
        if top == "cells" and (into / file).exists():
            raise StoreError(f"{folder / file}: another folder has this cell too; leave one out")
        if top == "cells" and name == "cell.json":
            cell = read_cell((folder / file).parent)
            write_record(into / file, replace(cell, start=names.get(cell.start, cell.start)))
        elif top != "starts":
            _copy_file(folder / file, into / file)
        elif inner and inner[0] in names and name != "start.json":
            _copy_file(folder / file, into.joinpath(top, names[inner[0]], *inner[1:], name))


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)


def _merged(records: Mapping[Path, RunRecord], name: str, lost: Mapping[int, Sequence[str]]) -> RunRecord:
    all_of = list(records.values())
    first = all_of[0]
    starts = sorted((start for each in all_of for start in each.plan.starts), key=lambda start: start.index)
    plan = replace(first.plan, starts=tuple(starts), estimate_s=sum(each.plan.estimate_s for each in all_of))
    is_whole = all(each.status == "completed" for each in all_of)
    repeats = max(_repeats_asked(folder, record) for folder, record in records.items())
    lacks = [repeat + 1 for repeat in range(max(repeats, plan.blocks)) if repeat not in plan.repeats]
    return replace(
        first,
        schema_version=SCHEMA_VERSION,
        run_id=name,
        created_at=min(each.created_at for each in all_of),
        ended_at=max((each.ended_at for each in all_of if each.ended_at), default=None),
        plan=plan,
        status="completed" if is_whole else "interrupted",
        stopped_because=because("repeats_lacking", repeats=", ".join(map(str, lacks))) if lacks else None,
        looks=_looks(records),
        standings=(),
        only_repeat=None,
        nodes=tuple(node for each in all_of for node in each.nodes or (_node(each, lost),)),
    )


def _looks(records: Mapping[Path, RunRecord]) -> tuple[int, ...]:
    """Return how many starts each look had: those at the parts, and the first one at the whole.

    Starts that were made again count, as they do in a report.
    """
    starts = [start for folder in records for start in read_starts(folder) if not start.is_for_quality]
    return (*(look for record in records.values() for look in record.looks), len(starts))


def _repeats_asked(folder: Path, record: RunRecord) -> int:
    given = record.settings.get("repeats")
    try:
        return sections.repeats({"repeats": tuple(given)}).most if given else GRID_REPEATS
    except UserError as error:
        raise StoreError(f"{folder}: damaged: {error}") from error


def _node(record: RunRecord, lost: Mapping[int, Sequence[str]]) -> NodeRecord:
    names = [name for repeat in record.plan.repeats for name in lost.get(repeat, ())]
    return NodeRecord(record.plan.repeats, record.environment, tuple(names))


def _differences(a: RunRecord, b: RunRecord) -> Iterator[tuple[str, Any, Any]]:
    """Yield each difference: the key, and its value on either side."""
    for name in _TERMS:
        yield from _unlike(name, *(msgspec.to_builtins(getattr(each, name)) for each in (a, b)))
    for name in _FACTS:
        yield from _unlike(name, *(at(each.environment, *name.split(".")) for each in (a, b)))
    yield from _unlike("devices", _devices(a), _devices(b))
    both = a.plan.deployments, b.plan.deployments
    yield from _unlike("deployments", *(sorted(each) for each in both))
    for label in both[0]:
        yield from _unlike(label, *(msgspec.to_builtins(each[label]) for each in both))


def _unlike(what: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a or {}, Mapping) and isinstance(b or {}, Mapping):
        a, b = a or {}, b or {}
        # `repeats` may differ: a repeat's number says which one it is.
        for key in [key for key in {**a, **b} if key != "repeats"]:
            yield from _unlike(f"{what}.{key}".removeprefix("settings."), a.get(key), b.get(key))
    elif a != b:
        yield what, a, b


def _devices(record: RunRecord) -> Any:
    """Return name and memory of each device, or the reason why there is none."""
    devices = record.environment.get("devices")
    if not isinstance(devices, Sequence) or isinstance(devices, str):
        return devices
    readable = [each if isinstance(each, Mapping) else {} for each in devices]
    return [[each.get("name"), each.get("memory_bytes")] for each in readable]


def _told(value: Any) -> str:
    return "missing" if value is None else inert(msgspec.json.encode(value).decode())[:200]
