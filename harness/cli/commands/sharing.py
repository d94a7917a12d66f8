"""`bench verify` and `bench bundle`: whether a run's files are as they were written, and one file of them."""

import os
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import Json, complaints, print_json, print_lines
from harness.contracts import inert, known_secrets
from harness.errors import StoreError, UserError
from harness.settings.units import counted
from harness.store import bundle, checksums, store
from harness.store.named_files import PAGE_FILE, SUMS_FILE, check_place
from harness.store.secret_scan import secrets_of

_TOLD_SECRETS = 20


def verify(
    source: Annotated[Path, typer.Argument(metavar="DIR|BUNDLE", help="A run's directory, or its bundle.")],
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only what is wrong.")] = False,
) -> None:
    """Say which files of a run are changed, torn, missing or unlisted, by their checksums.

    They are written with the files. `sha256sum -c SHA256SUMS` in DIR compares them without bench. They tell
    of damage, not of a forger: who changes a file can change its checksum. headline.json, which `bench view`
    keeps to list runs sooner, and charts are not compared: remove them, and bench makes them again.
    Exit code 0: all are as written, 1: some are not, or the run has no checksums.
    """
    with bundle.opened_run(source, is_checked=False) as directory:
        has_list = (directory / SUMS_FILE).exists()
        if not has_list:
            store.read_run(directory)
        found = checksums.findings(directory)
        count = sum(1 for _ in checksums.files(directory))
        is_going_on = store.is_going_on(directory, "running")
        cut_off = None if is_going_on else _cut_off(directory)
    if is_going_on:  # what it writes now is whole, and listed, later
        found = [each for each in found if each.fault not in ("unlisted", "torn")]
    unlisted = sum(each.fault == "unlisted" for each in found)
    if as_json:
        told = {"directory": str(source), "files": count, "has_checksums": has_list}
        print_json({**told, "is_going_on": is_going_on, "findings": [asdict(each) for each in found]})
    else:
        print_lines(str(each) for each in found if each.fault != "unlisted" or not cut_off)
        if cut_off and unlisted:
            files = counted(unlisted, "file")
            print_lines(
                [f"{source}: this run was cut off, {files} not listed yet; {cut_off} goes on with it"]
            )
        if not has_list:
            print_lines([f"{source}: has no list of checksums (SHA256SUMS)"])
        elif not found and not quiet:
            still = "; the run goes on, and what it writes now is not listed yet" if is_going_on else ""
            print_lines([f"{source}: {counted(count, 'file')}, all as written{still}"])
    if found or not has_list:
        raise typer.Exit(1)


def _cut_off(directory: Path) -> str | None:
    """Return the command that goes on with a run that was killed; None for one that has its end."""
    try:
        record = store.read_run(directory)
    except StoreError:
        return None  # it is among the findings
    command = "search" if record.search else "run"
    return f"`bench {command} --resume {directory}`" if record.status == "running" else None


def bundle_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write.", show_default="./<run>.tar.gz")
    ] = None,
    allows_lookalikes: Annotated[
        bool,
        typer.Option(
            "--allow-lookalikes", help="Also with what only looks like a secret; look at each place first."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run into one file for others to run again, unless anything secret is in it.

    The file is a tar.gz of the run's directory with checksums; `bench rerun`, `compare`, `gate` and `verify`
    take it as it is. Everything is searched before: for the values of this environment's keys and tokens, of
    8 characters or more and however they are written, and for what has the form of one. Where there is any,
    nothing is written.
    Prompts and answers are in the file, and the paths of the run's settings.
    """
    record = store.read_run(directory)
    if store.is_going_on(directory, record.status):
        raise UserError(f"{directory}: is measured now; wait until it ends")
    out = output or Path(f"{directory.resolve().name}.tar.gz")
    check_place(out)
    _check_replaced(out, record)
    if not (directory / PAGE_FILE).exists():
        from reports import write_report

        write_report(directory)
    known, names = known_secrets(os.environ), (name for name, _ in checksums.files(directory))
    found = (each for name in names for each in secrets_of(directory, name, known))
    secret = dict.fromkeys(islice(found, _TOLD_SECRETS))
    if refused := [each for each in secret if each.is_ours or not allows_lookalikes]:
        complaints.print("\n".join(inert(str(each)) for each in refused), markup=False)
        remedy = "; --allow-lookalikes if none is" if not any(each.is_ours for each in refused) else ""
        raise UserError(f"{directory}: holds what must not be given away, or looks like it{remedy}")
    bundle.write_bundle(directory, out)
    if as_json:
        print_json({"directory": str(directory), "bundle": str(out), "bytes": out.stat().st_size})
    else:
        print_lines([str(out)])


def _check_replaced(out: Path, record: store.RunRecord) -> None:
    """Raise UserError for a file that is there already, unless it is a bundle of the same run."""
    if not out.is_file():
        return
    try:
        with bundle.opened_run(out, is_checked=False) as directory:
            there = store.read_run(directory)
    except (StoreError, UserError):
        is_same = False
    else:
        is_same = (there.run_id, there.created_at) == (record.run_id, record.created_at)
    if not is_same:
        raise UserError(f"{out}: is there already, and no bundle of this run; give another --output")
