"""Name the files of a run, and write files that a user names without replacing a run's own."""

import os
from pathlib import Path

from serving_bench.harness.errors import UserError
from serving_bench.harness.whole_files import PRIVATE, write_whole

RUN_FILE = "run.json"
PAGE_FILE = "report.html"
SUMS_FILE = "SHA256SUMS"
LOCK_FILE = ".lock"
CLAIM_FILE = "claim.json"
DIGEST_FILE = "headline.json"
# In the folder of a start or a reference, beside its start.json.
QUALITY_FILE, TASKS_FILE = "quality.parquet", "tasks.parquet"
# Files in a run's directory that cannot be made again, or that bench keeps there.
_OF_A_RUN = (RUN_FILE, LOCK_FILE, SUMS_FILE.casefold(), CLAIM_FILE, DIGEST_FILE, "cells", "starts")


def write_named(path: Path, contents: bytes) -> None:
    """Write a file that a user named. Raises UserError if it cannot be written or is one of a run's own."""
    check_named(path)
    try:
        write_whole(path, contents, mode=PRIVATE)
    except OSError as error:
        why = error.strerror if path.parent.is_dir() else f"there is no directory {path.parent}"
        raise UserError(f"{path}: cannot be written ({why})") from error


def check_place(path: Path) -> None:
    """Raise UserError, before there is anything to write, if a file could not be written at this path."""
    check_named(path)
    why = ""
    if path.is_dir():
        why = "it is a directory"
    elif not path.parent.is_dir():
        why = f"there is no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        why = f"the directory {path.parent} is read-only"
    if why:
        raise UserError(f"{path}: cannot be written ({why}); give a file in a directory of yours")


def check_named(path: Path) -> None:
    """Raise UserError if the path belongs to a run: a record, or anything in its cells or starts."""
    if path == Path():
        raise UserError("the name of the file to write is empty; give one")
    # The last name is not resolved: writing replaces a link, and does not follow it.
    whole = path.parent.resolve() / path.name
    for folder in whole.parents:
        if whole.relative_to(folder).parts[0].casefold() in _OF_A_RUN and (folder / RUN_FILE).is_file():
            raise UserError(f"{path}: belongs to the run in {folder}; give another file")
