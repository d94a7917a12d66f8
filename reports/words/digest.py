"""A run in a few words, for the index of runs, kept beside it so that many runs need not be read again.

headline.json in a run's directory holds the digest and what it was made from. When one of the run's records
has changed, or DIGEST_VERSION has, it is made again.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.errors import StoreError
from harness.store import store
from harness.whole_files import write_whole
from reports.data.run import Run, open_run
from reports.words.answer import headline
from reports.words.described import device, loads_words, question

DIGEST_VERSION = 3
DIGEST_FILE = "headline.json"


@dataclass(frozen=True)
class Digest:
    """A row of the index. `starts`: of each deployment; `cells` were planned, `measured` completed."""

    run_id: str
    created_at: str
    question: str
    headline: str
    engines: tuple[str, ...]
    models: tuple[str, ...]
    quantizations: tuple[str, ...]
    scenarios: tuple[str, ...]
    loads: str
    device: str
    starts: int
    cells: int
    measured: int
    status: str


@dataclass(frozen=True)
class Kept:
    """The content of headline.json. `sources`: see sources_of."""

    version: int
    sources: tuple[int, int, int]
    digest: Digest


def digest_of(run: Run) -> Digest:
    """Return the digest of an open run."""
    cells = run.planned_cells
    deployments = run.deployments.values()
    return Digest(
        run_id=run.record.run_id,
        created_at=run.record.created_at,
        question=question(run),
        headline=headline(run),
        engines=tuple(dict.fromkeys(each.engine for each in deployments)),
        models=tuple(dict.fromkeys(each.model for each in deployments if each.model != "-")),
        quantizations=tuple(dict.fromkeys(d.quantization for d in deployments if d.quantization != "-")),
        scenarios=tuple(dict.fromkeys(cell.planned.scenario.label for cell in cells)),
        loads=loads_words(run),
        device=device(run),
        starts=run.repeats,
        cells=len(cells),
        measured=sum(cell.status == "completed" for cell in cells),
        status=run.record.status,
    )


def digest(run_dir: Path) -> Digest:
    """Return the kept digest if it still holds, else a new one, which is kept.

    Raises StoreError where the run cannot be read.
    """
    sources = sources_of(run_dir)
    with suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode((run_dir / DIGEST_FILE).read_bytes(), type=Kept)
        if (found.version, found.sources) == (DIGEST_VERSION, sources):
            return found.digest
    made = digest_of(open_run(run_dir))
    keep(run_dir, sources, made)
    return made


def sources_of(run_dir: Path) -> tuple[int, int, int]:
    """Return number, bytes and sum of change times of run.json and all records, of which a digest is made.

    Raises StoreError where there is no run.
    """
    try:
        records = (*run_dir.glob("starts/*/start.json"), *run_dir.glob("cells/*/cell.json"))
        found = [each.stat() for each in (run_dir / "run.json", *records)]
    except OSError as error:
        store.read_run(run_dir)  # it says what is wrong, in its own words
        raise StoreError(f"{run_dir}: cannot be read ({error})") from error
    # A JSON number of more than 64 bits would not be read back.
    times_ns = sum(each.st_mtime_ns for each in found) % 2**62
    return len(found), sum(each.st_size for each in found), times_ns


def keep(run_dir: Path, sources: tuple[int, int, int], made: Digest) -> None:
    """Write headline.json, whole or not at all; nothing where the directory cannot be written."""
    with suppress(OSError):
        kept = msgspec.json.encode(Kept(DIGEST_VERSION, sources, made))
        write_whole(run_dir / DIGEST_FILE, kept + b"\n")
