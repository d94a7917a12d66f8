"""The first screen: the question, the answer, a table of the candidates, and the reasons to distrust both."""

from collections.abc import Mapping, Sequence
from functools import partial

from serving_bench.harness.contracts import timing
from serving_bench.reports.data import Run
from serving_bench.reports.measures import NOTHING, several
from serving_bench.reports.page.cells import aggregate_cell, cell_marks, mark_html
from serving_bench.reports.page.declared import Columns, below, filled
from serving_bench.reports.page.looks import (
    Html,
    Of,
    looks,
    macro,
    ratio_frame,
    ratio_picture,
    table,
    tag,
    unbroken,
)
from serving_bench.reports.verdicts import Decision
from serving_bench.reports.words import quality
from serving_bench.reports.words.answer import basis, joint
from serving_bench.reports.words.described import cut_short, question, stopped, what_was_run
from serving_bench.reports.words.report import Answer, Row, report_of
from serving_bench.reports.words.verdict_words import clipped, ratio_with_ends

# How many characters of the reason why a deployment is left out fit on a narrow screen.
_NOTE = 90
# How many reasons to distrust are open; the others are folded.
_TOLD = 5


def opening(run: Run) -> Html:
    """Return the first screen: question, answer, table of candidates, and the reasons to distrust them."""
    report = report_of(run)
    return macro(
        "opening",
        _claimed(run),
        unbroken(question(run)),
        stopped(run),
        cut_short(run),
        [(each, _table(run, each, each.decision) if each.decision else "") for each in report.answers],
        [*map(unbroken, [*quality.origins(run), what_was_run(run)])],
        basis(run),
        several([skip.what for skip in run.record.plan.skips]),
        report.findings,
        _TOLD,
    )


def _claimed(run: Run) -> Html | None:
    """Return what the run says about a published sentence; None if it was not judged by one."""
    if run.claim is None:
        return None
    claimed, has_gone_on = run.claim, run.claim.of_end != run.record.ended_at
    parts = [(each, _texts(each.rows, "Judged")) for each in claimed.parts]
    return macro("claimed", claimed, parts, _texts(claimed.differs, "What differs"), has_gone_on)


def _texts(rows: Sequence[Mapping[str, str]], name: str) -> Html | str:
    heads = list(dict.fromkeys(head for row in rows for head in row))
    return (
        table(heads, [[row.get(head, "") for head in heads] for row in rows], "plain", name) if heads else ""
    )


# --- the table of candidates ---------------------------------------------------------------------


def _table(run: Run, answer: Answer, decision: Decision) -> Html:
    """Return the table of an answer's deployments, contenders first.

    The decided leader of a column is bold.
    """
    rows, (first, *rest) = answer.rows, answer.table.names
    heads = {name: rows[0].values[name].head for name in answer.table.names}
    is_search = any(row.kept for row in rows)
    columns: Columns[Row] = {
        "deployment": partial(_name, run, decision),
        **({"keeps the SLO up to": lambda row: macro("kept_load", row.kept)} if is_search else {}),
        f"{heads[first]} {'there' if is_search else f'at {decision.case.load}'}": partial(_value, first),
        **_ratios(run, answer),
        **{heads[name]: partial(_value, name) for name in rest},
        **{head: partial(_quality, head) for head in rows[0].cells},
    }
    cells = filled(columns, rows, lambda row: Of(row.deployment))
    few = [not row.values["ttft_s.p50"].is_known for row in rows if row.group.counted]
    what = "No TTFT or TPOT" if all(few) else f"{NOTHING} for TTFT or TPOT"
    why = f"{what}: fewer than {timing.needed(50)} requests." if any(few) else ""
    return macro("noted", table(*cells, "standing", "Standing"), [why, joint(decision)])


def _name(run: Run, decision: Decision, row: Row) -> Html:
    has_level = row.kept and row.kept.level is not None
    # The note is clipped here; its tooltip has all of it.
    note = "" if has_level else str(row.why_not or "")
    is_suspect = {cell.validity for cell in row.group.counted} == {"suspect"}
    marks = cell_marks(run, row.group) if is_suspect else ""
    class_ = "winner" if row.deployment == decision.served else "unranked" if note and decision.groups else ""
    return macro("standing", looks(run)[row.deployment], class_, clipped(note, _NOTE), note, marks)


def _value(name: str, row: Row) -> Html:
    value = row.values[name]
    cell = aggregate_cell(name, value.over, mark_html([each for each in value.marks if not each.is_at_name]))
    return tag("b", cell, class_="lead") if value.is_decided else cell


def _quality(head: str, row: Row) -> Html:
    return below(*row.cells[head])


def _ratios(run: Run, answer: Answer) -> Columns[Row]:
    ratios = [row.to_leader for row in answer.rows if row.to_leader]
    return {"against the leader": partial(_ratio, run, answer, ratio_frame(ratios))} if ratios else {}


def _ratio(run: Run, answer: Answer, frame: tuple[float, float], row: Row) -> Html | str:
    if row.to_leader is None and row is not answer.rows[0]:
        return ""
    text, ends = ratio_with_ends(*row.to_leader) if row.to_leader else ("1.00x", "")
    drawn = ratio_picture(looks(run)[row.deployment], row.to_leader or (1.0, 1.0, 1.0), frame)
    return macro("figures", drawn, text, ends)
