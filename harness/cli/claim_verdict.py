"""Judge a published claim by a run, and keep the judgement in the run for its page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from serving_bench.harness.claims import claim as claims
from serving_bench.harness.claims import judging
from serving_bench.harness.claims.claim import KL_NATS, Claim, Predicate
from serving_bench.harness.claims.judging import Case, Judged, Judgement, Part
from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.claim_text import told_of
from serving_bench.harness.cli.commands.planning import why_none
from serving_bench.harness.contracts import Plan, because, inert
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.store import checksums, store
from serving_bench.harness.store.named_files import CLAIM_FILE

if TYPE_CHECKING:  # they import pandas
    from serving_bench.reports.data import Group, Run

_Groups = Mapping[tuple[str, str, str], "Group"]
_Combinations = Sequence[tuple[Case, ...]]


def judged(name: str, run_dir: Path) -> Judgement:
    """Judge the claim that a user names by a run, and store the judgement in the run for its page."""
    judgement = judge(claims.find(name), run_dir)
    of_end = store.read_run(run_dir).ended_at
    verdict = replace(told_of(judgement), again=f"bench claim {name} --from {run_dir}", of_end=of_end)
    try:
        with checksums.changing(run_dir, CLAIM_FILE):
            store.write_record(run_dir / CLAIM_FILE, verdict)
    except (OSError, StoreError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        warning = f"{run_dir / CLAIM_FILE}: cannot be written ({why}), so the page does not say this"
        terminal.complaints.print(inert(warning), markup=False)
    return judgement


def why_not_testable(claim: Claim, plan: Plan, cases: Sequence[Case] | None = None) -> str | None:
    """Return why the plan lacks a case of the claim; None if it has all.

    Raises UserError for a plan that lacks one although it skips nothing.
    """
    cases = judging.cases_of(plan) if cases is None else cases
    with_figures = [predicate for predicate in claim.predicates if predicate.figures]
    absent = next(
        (judging.missing(e, cases) for e in with_figures if not judging.combinations(e, cases)), None
    )
    if absent is None:
        return None
    if not plan.skips:
        labels = ", ".join(plan.deployments) or "none"
        raise UserError(f"claim {claim.name}: the run has no {absent}; its deployments: {labels}")
    why = why_none(plan.skips)
    return why if why.startswith(absent) else f"no {absent}: {why}"


def judge(claim: Claim, directory: Path) -> Judgement:
    """Return what a run says of a claim. Raises StoreError; UserError for a search or an unrelated run."""
    from serving_bench.reports import open_run

    run = open_run(directory)
    record = run.record
    if record.search is not None:
        raise UserError(f"{directory}: is a search, which tried other loads on each start; give a run")
    groups = {group.key: group for group in run.groups}
    cells = {key: group.cells[0] for key, group in groups.items()}
    cases = [Case(cell.start.deployment, cell.load, *key[1:]) for key, cell in cells.items()]
    report = str(directory / "report.html")
    why = why_not_testable(claim, record.plan, cases)
    if why is not None:
        return Judgement(claim, "not testable here", why, report=report)
    parts = tuple(_part(run, predicate, groups, cases) for predicate in claim.predicates)
    versions = {each.deployment.engine: each.version for each in run.start_records if each.version}
    kernels = {
        each.deployment.label: str(each.resolved["quantization_kernel"])
        for each in run.start_records
        if "quantization_kernel" in each.resolved
    }
    deployments = list(run.deployments.values())
    differs = judging.differences(claim, record.environment, record.settings, deployments, versions)
    outcome = judging.worst(each.outcome for part in parts for each in part.judged if each.outcome)
    return Judgement(claim, outcome, None, parts, kernels, differs, report)


def _part(run: "Run", predicate: Predicate, groups: _Groups, cases: Sequence[Case]) -> Part:
    combinations = judging.combinations(predicate, cases)
    if predicate.ratio is None:
        is_kl = predicate.metric == KL_NATS
        values = _divergences(run, combinations) if is_kl else _values(run, predicate, groups, combinations)
        return Part(predicate, predicate.accepted, tuple(_held(each, predicate) for each in values))
    judged = [_held(each, predicate) for each in _ratios(run, predicate, groups, combinations)]
    by_load = [(a.load, each) for (a, b), each in zip(combinations, judged, strict=True) if a.load == b.load]
    has_one_pair = len({(a.deployment.label, b.deployment.label) for a, b in combinations}) == 1
    return Part(
        predicate, predicate.accepted, tuple(judged), judging.crossing(by_load) if has_one_pair else None
    )


def _ratios(
    run: "Run", predicate: Predicate, groups: _Groups, combinations: _Combinations
) -> Iterator[Judged]:
    """Yield each ratio with its interval, corrected for the number of ratios and of looks at the run."""
    from serving_bench.reports.stats.intervals import decide
    from serving_bench.reports.verdicts import Pair, alpha_of, comparisons_of, question_of, why_busy

    questions = []
    for a, b in combinations:
        pair_groups = groups[b.key], groups[a.key]
        whole = comparisons_of(run).why_none or why_busy(run, *pair_groups)
        turn = predicate.turn and predicate.turn - 1
        pair = Pair((b.text, a.text), (run, run), pair_groups, whole, turn)
        questions.append(question_of(pair, predicate.metric, 0.0))
    for (a, b), verdict in zip(combinations, decide(questions, alpha_of(run)), strict=True):
        compared = f"{a.text} over {b.text}"
        yield Judged(
            compared, None, verdict.ratio, verdict.low, verdict.high, verdict.confidence, verdict.why
        )


def _values(
    run: "Run", predicate: Predicate, groups: _Groups, combinations: _Combinations
) -> Iterator[Judged]:
    """Yield each case's mean over its starts, with its interval."""
    from serving_bench.reports.measures.over_starts import aggregate, has_interval
    from serving_bench.reports.stats.intervals import CONFIDENCE, STARTS_NEEDED

    for (case,) in combinations:
        aggregate_of_case = aggregate(run, groups[case.key], predicate.metric)
        few = because("interval_needs_more_starts", needed=STARTS_NEEDED, k=aggregate_of_case.k)
        low, high = aggregate_of_case.interval or (None, None)
        why = None if has_interval(aggregate_of_case) else aggregate_of_case.why or few
        yield Judged(case.text, None, aggregate_of_case.mean, low, high, CONFIDENCE, why)


def _divergences(run: "Run", combinations: _Combinations) -> Iterator[Judged]:
    """Yield the divergence of each deployment's answers from its reference's."""
    from serving_bench.reports.measures.quality import Quality, quality_of
    from serving_bench.reports.stats.intervals import CONFIDENCE

    for label in dict.fromkeys(case.deployment.label for (case,) in combinations):
        quality = quality_of(run).get(label, Quality(label, why=because("quality_off")))
        why = because("is_reference") if quality.is_reference else quality.why_not_known
        low, high = quality.interval or (None, None)
        value = quality.told.kl_nats if quality.told else None
        yield Judged(label, None, value, low, high, CONFIDENCE, why)


def _held(judged: Judged, predicate: Predicate) -> Judged:
    """Return it with its outcome, if there is a figure. Without an interval it only has the reason."""
    if judged.why or judged.value is None or judged.low is None or judged.high is None:
        return Judged(judged.compared, "inconclusive" if predicate.accepted else None, why=judged.why)
    outcome = judging.outcome_of(judged.low, judged.high, predicate.accepted) if predicate.accepted else None
    return replace(judged, outcome=outcome)
