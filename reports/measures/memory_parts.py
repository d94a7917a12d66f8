"""The memory of a run: each deployment's at its highest, and each start's over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from serving_bench.reports.data import Run, StartRecord, gathered, memory_over_time, once, start_title
from serving_bench.reports.measures.anatomy import (
    KV_CACHE,
    PARTS,
    REST,
    WEIGHTS,
    Anatomy,
    KvCache,
    Part,
    anatomies,
)
from serving_bench.reports.measures.metrics import mean


@dataclass(frozen=True)
class Held:
    """The memory of a deployment's server at its highest, as means over starts that count the same cells."""

    label: str
    starts: Sequence[Anatomy]
    total_bytes: float
    needed_bytes: float | None  # without the KV cache that no request needed
    pieces: Mapping[str, float]  # of a bar, in bytes; they add up to the total
    kv: KvCache  # of the start whose requests needed most of it


@once
def held_of(run: Run) -> list[Held]:
    """Return the memory of each deployment; nothing if no part of any is known."""
    summaries = [_held(label, alike(each)) for label, each in anatomies(run).items()]
    return summaries if any(set(start.parts) != {REST} for each in summaries for start in each.starts) else []


def _held(label: str, starts: Sequence[Anatomy]) -> Held:
    total, spare = sum(e.total_bytes for e in starts) / len(starts), mean([e.spare_bytes for e in starts])
    means = pd.DataFrame([each.pieces for each in starts]).mean()
    pieces = {str(name): float(size) for name, size in means.items() if size > 0}
    kv = max((each.kv for each in starts), key=lambda kv: kv.peak_tokens or 0.0)
    return Held(label, starts, total, None if spare is None else total - spare, pieces, kv)


def alike(anatomies_seen: Sequence[Anatomy]) -> list[Anatomy]:
    """Return the starts with the most loads that count, the same on each. A mean over the others would mix
    loads."""
    return [
        each
        for each in anatomies_seen
        if each.loads == max((other.loads for other in anatomies_seen), key=len)
    ]


def mean_parts(like: Sequence[Anatomy]) -> dict[str, Part]:
    """Return the parts' means over starts. A start without a part counts as 0, so that they still add up."""
    return {
        name: Part(
            sum(part.size_bytes for part in parts) / len(like),
            tuple(dict.fromkeys(source for part in parts for source in part.sources)),
        )
        for name in PARTS
        if (parts := [each.parts[name] for each in like if name in each.parts])
    }


def expectations(like: Sequence[Anatomy]) -> dict[str, tuple[float, float]]:
    """Return the expected and the measured bytes of a deployment's weights, KV cache and total, if both are
    known.

    `bench fit` gave the expectation; the measured value is the mean over starts. A pool counts as reserved.
    """
    expected, parts = like[0].record.memory_expected, mean_parts(like)
    # A size computed from the model's shape is not a measurement.
    measured = {
        name: parts[name].size_bytes
        for name in (WEIGHTS, KV_CACHE)
        if name in parts and "computed" not in parts[name].sources
    }
    if KV_CACHE in measured:
        measured[KV_CACHE] = sum(each.kv.size_bytes or 0.0 for each in like) / len(like)
    by_part = {
        name: (float(expected[name]), size) for name, size in measured.items() if size and name in expected
    }
    if {WEIGHTS, KV_CACHE, "overhead"} <= expected.keys():
        whole = expected[WEIGHTS] + expected[KV_CACHE] + expected["overhead"]
        by_part["total"] = float(whole), sum(each.total_bytes for each in like) / len(like)
    return by_part


# --- over time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """The memory of a start over time, in seconds from the server's spawn, or from the first sample."""

    record: StartRecord
    title: str  # the start's number among its deployment's
    what: str
    t_s: np.ndarray
    size_bytes: np.ndarray
    windows: Sequence[tuple[str, float, float]]  # load, begin and end in seconds

    @property
    def label(self) -> str:
        return self.record.deployment.label

    @property
    def peak_bytes(self) -> float:
        return float(self.size_bytes.max())


@once
def courses_of(run: Run) -> list[Course]:
    """Return the memory over time of each start that was sampled, in the order of the deployments."""
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
    """Return the reasons why parts of the memory could not be read, each with its starts. What a server's own
    metrics lack is left out."""
    notes = (
        (f"{what.replace('_', ' ')}: {why}", record.name)
        for record in run.start_records
        for what, why in record.memory_notes.items()
        if not what.startswith("server ")
    )
    return list(gathered(notes).items())
