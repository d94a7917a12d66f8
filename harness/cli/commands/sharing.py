"""`bench verify`: what of a run is not as it was written."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import Json, print_json, print_lines
from harness.settings.units import counted
from harness.store import checksums, store
from harness.store.named_files import SUMS_FILE


def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    as_json: Json = False,
) -> None:
    """Say which files of a run are changed, torn, missing or unlisted, by their checksums.

    They are written with the files. `sha256sum -c SHA256SUMS` in DIR compares them without bench. They tell
    of damage, not of a forger: who changes a file can change its checksum. Exit code 0: all are as written,
    1: some are not, or the run has no checksums.
    """
    has_list, is_going_on = (directory / SUMS_FILE).exists(), store.is_going_on(directory, "running")
    if not has_list:
        store.read_run(directory)
    found = checksums.findings(directory)
    if is_going_on:
        found = [each for each in found if each.fault not in ("unlisted", "torn")]
    count = sum(1 for _ in checksums.files(directory))
    if as_json:
        told = {"directory": str(directory), "files": count, "has_checksums": has_list}
        print_json({**told, "is_going_on": is_going_on, "findings": [asdict(each) for each in found]})
    else:
        print_lines(map(str, found))
        if not has_list:
            print_lines([f"{directory}: has no checksums, since its bench wrote none"])
        elif not found:
            still = "; the run goes on, and what it writes now is not listed yet" if is_going_on else ""
            print_lines([f"{directory}: {counted(count, 'file')}, all as written{still}"])
    if found or not has_list:
        raise typer.Exit(1)
