"""Files that are written whole or not at all: no reader sees half of one, no two writers mix theirs. A file
that a user names is none of a run's own."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UserError

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
# What a run's directory holds that cannot be made again, or is kept by bench.
_OF_A_RUN = (RUN_FILE, LOCK_FILE, "headline.json", "cells", "starts")


def write_whole(path: Path, contents: bytes) -> None:
    """Write beside the file's name and move into place; what was there stays until then. Two processes that
    write the same file do not meet: that of the last one stays.

    Raises OSError, and leaves nothing behind then.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(contents)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_named(path: Path, contents: bytes) -> None:
    """Write a file that a user named. Raises UserError where it cannot be written, and where it would take
    the place of something that belongs to a run."""
    check_named(path)
    try:
        write_whole(path, contents)
    except OSError as error:
        why = error.strerror if path.parent.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"{path}: cannot be written ({why})") from error


def check_named(path: Path) -> None:
    """Raise UserError where a file of a user's would be one of a run's own: its records, or anything in its
    cells and starts."""
    if path == Path():
        raise UserError("the name of the file to write is empty; give one")
    # The last name is not resolved: a link there is replaced, not followed.
    whole = path.parent.resolve() / path.name
    for folder in whole.parents:
        own = whole.relative_to(folder).parts[0].casefold() in _OF_A_RUN
        if own and (folder / RUN_FILE).is_file():
            raise UserError(f"{path}: belongs to the run in {folder}; give another file")
