"""Put the judgement of a claim into text, for the terminal and the page; and why a plan cannot test it."""

from collections.abc import Sequence

import msgspec

from serving_bench.harness.claims import judging
from serving_bench.harness.claims.claim import Claim
from serving_bench.harness.claims.judging import Case, Judged, Judgement, Part
from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.commands.planning import why_none
from serving_bench.harness.contracts import Plan, ToldClaim, ToldPart
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.units import number_text


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
    what, are_options = absent
    if not plan.skips:
        labels = ", ".join(plan.deployments) or "none"
        raise UserError(f"claim {claim.name}: the run has no {what}; its deployments: {labels}")
    why = why_none(plan.skips)
    # The reason why an engine does not take an option names the option.
    is_one = len({skip.reason for skip in plan.skips}) == 1
    return why if are_options and is_one else f"no {what}: {why}"


def print_judgement(judgement: Judgement) -> None:
    claim_told = told_of(judgement)
    reading = [f"Read as: {claim_told.reading}"] if claim_told.reading else []
    terminal.print_lines([f'"{claim_told.sentence}"', claim_told.source, *reading, ""], fold=True)
    for part in claim_told.parts:
        terminal.print_lines([part.asked], fold=True)
        if part.rows:
            terminal.print_rows([dict(row) for row in part.rows])
        terminal.print_lines([*part.notes, ""], fold=True)
    if claim_told.differs:
        terminal.print_rows([dict(row) for row in claim_told.differs])
        terminal.out.print()
    kernels = [f"kernel of {label}: {kernel}" for label, kernel in judgement.kernels.items()]
    terminal.print_lines([*kernels, claim_told.answer, *filter(None, [judgement.report])])


def told_of(judgement: Judgement) -> ToldClaim:
    """Return the judgement as text for terminal and page."""
    claim, source = judgement.claim, judgement.claim.source
    parts = judgement.parts or tuple(Part(each, each.accepted, ()) for each in claim.predicates)
    why = f": {judgement.why}" if judgement.why else ""
    return ToldClaim(
        sentence=claim.sentence,
        source=f"{source.who}, {source.date}, {source.where}",
        reading=claim.reading,
        answer=f"{claim.name}: {judgement.outcome}{why}",
        parts=tuple(_told_part(each, is_judged=bool(judgement.parts)) for each in parts),
        differs=tuple(map(msgspec.to_builtins, judgement.differs)),
    )


def _told_part(part: Part, *, is_judged: bool) -> ToldPart:
    notes = [f"{each.compared}: {each.why}" for each in part.judged if each.why]
    notes += [f"The ratio {part.crossing}"] if part.crossing else []
    notes += ["The run has no value of it."] if is_judged and not part.judged else []
    return ToldPart(_asked(part), tuple(map(_row, part.judged)), tuple(notes))


def _asked(part: Part) -> str:
    if part.accepted is None:
        return f"Also shown: {part.asked.words}"
    least, most = part.accepted
    ends = {f"{number_text(least)} or more": least > 0, f"{number_text(most)} or less": most < float("inf")}
    counts = " and ".join(text for text, is_there in ends.items() if is_there)
    return f"Asked: {part.asked.words}; reproduced if the whole interval is {counts}"


def _row(each: Judged) -> terminal.Row:
    value, low, high = map(number_text, (each.value, each.low, each.high))
    interval = f"{low} to {high} ({100 * each.confidence:.4g} %)" if each.confidence else "-"
    return {"compared": each.compared, "value": value, "interval": interval, "outcome": each.outcome or "-"}
