"""A row of the index of runs: what a run asked, its headline, and what it was measured on.

headline.json in a run's directory holds it with what it was made from, so that an index of many runs need not
read them again. It is made again when one of the run's records or DIGEST_VERSION changes.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.files import read_json
from serving_bench.harness.store.named_files import DIGEST_FILE
from serving_bench.harness.whole_files import PRIVATE, write_whole
from serving_bench.reports.data import Run, open_run
from serving_bench.reports.words.answer import headline
from serving_bench.reports.words.described import device, question

DIGEST_VERSION = 6
# What a digest was made of: DIGEST_VERSION, then number, bytes and sum of change times of the run's records.
Sources = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digest:
    """A row of the index. `cells` were planned, `measured` completed."""

    run_id: str
    created_at: str
    question: str
    headline: str
    engines: tuple[str, ...]
    models: tuple[str, ...]
    quantizations: tuple[str, ...]
    scenarios: tuple[str, ...]
    device: str
    cells: int
    measured: int
    status: str


def digest_of(run: Run) -> Digest:
    cells, deployments = run.planned_cells, run.deployments.values()
    return Digest(
        run_id=run.record.run_id,
        created_at=run.record.created_at,
        question=question(run),
        headline=headline(run),
        engines=tuple(dict.fromkeys(each.engine for each in deployments)),
        models=tuple(dict.fromkeys(each.model for each in deployments if each.model != "-")),
        quantizations=tuple(dict.fromkeys(d.quantization for d in deployments if d.quantization != "-")),
        scenarios=tuple(dict.fromkeys(cell.planned.scenario.label for cell in cells)),
        device=device(run),
        cells=len(cells),
        measured=sum(cell.status == "completed" for cell in cells),
        status=run.record.status,
    )


def digest(run_dir: Path) -> Digest:
    """Return the stored digest if it is still valid; else make and store a new one.

    Raises StoreError if the run cannot be read.
    """
    sources = sources_of(run_dir)
    with suppress(OSError, StoreError):
        kept, stored = read_json(run_dir / DIGEST_FILE, tuple[Sources, Digest])
        if kept == sources:
            return stored
    digest_now = digest_of(open_run(run_dir))
    keep(run_dir, sources, digest_now)
    return digest_now


def sources_of(run_dir: Path) -> Sources:
    """Return DIGEST_VERSION and the number, total size and summed times of the run's records."""
    records = ("run.json", "starts/*/start.json", "cells/*/cell.json")
    stats = [each.stat() for record in records for each in run_dir.glob(record)]
    # A JSON number of more than 64 bits would not be read back.
    times_ns = sum(each.st_mtime_ns for each in stats) % 2**62
    return DIGEST_VERSION, len(stats), sum(each.st_size for each in stats), times_ns


def keep(run_dir: Path, sources: Sources, digest_now: Digest) -> None:
    """Write headline.json, whole or not at all; do nothing if the directory cannot be written."""
    with suppress(OSError):
        write_whole(run_dir / DIGEST_FILE, msgspec.json.encode((sources, digest_now)) + b"\n", mode=PRIVATE)
