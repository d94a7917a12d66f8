"""The decision in sentences: the top of the page, and what a table's cell says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.contracts import Objective
from reports.decision import COST, NEEDED, PEAK, SPEED, Row, decision_rows
from reports.intervals import CONFIDENCE
from reports.markup import number, plural, several, shown
from reports.picks import Candidate, Pick
from reports.search_decision import CAPACITY, search_rows
from reports.verdict_words import ratio_text
from reports.verdicts import STARTS_NEEDED

if TYPE_CHECKING:
    from reports.frames import Run

_SHORT = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
# The metric whose verdicts decide a column.
_DECIDED_BY = {SPEED: SPEED, COST: SPEED, PEAK: PEAK}


def slo_words(slo: Sequence[Objective]) -> str:
    """`p95 TTFT 300 ms, p95 TPOT 20 ms, 99 % success`."""
    return ", ".join(
        f"{100 * each.share:g} % success"
        if each.limit_s is None
        else f"{objective_words(each)} {1e3 * each.limit_s:g} ms"
        for each in slo
    )


def objective_words(objective: Objective) -> str:
    """Without what is asked: `p95 TTFT`, `success`."""
    if objective.limit_s is None:
        return objective.metric
    return f"p{100 * objective.share:g} {_SHORT.get(objective.metric, objective.metric)}"


def amount_words(metric: str, candidate: Candidate) -> str:
    """A mean over starts in the unit that a person reads, without it: `166.7 [162.0, 171.5]`."""
    value = candidate.value
    said = _value(metric, value.mean)
    if value.interval is None or value.k < STARTS_NEEDED:
        return said
    low, high = (_value(metric, end) for end in value.interval)
    return f"{said} [{low}, {high}]"


def _value(metric: str, value: float | None) -> str:
    if metric == CAPACITY:
        return number(value) if value is None else f"{value:.4g}"
    return shown(PEAK if metric == NEEDED else metric, value)


def next_words(pick: Pick) -> str:
    """The best against the second by value: `1.31x [1.24, 1.38] vllm awq`, or the second's value."""
    if pick.next is None:
        return ""
    if ratio := _ratio(pick):
        return f"{ratio} {pick.next.label}"
    return f"next: {pick.next.label} {amount_words(pick.metric, pick.next)}"


def tied_words(pick: Pick) -> str:
    """Those that are not proven worse, the second by value with its ratio or value."""
    second = pick.next.label if pick.next else ""
    said = _ratio(pick) or (amount_words(pick.metric, pick.next) if pick.next else "")
    return several([f"{label} ({said})" if label == second and said else label for label in pick.ties])


def _ratio(pick: Pick) -> str:
    return ratio_text(_DECIDED_BY[pick.metric], pick.verdict) if pick.verdict else ""


# --- the answer ------------------------------------------------------------------------------------


def answer(run: Run) -> str | None:
    """The sentences for the top of the page, one for each scenario and model; None without an SLO.

    At the highest load that a deployment keeps the SLO at: how many do, and which is the fastest. Of a
    search: which takes the most load.
    """
    rows, say = (search_rows(run), _searched) if run.record.search else (decision_rows(run), _decided)
    cases = dict.fromkeys((row.scenario, row.model) for row in rows)
    said = [_case(run, rows, case, say) for case in cases]
    if len(cases) > 1:
        has_models = len({model for _, model in cases}) > 1
        names = [f"{scenario}, {model}" if has_models else scenario for scenario, model in cases]
        said = [f"{name}: {each}" for name, each in zip(names, said, strict=True)]
    return " ".join(said) or None


def _case(
    run: Run, rows: Sequence[Row], case: tuple[str, str], say: Callable[[Run, Sequence[Row]], str]
) -> str:
    return say(run, [row for row in rows if (row.scenario, row.model) == case])


def _decided(run: Run, rows: Sequence[Row]) -> str:
    slo = slo_words(run.record.slo)
    kept = [row for row in rows if row.labels("kept")]
    if not kept:
        return f"No deployment is known to keep the SLO ({slo}) at any load{_maybe(rows)}."
    row = kept[-1]
    labels, all_labels = row.labels("kept"), [each.label for each in row.standings]
    count = labels[0] if len(all_labels) == 1 else f"{len(labels)} of {plural(len(all_labels), 'deployment')}"
    said = f"At {row.load} {count} {'keeps' if len(labels) == 1 else 'keep'} the SLO ({slo})"
    pick = row.picks.get("fastest")
    if pick and len(all_labels) > 1:
        said += f": {_fastest(run, pick, labels)}"
    return f"{said}.{_beyond(rows, row)}"


def _maybe(rows: Sequence[Row]) -> str:
    unclear = [row for row in rows if row.labels("unclear")]
    if not unclear:
        return ""
    return f"; of {several(unclear[-1].labels('unclear'))} it is not clear at {unclear[-1].load}"


def _fastest(run: Run, pick: Pick, labels: Sequence[str]) -> str:
    best = pick.best.label
    unclear = f"; {several(pick.unclear)} would be faster, if it keeps it" if pick.unclear else ""
    if pick.next is None:
        return f"{best}{unclear}"
    if pick.why:
        return f"{several(labels)}; which is the fastest is not said: {pick.why}"
    if pick.ties:
        said = f"{best} has the most tokens/s, not told apart from {tied_words(pick)}"
    else:
        said = f"{best} is the fastest, {next_words(pick)}"
    return f"{said}{unclear} ({basis(run)})"


def basis(run: Run) -> str:
    """By which rule the run's verdicts are given."""
    family = run.comparisons.family
    return f"{100 * CONFIDENCE:.0f} %" + (f", Holm over {family} comparisons" if family > 1 else "")


def _beyond(rows: Sequence[Row], row: Row) -> str:
    higher = rows[rows.index(row) + 1 :]
    if not higher:
        return ""
    if unclear := higher[0].labels("unclear", "unknown"):
        return f" At {higher[0].load} it is not clear of {several(unclear)}."
    return f" At {higher[0].load} none does."


def _searched(run: Run, rows: Sequence[Row]) -> str:
    slo = slo_words(run.record.slo)
    pick = rows[0].picks.get("most load")
    if pick is None:
        return f"No deployment is known to keep the SLO ({slo}) at any load that was tried."
    unit = "users" if run.record.search and run.record.search.over == "concurrency" else "conversations/s"
    most = f"{amount_words(CAPACITY, pick.best)} {unit}"
    best, count = pick.best.label, len(rows[0].standings)
    if count == 1:
        return f"{best} keeps the SLO ({slo}) up to {most}."
    if pick.next is None:
        return f"Of {count} deployments {best} alone keeps the SLO ({slo}), up to {most}."
    if pick.why:
        other = f"{pick.next.label} up to {amount_words(CAPACITY, pick.next)}"
        return f"{best} keeps the SLO ({slo}) up to {most}, {other}; which is more is not said: {pick.why}."
    how = (
        f"not told apart from {tied_words(pick)}" if pick.ties else f"more than any other; {next_words(pick)}"
    )
    return f"{best} keeps the SLO ({slo}) up to {most}, {how}; 95 % intervals over starts."
