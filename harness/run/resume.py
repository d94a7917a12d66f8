"""What is left of a run or a search that was begun: the starts to make, if it would be the same today."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from harness.contracts import Plan, PlannedCell, PlannedStart
from harness.errors import StoreError
from harness.sampling import environment
from harness.settings import config, overrides
from harness.settings.config import Settings
from harness.settings.decoding import Choices
from harness.store import store
from harness.store.store import RunRecord

# Facts without which the cells of one run could not stand side by side.
_MACHINE = ("cpu_model", "cores_usable", "memory_bytes", "architecture")


def missing_starts(directory: Path, record: RunRecord, whole: Plan) -> list[PlannedStart]:
    """Return the starts to make for the cells of a run that do not count yet.

    Raises StoreError: see check_same.
    """
    check_same(directory, record, record.plan, whole)
    done = {cell.number for cell in store.read_cells(directory) if cell.counts}
    cells = [tuple(cell for cell in start.cells if cell.number not in done) for start in whole.starts]
    return [start for start in renumbered(directory, record, whole, cells) if start.cells]


def check_same(directory: Path, record: RunRecord, recorded: Plan, whole: Plan) -> None:
    """Raise StoreError if today's plan is not the recorded one, or the run was begun on another machine."""
    now = environment.facts()
    was, is_now = record.environment.get("machine", {}), now["machine"]
    changed = [f"{key} {was.get(key)} -> {is_now[key]}" for key in _MACHINE if was.get(key) != is_now[key]]
    if record.environment.get("devices") != msgspec.to_builtins(now["devices"]):
        changed.append("devices")
    if changed:
        raise StoreError(f"{directory}: was begun on another machine ({'; '.join(changed)}); begin a new run")
    # Last, since another device plans another KV cache.
    if _measured(recorded) != _measured(whole):
        raise StoreError(f"{directory}: was planned by another bench, which would measure something else now")


def renumbered(
    directory: Path, record: RunRecord, whole: Plan, cells: Sequence[tuple[PlannedCell, ...]]
) -> list[PlannedStart]:
    """Return every start of today's plan, with the cells that are left of it.

    One that was begun already gets a number after all that are there. The starts are today's, since what is
    read back from a file has mappings where options were.
    """
    begun, last = {start.index for start in store.read_starts(directory)}, last_index(directory, record)
    left = []
    for start, was, own in zip(whole.starts, record.plan.starts, cells, strict=True):
        is_again = bool(own) and was.index in begun
        last += is_again
        left.append(replace(start, cells=own, index=last if is_again else was.index))
    return left


def last_index(directory: Path, record: RunRecord) -> int:
    """Return the highest number of a start that is there, or planned."""
    begun = [start.index for start in store.read_starts(directory)]
    return max([*begun, *(start.index for start in record.plan.starts)], default=0)


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


def choices_of(record: RunRecord) -> Choices:
    """Return what was given when a run or a search was begun."""
    return overrides.parse([f"{key}={','.join(values)}" for key, values in record.settings.items()])


def settings_of(record: RunRecord) -> Settings:
    """Return the settings that a run was begun with."""
    return config.settings(choices_of(record))
