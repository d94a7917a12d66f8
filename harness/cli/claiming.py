"""`bench claim`: list published sentences, run one as its file says, and say whether it is reproduced."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from harness.claims import claim as claims
from harness.claims import judging
from harness.claims.claim import Claim
from harness.claims.judging import Case, Judged, Judgement
from harness.cli import measuring, terminal
from harness.cli.planning import planned, skip_lines
from harness.cli.progress import Show
from harness.contracts import Plan
from harness.errors import BenchError, UserError
from harness.settings import config, overrides
from harness.settings.decoding import refuse_first
from harness.settings.units import number_text

if TYPE_CHECKING:  # they import pandas
    from reports.data import Group, Run

_Groups = Mapping[tuple[str, str, str], "Group"]
_Combinations = Sequence[tuple[Case, ...]]


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
        bool, typer.Option("--original", help="Run it as on the original's device, not scaled down.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the run; new or empty.", show_default="results/<time>"
        ),
    ] = None,
    as_json: terminal.Json = False,
    quiet: terminal.Quiet = False,
) -> None:
    """Run a published sentence about engines, and say whether it is reproduced here.

    It runs as its file says, scaled down to a small machine; KEY=VALUE changes that. The ratio is printed
    with its interval, then what differs from the original. Exit code 0: reproduced, 1: not reproduced, 3:
    inconclusive, or not testable here.
    """
    has_more = bool(changes or output or is_original)
    refuse_first(
        (name == "list" and (has_more or run_dir), "claim list: goes with --json alone"),
        (run_dir and has_more, "--from judges a run that exists; leave out keys, --original and --output"),
    )
    if name == "list":
        _print_list(as_json=as_json)
        return
    found = claims.find(name)
    _check_metric(found)
    why = None
    if run_dir is None:
        keys = claims.choices(found.original if is_original else found.here)
        settings = config.settings({**keys, **overrides.parse(changes or [])})
        why = _why_not_testable(found, planned(settings))
        if why is None:
            task = measuring.new_task(settings, None, output)
            run_dir, _ = measuring.measured(task, Show(quiet=quiet), as_json=as_json)
    accepted = found.predicate.accepted
    judgement = judge(found, run_dir) if run_dir else Judgement(found, accepted, "not testable here", why)
    exit_code = judging.EXIT_CODES[judgement.outcome]
    if as_json:
        terminal.print_json({**msgspec.to_builtins(judgement), "exit_code": exit_code})
    else:
        _print(judgement)
    raise typer.Exit(exit_code)


def _check_metric(found: Claim) -> None:
    if found.predicate.ratio is not None:
        from reports.measures.metrics import check_metric_name, metric_of

        metric = found.predicate.metric
        check_metric_name(metric, "predicate.metric")
        if metric_of(metric).is_additive:
            raise UserError(f"predicate.metric={metric}: is compared by a difference, and has no ratio")


def _why_not_testable(found: Claim, plan: Plan, cases: Sequence[Case] | None = None) -> str | None:
    """Return why a plan has not what is compared; None where it has. Raises UserError if it skips nothing."""
    cases = judging.cases_of(plan) if cases is None else cases
    if judging.combinations(found.predicate, cases):
        return None
    absent = judging.missing(found.predicate, cases)
    if not plan.skips:
        labels = ", ".join(plan.deployments) or "none"
        raise UserError(f"claim {found.name}: the run has no {absent}; its deployments: {labels}")
    return f"no {absent}; {'; '.join(skip_lines(plan.skips))}"


# --- what a run says -------------------------------------------------------------------------------


def judge(found: Claim, directory: Path) -> Judgement:
    """Return what a run says of a claim. Raises StoreError, and UserError for a run of other things."""
    from reports import open_run

    run = open_run(directory)
    record = run.record
    if record.search is not None:
        raise UserError(f"{directory}: is a search, which tried other loads on each start; give a run")
    groups = {group.key: group for group in run.groups}
    cells = {key: group.cells[0] for key, group in groups.items()}
    cases = [Case(cell.start.deployment, cell.load, *key[1:]) for key, cell in cells.items()]
    accepted, report = found.predicate.accepted, str(directory / "report.html")
    why = _why_not_testable(found, record.plan, cases)
    if why is not None:
        return Judgement(found, accepted, "not testable here", why, report=report)
    combinations = judging.combinations(found.predicate, cases)
    is_ratio = found.predicate.ratio is not None
    judged = tuple(
        _ratios(found, run, groups, combinations) if is_ratio else _values(found, run, combinations)
    )
    versions = {each.deployment.engine: each.version for each in run.start_records if each.version}
    deployments = list(run.deployments.values())
    differs = judging.differences(
        found.conditions, record.environment, record.settings, deployments, versions
    )
    outcome = judging.worst(each.outcome for each in judged)
    return Judgement(found, accepted, outcome, None, judged, differs, report)


def _ratios(found: Claim, run: "Run", groups: _Groups, combinations: _Combinations) -> Iterator[Judged]:
    """Yield what the interval of each ratio says: of all together, at the level of this look at the run."""
    from reports.stats.intervals import decide
    from reports.verdicts.comparisons import Pair, alpha_of, comparisons_of, question_of, why_busy

    questions = []
    for a, b in combinations:
        own = groups[b.key], groups[a.key]
        whole = comparisons_of(run).why_none or why_busy(run, *own)
        pair = Pair((b.text, a.text), (run, run), own, whole)
        questions.append(question_of(pair, found.predicate.metric, 0.0))
    for (a, b), told in zip(combinations, decide(questions, alpha_of(run)), strict=True):
        made = Judged(f"{a.text} over {b.text}", "inconclusive", why=told.why)
        yield _with_interval(made, found, told.ratio, told.low, told.high, told.confidence)


def _values(found: Claim, run: "Run", combinations: _Combinations) -> Iterator[Judged]:
    """Yield how far the answers of each deployment are from its reference's."""
    from reports.measures.quality import Quality, quality_of
    from reports.stats.intervals import CONFIDENCE

    for label in dict.fromkeys(case.deployment.label for (case,) in combinations):
        known = quality_of(run).get(label, Quality(label, why="quality was not asked; give quality=fidelity"))
        why = "it is the reference itself" if known.is_reference else known.why_not_known
        low, high = known.interval or (None, None)
        value = known.told.kl_nats if known.told else None
        yield _with_interval(Judged(label, "inconclusive", why=why), found, value, low, high, CONFIDENCE)


def _with_interval(
    made: Judged, found: Claim, value: float | None, low: float | None, high: float | None, confidence: float
) -> Judged:
    if made.why or value is None or low is None or high is None:
        return made
    outcome = judging.outcome_of(low, high, found.predicate.accepted)
    return Judged(made.compared, outcome, value, low, high, confidence)


# --- what is printed -------------------------------------------------------------------------------


def _print(judgement: Judgement) -> None:
    found, (least, most) = judgement.claim, judgement.accepted
    ends = {f"from {number_text(least)}": least > 0, f"to {number_text(most)}": most < float("inf")}
    counts = " ".join(text for text, is_there in ends.items() if is_there)
    lines = [
        f'"{found.sentence}"',
        f"{found.source.who}, {found.source.date}, {found.source.where}",
        *([f"Read as: {found.reading}"] if found.reading else []),
        f"Asked: {found.predicate.words}; reproduced if the whole interval is {counts}",
        "",
    ]
    terminal.print_lines(lines, fold=True)
    for rows in (list(map(_row, judgement.judged)), list(map(msgspec.to_builtins, judgement.differs))):
        if rows:
            terminal.print_rows(rows)
            terminal.out.print()
    terminal.print_lines((f"{each.compared}: {each.why}" for each in judgement.judged if each.why), fold=True)
    why = f": {judgement.why}" if judgement.why else ""
    terminal.print_lines([f"{found.name}: {judgement.outcome}{why}", *filter(None, [judgement.report])])


def _row(each: Judged) -> terminal.Row:
    value, low, high = map(number_text, (each.value, each.low, each.high))
    interval = f"{low} to {high} ({100 * each.confidence:.4g} %)" if each.confidence else "-"
    return {"compared": each.compared, "value": value, "interval": interval, "outcome": each.outcome}


def _print_list(*, as_json: bool) -> None:
    found = [claims.read(path) for path in claims.known().values()]
    here = {each.name: _why_not_here(each) for each in found}
    if as_json:
        terminal.print_json(
            [{**msgspec.to_builtins(each), "why_not_here": here[each.name]} for each in found]
        )
        return
    rows = [
        {
            "claim": each.name,
            "sentence": each.sentence,
            "source": f"{each.source.who}, {each.source.date}",
            "here": here[each.name] or "can be tested",
        }
        for each in found
    ]
    terminal.print_rows(rows)


def _why_not_here(found: Claim) -> str | None:
    try:
        return _why_not_testable(found, planned(config.settings(claims.choices(found.here))))
    except BenchError as error:
        return str(error)
