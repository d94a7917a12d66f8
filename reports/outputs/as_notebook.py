"""A report for a notebook: answers with their tables, and the reasons to distrust them, without a script."""

from collections.abc import Iterator

from serving_bench.reports.measures import NOTHING, plural, value_text
from serving_bench.reports.page.looks import Html, join, table, tag
from serving_bench.reports.words.quality import plain
from serving_bench.reports.words.report import Report, Row, Table
from serving_bench.reports.words.verdict_words import ratio_words


def html_of(report: Report) -> str:
    """Return HTML in which all text of the run is escaped."""
    return str(join(_parts(report)))


def _parts(report: Report) -> Iterator[Html]:
    for answer in report.answers:
        said = answer.said
        rest = " ".join(filter(None, ("", said.text, said.unless, said.note)))
        yield tag("p", tag("b", f"{said.lead}."), f" {rest}")
        if answer.rows:
            yield _table(answer.table)
    doubts = [tag("li", tag("b", each.title), f": {each.text}") for each in report.findings]
    title = f"{plural(len(doubts), 'reason')} to distrust this"
    yield tag("details", tag("summary", title), tag("ul", *doubts))


def _table(answers: Table) -> Html:
    first = answers.rows[0]
    values = [first.values[name].head for name in answers.names]
    heads = ["deployment", *values, "against the leader", *first.cells]
    return table(heads, [_cells(row, answers) for row in answers.rows], "plain", answers.title)


def _cells(row: Row, answers: Table) -> list[str]:
    ratio = ratio_words(*row.to_leader) if row.to_leader else str(row.why_not or NOTHING)
    values = [value_text(name, row.values[name].over) for name in answers.names]
    return [row.deployment, *values, ratio, *map(plain, row.cells.values())]
