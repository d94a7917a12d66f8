"""`bench merge` and `bench run --on`: one run of the repeats that several machines measure."""

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import terminal
from harness.cli.ending import report_whatever_happened, tell
from harness.cli.nodes_panel import NodesPanel
from harness.cli.progress import Show
from harness.errors import CellError, UserError
from harness.fleet import on_ray
from harness.run import session
from harness.settings.config import Settings
from harness.settings.units import counted
from harness.store.merge import merge, mergeable
from harness.store.named_files import RUN_FILE


def merge_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs, each of other repeats.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the whole run; new or empty.", show_default="results/<time>"
        ),
    ] = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Join runs of single repeats of one plan, measured on several machines, into one run.

    A single repeat is what `bench run --only-repeat K` measures. Each has all deployments on one machine, so
    that what tells machines apart is in no difference between deployments. The folders stay as they are.
    """
    session.check_output(output)
    records = mergeable(folders)
    directory = output or session.RESULTS / time.strftime("%Y%m%d-%H%M%S-merged")
    show = Show(quiet=quiet)
    with session.sole_writer(directory):
        merge(records, directory)
    _report(directory, 0, show, as_json=as_json)


def run_on(on: str, settings: Settings, output: Path | None, *, quiet: bool, as_json: bool) -> None:
    """Measure each repeat of a run on a node of a cluster, merge them, and report the whole."""
    where, _, address = on.partition(":")
    if where != "ray":
        raise UserError(f"--on {on}: choose ray, for the cluster of RAY_ADDRESS, or ray:HOST:PORT")
    if settings.until:
        raise UserError("--on ray: until decides itself how many repeats there are; give repeats=N")
    session.check_output(output)
    show = Show(quiet=quiet)
    nodes = on_ray.nodes_of(address or None, settings.device)
    machines = counted(len({each.boot_id for each in nodes}), "machine")
    show.line(f"{counted(settings.repeats, 'repeat')} on {machines}, one at a time on each")
    words = [f"{key}={','.join(values)}" for key, values in settings.given.items()]
    directory = output or session.new_run_dir(session.RESULTS, settings)
    parts = directory.with_name(f"{directory.name}-repeats")
    folders = {number: parts / f"{number}" for number in range(1, settings.repeats + 1)}
    with session.sole_writer(directory), terminal.signals_interrupt():
        with NodesPanel(show, settings.repeats) as panel:
            jobs = on_ray.measure(nodes, words, folders, panel.say)
        whole = {job.number: job for job in jobs if job.exit_code in (0, 1) and _is_run(folders[job.number])}
        for job in jobs:
            if job.number not in whole:
                show.line(f"repeat {job.number} is missing: {job.problem or job.last_line}")
        if not whole:
            raise CellError("no repeat was measured")
        lost = {number - 1: [each.name for each in job.lost_on] for number, job in whole.items()}
        merge(mergeable([folders[number] for number in whole]), directory, lost)
        if len(whole) == len(jobs):
            shutil.rmtree(parts)  # all of it is in the whole run
    is_fine = len(whole) == len(jobs) and not any(job.exit_code for job in jobs)
    _report(directory, 0 if is_fine else 1, show, as_json=as_json)


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file()


def _report(directory: Path, exit_code: int, show: Show, *, as_json: bool) -> None:
    found = report_whatever_happened(directory, show)
    if not found:
        raise typer.Exit(1)
    tell(found, str(directory / "report.html"), exit_code, show, as_json=as_json)
    if exit_code:
        raise typer.Exit(exit_code)
