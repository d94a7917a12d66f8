"""A report for a notebook: answers with their tables, and the reasons to distrust them, without a script."""

from collections.abc import Iterator

from serving_bench.reports.checks.examine import mark_text
from serving_bench.reports.measures import plural
from serving_bench.reports.page import looks as page
from serving_bench.reports.page.looks import Html, join, table, tag
from serving_bench.reports.words.report import NO_DOUBT, Entry, Report, Table, Value
from serving_bench.reports.words.verdict_words import clipped

_TEXT_AT_MOST = 200


def html_of(report: Report) -> str:
    """Return HTML in which all text of the run is escaped."""
    return str(join(_parts(report)))


def _parts(report: Report) -> Iterator[Html]:
    for answer in report.answers:
        yield tag("p", tag("b", f"{answer.said.lead}."), f" {answer.said.body}")
        if answer.rows:
            yield _table(answer.table)
        if answer.decision and not answer.decision.best:
            whys = {row.deployment: row.why_not for row in answer.rows if row.why_not}
            yield from (tag("p", f"{label}: {clipped(why, _TEXT_AT_MOST)}") for label, why in whys.items())
    doubts = [tag("li", tag("b", each.title), f": {each.text}") for each in report.findings]
    title = f"{plural(len(doubts), 'reason')} to distrust this" if doubts else NO_DOUBT
    yield tag("details", tag("summary", title), tag("ul", *doubts)) if doubts else tag("p", title)


def _table(answers: Table) -> Html:
    columns = answers.columns(answers.names)
    rows = [
        page.Row({"deployment": row.deployment, **{each.head: _cell(each.cells[at]) for each in columns}})
        for at, row in enumerate(answers.rows)
    ]
    return table(rows, "plain", answers.title)


def _cell(cell: Value | Entry) -> Html:
    text = clipped(cell.wide, _TEXT_AT_MOST)
    return tag("span", tag("b", text) if cell.is_decided else text, f" {mark_text(cell.marks)}".rstrip())
