"""What servers said beside the load, and whom the others of a model are held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.contracts import LOGPROBS, Asked, Item, QualityRecord, Way
from harness.store import store, task_table
from harness.store.quality_table import FILE_NAME, read_quality, reference_rank
from harness.store.store import StartRecord
from harness.store.task_table import read_items
from reports.data.cells import gathered
from reports.data.run import Run, once, without_secrets

# Fewer than one place in this many may name fewer tokens than the rest: tokens of one name are one.
_ONE_PLACE_IN = 20


@dataclass(frozen=True)
class Heard:
    """How one start was asked (`record`), and what it said: `rows` of each way, in their order, and the items
    of each task."""

    start: StartRecord
    record: QualityRecord
    rows: Mapping[Way, Sequence[Asked]]
    tasks: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    is_of_this_run: bool = True

    @property
    def name(self) -> str:
        return f"{self.start.deployment.label}{'' if self.is_of_this_run else ' of an earlier run'}"

    @property
    def model(self) -> str:
        return self.start.deployment.model

    @property
    def missing(self) -> list[str]:
        """Why ways were not measured, as clauses."""
        return [why for way, why in self.record.missing.items() if way != "tasks"]

    @property
    def is_asked(self) -> bool:
        """Whether it was asked for its tokens, not for tasks alone."""
        return bool(self.rows or self.missing)

    @property
    def is_told(self) -> bool:
        """Whether it named any probabilities that others can be held against."""
        return any(self.whole(way) for way in ("chat", "text"))

    def whole(self, way: Way) -> dict[int, Asked]:
        """Return what came without an error in a way, by its item."""
        return {row.item: row for row in self.rows.get(way, ()) if row.tokens and not row.error}

    def named(self, way: Way) -> int:
        """Return how many of the likeliest tokens it names at all places but fewer than 5 %. 0 where it names
        none."""
        counts = [len(token.top) for row in self.whole(way).values() for token in row.tokens if token.top]
        return min(LOGPROBS, sorted(counts)[(len(counts) - 1) // _ONE_PLACE_IN]) if counts else 0


@once
def heard_of(run: Run) -> dict[str, Heard]:
    """Return what each deployment said that was asked, by its label."""
    asked = {record.deployment.label: record for record in run.start_records if record.quality}
    return {
        label: heard
        for label in run.deployments
        if label in asked and (heard := _heard(run.path / "starts" / asked[label].name, asked[label]))
    }


@once
def references_of(run: Run) -> dict[str, Heard]:
    """Return whom the others are held against, by model: what quality.against names, in this run or an
    earlier one; else the deployment with most bits. Of as many bits fp16 comes before bf16, then one that
    does not speculate, then the one with the largest weights. No model is there that has none."""
    found: dict[str, Heard] = {}
    for heard in sorted(heard_of(run).values(), key=rank):
        if heard.is_told:
            found.setdefault(heard.model, heard)
    if (against := run.record.quality.against) is None:
        return found
    if against in run.deployments:
        named = heard_of(run).get(against)
        found.pop(run.deployments[against].model, None)
    else:
        start, found = store.read_reference(run.path), {}
        folder = run.path / store.REFERENCE
        named = _heard(folder, without_secrets(start), is_of_this_run=False) if start else None
    return {**found, named.model: named} if named and named.is_told else found


def _heard(folder: Path, start: StartRecord, *, is_of_this_run: bool = True) -> Heard | None:
    if start.quality is None:
        return None
    rows = gathered((row.way, row) for row in read_quality(folder / FILE_NAME))
    tasks = gathered((item.task, item) for item in read_items(folder / task_table.FILE_NAME))
    return Heard(start, start.quality, rows, tasks, is_of_this_run)


def rank(heard: Heard) -> tuple[float, bool, bool, int]:
    """Return what sorts first the one that others are held against, unless it says too little."""
    return reference_rank(heard.start)
