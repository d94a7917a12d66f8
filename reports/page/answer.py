"""The first screen: the question, the answer, a table of the candidates, and the reasons to distrust both."""

from collections.abc import Mapping, Sequence

from serving_bench.harness.contracts import timing
from serving_bench.reports.data import Run
from serving_bench.reports.measures import NOTHING, several
from serving_bench.reports.page.cells import aggregate_cell, cell_marks, mark_html
from serving_bench.reports.page.looks import (
    Html,
    Of,
    Row,
    looks,
    macro,
    ratio_frame,
    ratio_picture,
    table,
    tag,
)
from serving_bench.reports.page.parts import below, filled
from serving_bench.reports.verdicts import Decision
from serving_bench.reports.words.answer import of_own_tests
from serving_bench.reports.words.report import KEPT, OBJECTIVES, RATIO, Answer, Column, report_of
from serving_bench.reports.words.report import Row as AnswerRow
from serving_bench.reports.words.verdict_words import clipped, ratio_with_ends

# How many characters of the reason why a deployment is left out fit on a narrow screen.
_NOTE = 90
# How many reasons to distrust are open; the others are folded.
_TOLD = 5


def opening(run: Run) -> Html:
    """Return the first screen: question, answer, table of candidates, and the reasons to distrust them."""
    report = report_of(run)
    tables = [_table(run, each, each.decision) if each.decision else "" for each in report.answers]
    skipped = several([skip.what for skip in run.record.plan.skips])
    return macro("opening", report, _claimed(run), tables, skipped, _TOLD)


def _claimed(run: Run) -> Html | None:
    """Return what the run says about a published sentence; None if it was not judged by one."""
    if run.claim is None:
        return None
    claimed, has_gone_on = run.claim, run.claim.of_end != run.record.ended_at
    parts = [(each, _texts(each.rows, "Judged")) for each in claimed.parts]
    return macro("claimed", claimed, parts, _texts(claimed.differs, "What differs"), has_gone_on)


def _texts(rows: Sequence[Mapping[str, str]], name: str) -> Html | str:
    return table(list(map(Row, rows)), "plain", name) if any(rows) else ""


# --- the table of candidates ---------------------------------------------------------------------


def _table(run: Run, answer: Answer, decision: Decision) -> Html:
    """Return the table of an answer's deployments, contenders first.

    The decided leader of a column is bold.
    """
    rows, (first, *_) = answer.rows, answer.table.names
    where = "there" if any(row.kept for row in rows) else f"at {decision.case.load}"
    columns = {
        f"{each.head} {where}" if each.name == first else each.head: each
        for each in answer.table.columns(answer.table.names)
        if each.name != OBJECTIVES
    }
    cells = [
        Row(
            {
                "deployment": _name(run, decision, row),
                **{head: _cell(run, answer, row, each) for head, each in columns.items()},
            },
            Of(row.deployment),
        )
        for row in rows
    ]
    few = [not row.values["ttft_s.p50"].is_known for row in rows if row.group.counted]
    what = "No TTFT or TPOT" if all(few) else f"{NOTHING} for TTFT or TPOT"
    why = f"{what}: fewer than {timing.needed(50)} requests." if any(few) else ""
    return macro("noted", table(filled(cells), "standing", "Standing"), [why, of_own_tests(decision)])


def _cell(run: Run, answer: Answer, row: AnswerRow, column: Column) -> Html | str:
    if column.name == KEPT:
        return macro("kept_load", row.kept)
    if column.name == RATIO:
        return _ratio(run, answer, row)
    return _value(row, column.name) if column.name else below(*row.cells[column.head])


def _name(run: Run, decision: Decision, row: AnswerRow) -> Html:
    has_level = row.kept and row.kept.level is not None
    # The note is clipped here; its tooltip has all of it.
    note = "" if has_level else str(row.why_not or row.left or "")
    is_suspect = {cell.validity for cell in row.group.counted} == {"suspect"}
    marks = cell_marks(run, row.group) if is_suspect else ""
    class_ = (
        "winner"
        if row.deployment == decision.served
        else "unranked"
        if row.why_not and note and decision.groups
        else ""
    )
    return macro("standing", looks(run)[row.deployment], class_, clipped(note, _NOTE), note, marks)


def _value(row: AnswerRow, name: str) -> Html:
    value = row.values[name]
    cell = aggregate_cell(name, value.over, mark_html([each for each in value.marks if not each.is_at_name]))
    return tag("b", cell, class_="lead") if value.is_decided else cell


def _ratio(run: Run, answer: Answer, row: AnswerRow) -> Html | str:
    ratios = [each.to_leader for each in answer.rows if each.to_leader]
    if row.to_leader is None and (row is not answer.rows[0] or not ratios):
        return ""
    text, ends = ratio_with_ends(*row.to_leader) if row.to_leader else ("1.00x", "")
    drawn = ratio_picture(looks(run)[row.deployment], row.to_leader or (1.0, 1.0, 1.0), ratio_frame(ratios))
    return macro("figures", drawn, text, ends)
