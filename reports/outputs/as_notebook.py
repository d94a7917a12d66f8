"""A report for a notebook: answers with their tables, and the reasons to distrust them, without a script."""

from collections.abc import Iterator

from serving_bench.reports.checks.examine import mark_text
from serving_bench.reports.measures import NOTHING, plural, value_text
from serving_bench.reports.page import looks as page
from serving_bench.reports.page.looks import Html, join, table, tag
from serving_bench.reports.words.quality import plain
from serving_bench.reports.words.report import NO_DOUBT, Report, Row, Table, Value
from serving_bench.reports.words.verdict_words import clipped, ratio_words

_WHY_AT_MOST = 200


def html_of(report: Report) -> str:
    """Return HTML in which all text of the run is escaped."""
    return str(join(_parts(report)))


def _parts(report: Report) -> Iterator[Html]:
    for answer in report.answers:
        yield tag("p", tag("b", f"{answer.said.lead}."), f" {answer.said.body}")
        if answer.rows:
            yield _table(answer.table)
    doubts = [tag("li", tag("b", each.title), f": {each.text}") for each in report.findings]
    title = f"{plural(len(doubts), 'reason')} to distrust this" if doubts else NO_DOUBT
    yield tag("details", tag("summary", title), tag("ul", *doubts)) if doubts else tag("p", title)


def _table(answers: Table) -> Html:
    return table([page.Row(_cells(row, answers)) for row in answers.rows], "plain", answers.title)


def _cells(row: Row, answers: Table) -> dict[str, Html | str]:
    ratio = ratio_words(*row.to_leader) if row.to_leader else clipped(row.why_not or NOTHING, _WHY_AT_MOST)
    return {
        "deployment": row.deployment,
        **{row.values[name].head: _value(row.values[name]) for name in answers.names},
        "against the leader": ratio,
        **{head: plain(cell) for head, cell in row.cells.items()},
    }


def _value(value: Value) -> Html:
    text = value_text(value.name, value.over)
    return tag("span", tag("b", text) if value.is_decided else text, f" {mark_text(value.marks)}".rstrip())
