"""Judge a published claim by a run, and keep the judgement in the run for its page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from serving_bench.harness.claims import claim as claims
from serving_bench.harness.claims import judging
from serving_bench.harness.claims.claim import KL_NATS, Predicate
from serving_bench.harness.claims.judging import Case, Differs, Judged, Judgement, Part
from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.claim_text import told_of, why_not_testable
from serving_bench.harness.contracts import because, inert
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.store import checksums, store
from serving_bench.harness.store.named_files import CLAIM_FILE, PAGE_FILE
from serving_bench.reports.data import Group, Run, once
from serving_bench.reports.measures import aggregate, has_interval
from serving_bench.reports.measures.quality import Quality, quality_of
from serving_bench.reports.stats.intervals import CONFIDENCE, STARTS_NEEDED, decide
from serving_bench.reports.verdicts import (
    Pair,
    alpha_of,
    comparisons_of,
    level_of_pair,
    question_of,
    why_busy,
)

_Groups = Mapping[tuple[str, str, str], Group]
_Combinations = Sequence[tuple[Case, ...]]


@once
def judged(run: Run, name: str) -> Judgement:
    """Judge the claim that a user names by a run, and store the judgement in the run for its page.

    Raises UserError for a search or an unrelated run.
    """
    judgement, path = _judged(run, name), run.path / CLAIM_FILE
    again = f"bench claim {name} --from {run.path}"
    try:
        with checksums.changing(run.path, CLAIM_FILE):
            store.write_record(path, replace(told_of(judgement), again=again, of_end=run.record.ended_at))
    except (OSError, StoreError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        warning = f"{path}: cannot be written ({why}), so the page does not say this"
        terminal.complaints.print(inert(warning), markup=False)
    return judgement


def _judged(run: Run, name: str) -> Judgement:
    claim, record = claims.find(name), run.record
    if record.search is not None:
        raise UserError(f"{run.path}: is a search, which tried other loads on each start; give a run")
    groups = {group.key: group for group in run.groups}
    cells = {key: group.cells[0] for key, group in groups.items()}
    cases = [Case(cell.start.deployment, cell.load, *key[1:]) for key, cell in cells.items()]
    report = str(run.path / PAGE_FILE)
    if why := why_not_testable(claim, record.plan, cases):
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
    if record.plan.race:
        differs += (Differs("repeats", "as many of each", "a race, which makes leads too large"),)
    outcome = judging.worst(each.outcome for part in parts for each in part.judged if each.outcome)
    return Judgement(claim, outcome, None, parts, kernels, differs, report)


def _part(run: Run, predicate: Predicate, groups: _Groups, cases: Sequence[Case]) -> Part:
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


def _ratios(run: Run, predicate: Predicate, groups: _Groups, combinations: _Combinations) -> Iterator[Judged]:
    """Yield each ratio with its interval, corrected for the number of ratios and of looks at the run."""
    questions = []
    for a, b in combinations:
        pair_groups = groups[b.key], groups[a.key]
        whole = comparisons_of(run).why_none or why_busy(run, *pair_groups)
        turn = predicate.turn and predicate.turn - 1
        pair = Pair((b.text, a.text), (run, run), pair_groups, whole, turn)
        question = question_of(pair, predicate.metric, 0.0)
        questions.append(replace(question, alpha=level_of_pair(run, pair)))
    for (a, b), verdict in zip(combinations, decide(questions, alpha_of(run)), strict=True):
        compared = f"{a.text} over {b.text}"
        yield Judged(
            compared, None, verdict.ratio, verdict.low, verdict.high, verdict.confidence, verdict.why
        )


def _values(run: Run, predicate: Predicate, groups: _Groups, combinations: _Combinations) -> Iterator[Judged]:
    """Yield each case's mean over its starts, with its interval."""
    for (case,) in combinations:
        aggregate_of_case = aggregate(run, groups[case.key], predicate.metric)
        few = because("interval_needs_more_starts", needed=STARTS_NEEDED, k=aggregate_of_case.k)
        low, high = aggregate_of_case.interval or (None, None)
        why = None if has_interval(aggregate_of_case) else aggregate_of_case.why or few
        yield Judged(case.text, None, aggregate_of_case.mean, low, high, CONFIDENCE, why)


def _divergences(run: Run, combinations: _Combinations) -> Iterator[Judged]:
    """Yield the divergence of each deployment's answers from its reference's."""
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
