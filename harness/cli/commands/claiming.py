"""`bench claim`: list published claims, run one as its file says, and say whether it is reproduced."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from serving_bench.harness.claims import claim as claims
from serving_bench.harness.claims import judging
from serving_bench.harness.claims.claim import KL_NATS, Claim
from serving_bench.harness.claims.judging import Judgement
from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.claim_text import print_judgement, why_not_testable
from serving_bench.harness.cli.commands.jobs import new_job, new_plan
from serving_bench.harness.cli.commands.measuring import perform
from serving_bench.harness.cli.commands.planning import planned
from serving_bench.harness.cli.ending import report_whatever_happened
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.cli.trust import agreed, tell_changed
from serving_bench.harness.contracts import sentence
from serving_bench.harness.errors import BenchError, UserError, refuse_first
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store


def claim(
    name: Annotated[
        str,
        typer.Argument(metavar="list|NAME|FILE", help="List all, or run one: bench's own, or a YAML file."),
    ],
    changes: terminal.Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Judge a run that exists; measure nothing.")
    ] = None,
    is_original: Annotated[
        bool, typer.Option("--original", help="Run it as on the original device, not scaled down.")
    ] = False,
    output: terminal.Output = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Test a published claim about engines on this machine, and say whether it is reproduced.

    It runs as its file says, scaled down to a small machine; KEY=VALUE changes that. The ratio is printed
    with its interval, then what differs from the original. Exit code 0: reproduced, 1: not reproduced, 3:
    inconclusive, or not testable here.
    """
    has_more = bool(changes or output or is_original)
    refuse_first(
        (name == "list" and (has_more or run_dir), "claim list: takes no option but --json"),
        (run_dir and has_more, "--from judges a run that exists; leave out keys, --original and --output"),
    )
    if name == "list":
        _print_list(as_json=as_json)
        return
    wanted = claims.find(name)
    _check_metrics(wanted)
    show = Show(quiet=quiet)
    if run_dir is None:
        keys = claims.choices(wanted.original if is_original else wanted.here)
        typed = overrides.parse(changes or [])
        settings = config.settings(agreed(name, keys, typed, is_own=name in claims.known()))
        settings = config.as_grid(settings, "a claim is judged by equally many starts of each")
        judgement, run_dir = _measure(wanted, name, settings, output, show, as_json=as_json)
    else:
        from serving_bench.harness.cli.claim_verdict import judged
        from serving_bench.reports import open_run

        judgement = judged(open_run(run_dir), name)
        if report_whatever_happened(run_dir, show) is None:
            judgement = replace(judgement, report=None)
        tell_changed(run_dir)
    _tell(judgement, name, run_dir, show, as_json=as_json)
    raise typer.Exit(judging.EXIT_CODES[judgement.outcome])


def _tell(judgement: Judgement, name: str, run_dir: Path | None, show: Show, *, as_json: bool) -> None:
    """Print the judgement of a claim. If it is inconclusive, also print how to measure more repeats."""
    if as_json:
        exit_code = judging.EXIT_CODES[judgement.outcome]
        terminal.print_json({**msgspec.to_builtins(judgement, enc_hook=sentence), "exit_code": exit_code})
    else:
        print_judgement(judgement)
    if judgement.outcome == "inconclusive" and run_dir is not None:
        more = f"`bench run --resume {run_dir} repeats={max(5, 2 * store.read_run(run_dir).plan.blocks)}`"
        again = f"more repeats may decide it: {more}, then `bench claim {name} --from {run_dir}`"
        show.line(again, is_whole=True)


def _measure(
    wanted: Claim, name: str, settings: config.Settings, output: Path | None, show: Show, *, as_json: bool
) -> tuple[Judgement, Path | None]:
    """Run a claim. Return the judgement and the run's directory: None, without a run, if it lacks a case."""
    settings, whole = new_plan(settings, output)
    if why := why_not_testable(wanted, whole):
        return Judgement(wanted, "not testable here", why), None
    with new_job(settings, whole, output) as job:
        run = perform(job, show, as_json=as_json, claim=name)
        from serving_bench.harness.cli.claim_verdict import judged

        return judged(run, name), job.directory


def _check_metrics(wanted: Claim) -> None:
    from serving_bench.reports.measures.metrics import check_metric_name, metric_of

    for predicate in wanted.predicates:
        if predicate.metric == KL_NATS:
            continue
        check_metric_name(predicate.metric, "predicates.metric")
        if predicate.ratio is not None and metric_of(predicate.metric).is_additive:
            message = f"predicates.metric={predicate.metric}: is compared by a difference, and has no ratio"
            raise UserError(message)


# --- the list -----------------------------------------------------------------------------------------


def _print_list(*, as_json: bool) -> None:
    listed = [claims.read(path) for path in claims.known().values()]
    here = {each.name: _why_not_here(each) for each in listed}
    if as_json:
        terminal.print_json(
            [{**msgspec.to_builtins(each), "why_not_here": here[each.name]} for each in listed]
        )
        return
    for each in listed:
        why = here[each.name]
        lines = [
            f"{each.name}: {each.source.who}, {each.source.date}",
            f'"{each.sentence}"',
            f"not testable here: {why}" if why else "can be tested here",
            "",
        ]
        terminal.print_lines(lines, fold=True)


def _why_not_here(wanted: Claim) -> str | None:
    try:
        return why_not_testable(wanted, planned(config.settings(claims.choices(wanted.here))))
    except BenchError as error:
        return str(error)
