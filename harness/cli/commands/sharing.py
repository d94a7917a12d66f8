"""`bench verify` and `bench bundle`: check whether a run's files have changed, and pack them into one."""

import os
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from serving_bench.harness.cli.terminal import Json, complaints, print_json, print_lines
from serving_bench.harness.cli.trust import beginning_of
from serving_bench.harness.contracts import inert, known_secrets, plural
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.store import bundle, checksums, store
from serving_bench.harness.store.named_files import PAGE_FILE, SUMS_FILE, check_place
from serving_bench.harness.store.secret_scan import secrets_of

_TOLD_SECRETS = 20


def verify(
    source: Annotated[Path, typer.Argument(metavar="DIR|BUNDLE", help="A run's directory, or its bundle.")],
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only what is wrong.")] = False,
) -> None:
    """Check a run's files against their checksums: which are changed, torn, missing or unlisted.

    The checksums are written with the files; `sha256sum -c SHA256SUMS` in DIR compares them without bench.
    They show damage, not forgery: whoever changes a file can change its checksum. headline.json (a cache of
    `bench view`) and charts are not compared; if you remove them, bench makes them again.
    Exit code 0: all are as written, 1: some are not, or the run has no checksums.
    """
    with bundle.opened_run(source, is_checked=False) as directory:
        has_list = (directory / SUMS_FILE).exists()
        if not has_list:
            store.read_run(directory)
        faults = checksums.findings(directory)
        count = sum(1 for _ in checksums.files(directory))
        is_going_on = store.is_going_on(directory, "running")
        cut_off = None if is_going_on else _cut_off(directory)
        asks = _asks(directory)
    if is_going_on:  # what it is writing now will be whole and listed later
        faults = [each for each in faults if each.fault not in ("unlisted", "torn")]
    unlisted = sum(each.fault == "unlisted" for each in faults)
    if as_json:
        answer = {"directory": str(source), "files": count, "has_checksums": has_list}
        findings = [asdict(each) for each in faults]
        print_json({**answer, "is_going_on": is_going_on, "findings": findings, "asks_for": asks})
    else:
        print_lines(f"{source}: asks for {beginning_of(each)}: to take it, type it" for each in asks)
        print_lines(str(each) for each in faults if each.fault != "unlisted" or not cut_off)
        if cut_off and unlisted:
            files = plural(unlisted, "file")
            print_lines(
                [f"{source}: this run was cut off, {files} not listed yet; {cut_off} goes on with it"]
            )
        if not has_list:
            print_lines([f"{source}: has no list of checksums (SHA256SUMS)"])
        elif not faults and not quiet:
            still = "; the run goes on, and what it writes now is not listed yet" if is_going_on else ""
            print_lines([f"{source}: {plural(count, 'file')}, all as written{still}"])
    if faults or not has_list:
        raise typer.Exit(1)


def _asks(directory: Path) -> list[str]:
    """Return the settings of somebody else's run that a user has to agree to before it is run again."""
    from serving_bench.harness.run.recorded import choices_of  # they import Hydra, which takes 0.2 s
    from serving_bench.harness.settings.strangers import words

    try:
        choices = {} if store.is_own(directory) else choices_of(store.read_run(directory))
    except (StoreError, UserError):
        return []  # `rerun` says why they cannot be read
    asks: list[str] = []
    for key, values in choices.items():
        try:
            asks += words({key: values}, "asked")
        except UserError:
            asks.append(f"{key} of a wrong type")
    return asks


def _cut_off(directory: Path) -> str | None:
    """Return the command that resumes a run that was killed; None if the run has ended."""
    try:
        record = store.read_run(directory)
    except StoreError:
        return None  # it is among the findings
    return f"`{store.resuming(directory, record)}`" if record.status == "running" else None


def bundle_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write.", show_default="./<run>.tar.gz")
    ] = None,
    allows_lookalikes: Annotated[
        bool,
        typer.Option(
            "--allow-lookalikes", help="Accept what only looks like a secret; check each place first."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Pack a run into one file that others can rerun, unless there is a secret in it.

    The file is a tar.gz of the run's directory with checksums; `bench rerun`, `compare`, `gate` and `verify`
    take it as it is. Every file is searched first, for the keys and tokens of this environment (8 characters
    or more, encoded or not) and for text that looks like one. If any is found, nothing is written.
    Prompts and answers are in the file, and the paths of the run's settings, with ~ for your home directory.
    Logs may have full paths.
    """
    record = store.read_run(directory)
    if store.is_going_on(directory, record.status):
        raise UserError(f"{directory}: is being measured; wait until it ends")
    out = output or Path(f"{directory.resolve().name}.tar.gz")
    check_place(out)
    _check_replaced(out, record)
    if not (directory / PAGE_FILE).exists():
        from serving_bench.reports import write_report

        write_report(directory)
    secret_values, names = known_secrets(os.environ), (name for name, _ in checksums.files(directory))
    secrets = (each for name in names for each in secrets_of(directory, name, secret_values))
    secret = dict.fromkeys(islice(secrets, _TOLD_SECRETS))
    if refused := [each for each in secret if each.is_ours or not allows_lookalikes]:
        complaints.print("\n".join(inert(str(each)) for each in refused), markup=False)
        remedy = "" if any(each.is_ours for each in refused) else "; if none is one, give --allow-lookalikes"
        raise UserError(f"{directory}: contains secrets, or what looks like them{remedy}")
    bundle.write_bundle(directory, out)
    if as_json:
        print_json({"directory": str(directory), "bundle": str(out), "bytes": out.stat().st_size})
    else:
        print_lines([str(out)])


def _check_replaced(out: Path, record: store.RunRecord) -> None:
    """Raise UserError if the file exists and is not a bundle of the same run."""
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
        raise UserError(f"{out}: exists and is not a bundle of this run; give another --output")
