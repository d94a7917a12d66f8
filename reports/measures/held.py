"""What a run's memory comes to: what each deployment held at its highest, and the course of each start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.data import Run, StartRecord, gathered, memory_over_time, once, start_title
from reports.measures.anatomy import KV_CACHE, PARTS, REST, WEIGHTS, Anatomy, KvCache, Part, anatomies
from reports.measures.metrics import mean


@dataclass(frozen=True)
class Held:
    """What a deployment's server held at its highest: its starts on which the same cells count."""

    label: str
    starts: Sequence[Anatomy]
    total_bytes: float  # the mean, as of all that follows but `kv`
    needed_bytes: float | None  # without the KV cache that no request needed
    pieces: Mapping[str, float]  # of a bar, in bytes: those that are there, which add up to the total
    kv: KvCache  # of the start whose requests needed most of it


@once
def held_of(run: Run) -> list[Held]:
    """Return what each deployment held; nothing where no part of any memory is known."""
    found = [_held(label, alike(each)) for label, each in anatomies(run).items()]
    return found if any(set(start.parts) != {REST} for each in found for start in each.starts) else []


def _held(label: str, starts: Sequence[Anatomy]) -> Held:
    total, spare = sum(e.total_bytes for e in starts) / len(starts), mean([e.spare_bytes for e in starts])
    means = pd.DataFrame([each.pieces for each in starts]).mean()
    pieces = {str(name): float(size) for name, size in means.items() if size > 0}
    kv = max((each.kv for each in starts), key=lambda kv: kv.peak_tokens or 0.0)
    return Held(label, starts, total, None if spare is None else total - spare, pieces, kv)


def alike(found: Sequence[Anatomy]) -> list[Anatomy]:
    """Return a deployment's starts with the most loads that count, the same on each; a mean over others would
    be of different loads."""
    return [each for each in found if each.loads == max((other.loads for other in found), key=len)]


def mean_parts(found: Sequence[Anatomy]) -> dict[str, Part]:
    """Return the parts' means over starts, which still add up: a start without one has none of it."""
    return {
        name: Part(
            sum(part.size_bytes for part in own) / len(found),
            tuple(dict.fromkeys(source for part in own for source in part.sources)),
        )
        for name in PARTS
        if (own := [each.parts[name] for each in found if name in each.parts])
    }


def expectations(found: Sequence[Anatomy]) -> dict[str, tuple[float, float]]:
    """Return what `bench fit` expected of a deployment's weights, KV cache and total, and what these came to,
    in bytes (means over its starts), where both are known. A pool counts as it was reserved."""
    expected, parts = found[0].record.memory_expected, mean_parts(found)
    # What the model's shape gives is no measurement of it.
    measured = {
        name: parts[name].size_bytes
        for name in (WEIGHTS, KV_CACHE)
        if name in parts and "computed" not in parts[name].sources
    }
    if KV_CACHE in measured:
        measured[KV_CACHE] = sum(each.kv.size_bytes or 0.0 for each in found) / len(found)
    made = {
        name: (float(expected[name]), size) for name, size in measured.items() if size and name in expected
    }
    if {WEIGHTS, KV_CACHE, "overhead"} <= expected.keys():
        whole = expected[WEIGHTS] + expected[KV_CACHE] + expected["overhead"]
        made["total"] = float(whole), sum(each.total_bytes for each in found) / len(found)
    return made


# --- over time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """The memory of a start. Seconds count from the server's spawn, without one from the first sample."""

    record: StartRecord
    title: str  # the start's number among its deployment's
    what: str
    t_s: np.ndarray
    size_bytes: np.ndarray
    windows: Sequence[tuple[str, float, float]]  # each with its load

    @property
    def label(self) -> str:
        return self.record.deployment.label

    @property
    def peak_bytes(self) -> float:
        return float(self.size_bytes.max())


@once
def courses_of(run: Run) -> list[Course]:
    """Return the course of each start whose memory was sampled, in the order of the deployments."""
    records = (record for label in run.deployments for record in run.starts_of(label))
    return [each for record in records if len((each := _course(run, record)).t_s)]


def _course(run: Run, record: StartRecord) -> Course:
    memory = memory_over_time(run, record)
    zero_ns = record.spawned_ns or next(iter(memory.t_ns), 0.0)
    return Course(
        record,
        start_title(run, record),
        memory.what,
        (memory.t_ns - zero_ns) / 1e9,
        memory.size_bytes,
        windows=[
            (
                cell.load_label,
                (cell.summary.window_start_ns - zero_ns) / 1e9,
                (cell.summary.window_end_ns - zero_ns) / 1e9,
            )
            for cell in run.planned_cells
            if cell.summary and run.start_of(cell) is record
        ],
    )


def unread_of(run: Run) -> list[tuple[str, list[str]]]:
    """Return why parts of the memory could not be read, each with the starts it is said of. What a server's
    page lacks is left out: it belongs to what servers told."""
    notes = (
        (f"{what.replace('_', ' ')}: {why}", record.name)
        for record in run.start_records
        for what, why in record.memory_notes.items()
        if not what.startswith("server ")
    )
    return list(gathered(notes).items())
