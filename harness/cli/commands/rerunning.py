"""`bench rerun`: run the plan of an earlier run again, and show what differs on this machine."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from serving_bench.engines import ENGINES
from serving_bench.engines.model import weights
from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.commands.jobs import due_of, new_job, plan_again, typed_settings
from serving_bench.harness.cli.commands.measuring import conclude, perform
from serving_bench.harness.cli.commands.planning import check_any, print_plan, search_lines
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.cli.trust import agreed, tell_changed
from serving_bench.harness.contracts import Plan, Weights, inert, plural
from serving_bench.harness.errors import UserError
from serving_bench.harness.install import install
from serving_bench.harness.install.builds import select_devices
from serving_bench.harness.install.provision import at_hand, device_of
from serving_bench.harness.quality.planned import asking
from serving_bench.harness.run.next_starts import unlike_cells
from serving_bench.harness.run.recorded import OUTSIDE, choices_of, outside
from serving_bench.harness.sampling import environment
from serving_bench.harness.settings import overrides
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store import bundle, store

if TYPE_CHECKING:  # it imports pandas
    from serving_bench.reports.two_runs.matching import Difference


def rerun(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|DIR", help="A bundle, or a run's directory.")],
    changes: terminal.Overrides = None,
    output: terminal.Output = None,
    is_plan: Annotated[
        bool, typer.Option("--plan", help="Show what differs here and what would be run. Starts nothing.")
    ] = False,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Show what differs between this machine and the one a run was measured on, then run the same plan.

    This makes a new run in a new directory. It runs what was planned before the run's first start, with the
    same conversations. Keys that are given here override the run's; if they change what is started or played,
    it is planned again. At the end it prints the command that compares the two.
    """
    with bundle.opened_run(source) as directory:
        record, starts = store.read_run(directory), store.read_starts(directory)
        is_own = store.is_own(directory)
    if record.foreign:
        raise UserError(f"{source}: was measured by {record.foreign.tool}, whose plan is not known")
    typed = overrides.parse(changes or [])
    choices = choices_of(record)
    given = agreed(source, choices, typed, is_own=is_own, may_ask=not is_plan)
    settings = typed_settings(given, is_search=record.search is not None)
    changes = [key for key, values in typed.items() if choices.get(key) != values]
    settings, whole, is_recorded = plan_again(source, record, settings, changes, output)
    check_any(whole, "search" if settings.search else "run")
    differences, show = _differences(record, starts, settings, whole), Show(quiet=quiet)
    if source.is_dir():  # a changed bundle was refused
        tell_changed(source)
    cells, left_out = sum(len(start.cells) for start in whole.starts), unlike_cells(record.plan, whole)
    others = 0 if is_recorded else left_out
    if is_plan and as_json:
        answer = {
            "differences": [asdict(each) for each in differences],
            "cells": cells,
            "other_cells": others,
        }
        terminal.print_json({**answer, "plan": msgspec.to_builtins(whole)})
        return
    to = terminal.out if is_plan else show.console
    _print_differences(differences, to)
    to.print(
        inert(_what_runs(source, record, cells, left_out, changes, is_recorded=is_recorded)), markup=False
    )
    if is_plan:
        questions = asking(due_of(settings, whole), whole.starts)
        print_plan(whole, settings.until, questions)
        if settings.search:
            terminal.print_lines(search_lines(settings.search, whole, questions))
        return
    with new_job(settings, whole, output, record.only_repeat) as job:
        # Each start of a search has loads of its own.
        compare = "" if settings.search else join(["bench", "compare", str(source), str(job.directory)])
        result = perform(job, show, as_json=as_json)
        conclude(job, result, show, as_json=as_json, then=compare)


def _what_runs(
    source: Path,
    record: store.RunRecord,
    cells: int,
    others: int,
    changes: Sequence[str],
    *,
    is_recorded: bool,
) -> str:
    """Say how many cells run, and how many of them are the run's own."""
    runs, own = f"{source}: {plural(cells, 'cell')} to run", "with its seed, load and scenario"
    if is_recorded:
        why = f": {record.stopped_because}" if record.stopped_because else ""
        return f"{runs}, as it was planned, {own}" + (
            f"; it left out {others} of them{why}" if others else ""
        )
    because = f"since {', '.join(changes)} changed" if changes else "since this bench plans it otherwise"
    return f"{runs}, planned again {because}; {cells - others} of them {own}"


def _differences(
    record: store.RunRecord, starts: Sequence[store.StartRecord], settings: Settings, whole: Plan
) -> list["Difference"]:
    """Return what differs between a recorded run and the same plan on this machine, weights included."""
    from serving_bench.reports.two_runs.matching import Difference, planned_differences

    deployments, has_device = whole.deployments, bool(select_devices(device_of(settings)))
    here = at_hand(deployments.values(), weights, install.cache_dir(), has_device=has_device)
    facts = {**environment.facts(), "engine_packages": here.versions, OUTSIDE: outside(whole)}
    # A fact that an earlier bench did not record is no difference.
    facts = {name: fact for name, fact in facts.items() if name in record.environment}
    given = store.as_stored(settings.given)
    planned = replace(record, settings=given, plan=whole, environment=msgspec.to_builtins(facts))
    differences = list(planned_differences(record, planned))
    measured_with = {start.deployment.label: start.weights.get("sha256") for start in starts}
    for label, deployment in deployments.items():
        needed = ENGINES[deployment.engine].weights(deployment)
        file = here.weights.get(needed) if isinstance(needed, Weights) else None
        was, now = measured_with.get(label), file.sha256 if file else "not here yet"
        if was and was != now:
            differences.append(Difference("flags", "weights sha256", str(was), now, label))
    return differences


def _print_differences(differences: Sequence["Difference"], to: Console) -> None:
    from serving_bench.harness.cli.compare_text import print_differences

    if differences:
        print_differences(differences, ("there", "here"), to)
    else:
        to.print("nothing that the run recorded is different on this machine")
