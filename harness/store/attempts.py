"""Keep every attempt at a cell: a directory for each, the best one in the cell's own place."""

from itertools import count
from pathlib import Path

from harness.store import checksums
from harness.store.store import CellRecord, read_cell


def begin_cell(run_dir: Path, number: int) -> Path:
    """Make a fresh directory for a cell: <nnn>.attempt<k> until `settle` where another attempt is stored."""
    path = run_dir / "cells" / f"{number:03d}"
    checksums.unlist(run_dir, *_names(path))
    for aside in path.parent.glob(f"{path.name}.*.aside"):
        _end_swap(aside)
    attempts = (path.with_name(f"{path.name}.attempt{number}") for number in count(1))
    attempt = next(attempt for attempt in attempts if not attempt.exists())
    if (path / "cell.json").exists():
        path = attempt
    elif path.exists():
        path.rename(attempt)
    path.mkdir(parents=True)
    return path


def settle(attempt: Path, record: CellRecord) -> bool:
    """Put a stored attempt in its cell's place unless a better one is there. Return whether it is.

    What was there is <nnn>.attempt<k>.aside meanwhile. If that is cut short, the next `begin_cell` ends it.
    Then the files of all attempts are on the run's list of checksums.
    """
    path = attempt.with_name(f"{record.number:03d}")
    is_there = attempt == path or read_cell(path).worth <= record.worth
    if is_there and attempt != path:
        _end_swap(path.rename(f"{attempt}.aside"))
    checksums.relist(attempt.parent.parent, *_names(path))
    return is_there


def _names(path: Path) -> list[str]:
    """Return the names of a cell's directories in its run."""
    return [f"cells/{each.name}" for each in (path, *path.parent.glob(f"{path.name}.*"))]


def _end_swap(aside: Path) -> None:
    """Put an attempt in its cell's place, unless that was done, and `aside`, what was there, in its own."""
    attempt = aside.with_suffix("")
    if not attempt.with_suffix("").exists():
        attempt.rename(attempt.with_suffix(""))
    aside.rename(attempt)
