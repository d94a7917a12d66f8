"""`bench merge` and `bench run --on`: make one run of repeats measured on several machines."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.ending import REPORTING, report_whatever_happened, tell
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import inert, plural, words_of
from serving_bench.harness.errors import BenchError, CellError, Interrupted, refuse_first
from serving_bench.harness.fleet import on_ray
from serving_bench.harness.run import session
from serving_bench.harness.settings.config import Settings, as_grid
from serving_bench.harness.store.merge import merge, mergeable
from serving_bench.harness.store.store import is_own, read_run


def merge_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Runs of different repeats.")],
    output: terminal.Output = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Merge runs of single repeats of one plan, measured on several machines, into one run.

    `bench run --only-repeat K` measures a single repeat. It has all deployments on one machine, so that a
    difference between machines is not taken for one between deployments. The folders stay as they are.
    """
    session.check_output(output)
    records = mergeable(folders)
    show = Show(quiet=quiet)
    with session.new_directory(output, "merged") as directory, terminal.signals_interrupt():
        merge(records, directory, is_own=all(map(is_own, records)))
    if lacks := read_run(directory).stopped_because:
        show.line(str(lacks))
    _report(directory, 0, show, as_json=as_json)


def run_on(on: str, settings: Settings, output: Path | None, show: Show, *, as_json: bool) -> None:
    """Measure each repeat of a run on a node of a cluster, merge them, and report the whole."""
    where, _, address = on.partition(":")
    refuse_first(
        (where != "ray", f"--on {on}: choose ray, for the cluster of RAY_ADDRESS, or ray:HOST:PORT"),
        (settings.until, "--on ray: until decides itself how many repeats there are; give repeats=N"),
        (
            settings.is_attached,
            "--on ray: all nodes would load the one server of engine.base_url at once; leave out --on",
        ),
    )
    session.check_output(output)
    settings = as_grid(settings, "--on ray gives each node a whole repeat, so none race")
    repeats = settings.repeats.most
    stopped: Interrupted | CellError | None = None
    run_lock = session.new_directory(output, *settings.scenario_names)
    with on_ray.joined(address) as ray, run_lock as directory, terminal.signals_interrupt():
        nodes = on_ray.nodes_of(ray, settings.device)
        machines = plural(len({each.boot_id for each in nodes}), "machine")
        show.line(f"{plural(repeats, 'repeat')} on {machines}, one at a time on each")
        parts = directory.with_name(f"{directory.name}-repeats")
        session.check_output(parts)
        jobs = [on_ray.Job(k, parts / f"{k}", settings) for k in range(1, repeats + 1)]
        try:
            panel = _Nodes(show, repeats)
            show.open_panel(panel)
            on_ray.measure(nodes, words_of(settings.given), jobs, panel)
        except (Interrupted, CellError) as error:
            stopped = error
        except OSError as error:
            message = f"{parts}: what nodes send cannot be stored: {error.strerror or error}"
            raise CellError(
                f"{message}; `bench merge` merges those repeats there that are complete"
            ) from error
        finally:
            show.close_panel()
        whole = [job for job in jobs if job.is_whole]
        for job in jobs:
            if not job.is_whole:
                why = job.problem or "it was not measured to its end"
                left = f"; what was sent is in {job.folder}" if job.folder.is_dir() else ""
                show.line(f"repeat {job.number} is missing: {why}{left}")
        if whole:
            lost = {job.number - 1: [each.name for each in job.lost_on] for job in whole}
            _merge([job.folder for job in whole], directory, lost)
        if len(whole) == len(jobs):
            shutil.rmtree(parts)  # all of it is in the whole run
    if whole:
        code = stopped.exit_code if stopped else int(any(job.exit_code != 0 for job in jobs))
        _report(directory, code, show, as_json=as_json)
    if stopped:
        raise stopped
    raise CellError(f"no repeat was measured; repeat 1: {jobs[0].problem}")


class _Nodes:
    """Shows a panel with a row per repeat: its node, and the last line that bench printed there."""

    def __init__(self, show: Show, repeats: int) -> None:
        self._show = show
        self._rows = dict.fromkeys(range(1, repeats + 1), ("-", "waits for a machine"))

    def say(self, node: str, number: int, line: str) -> None:
        """Show a line of a node, except what a repeat says at its end: the merged run says that."""
        if self._rows[number] == (node, REPORTING):
            return
        self._rows[number] = (node, line)
        self._show.line(f"repeat {number} on {node}: {line}")

    def __rich__(self) -> Table:
        table = Table("repeat", "node", "", box=None, pad_edge=False)
        for number, (node, line) in self._rows.items():
            done = "measured" if line == REPORTING else line
            table.add_row(str(number), Text(node), Text(inert(done), no_wrap=True, overflow="ellipsis"))
        return table


def _merge(folders: Sequence[Path], directory: Path, lost: Mapping[int, Sequence[str]]) -> None:
    try:
        records = {each: replace(of, argv=session.own_argv()) for each, of in mergeable(folders).items()}
        merge(records, directory, lost, is_own=True)  # check_repeat has compared them
    except BenchError as error:
        again = shlex.join(["bench", "merge", *map(str, folders)])
        raise CellError(f"{error}; what was measured stays: `{again}`") from error


def _report(directory: Path, exit_code: int, show: Show, *, as_json: bool) -> None:
    run = report_whatever_happened(directory, show)
    if not run:
        raise typer.Exit(1)
    tell(run, exit_code, show, as_json=as_json)
    raise typer.Exit(exit_code)
