"""A run as GitHub-flavoured Markdown, for a pull request: answer, table, reasons to distrust, command.

Text from a run may be anything (a model's output, a file's name, a log), so all of it is escaped.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from serving_bench.reports.checks.examine import SIGN, mark_text
from serving_bench.reports.data import Run, command
from serving_bench.reports.measures import NOTHING, plural
from serving_bench.reports.words.answer import of_own_tests
from serving_bench.reports.words.described import environment_words
from serving_bench.reports.words.report import NO_DOUBT, Entry, Report, Table, Value, report_of
from serving_bench.reports.words.verdict_words import slo_words, title_of

# A comment on GitHub holds 65,536 characters; this leaves room for other text around it.
_LENGTH_AT_MOST = 60_000
_CUT = "The rest is left out, because it does not fit into a comment."
# How many reasons are open; the others are folded.
_REASONS_OPEN = 5


def markdown_text(run: Run) -> str:
    """Return question, answer, the deciding load's table, and reasons to distrust; the rest is folded.

    A table or list that does not fit into a comment is left out, and the last line says so.
    """
    text, cut = "", ""
    for block in _blocks(run):
        if len(text) + len(block) + 2 <= _LENGTH_AT_MOST:
            text += f"{block}\n\n"
        else:
            cut = _CUT
    return f"{text}{cut}".rstrip() + "\n"


def _blocks(run: Run) -> Iterator[str]:
    report = report_of(run)
    yield f"### {plain(report.question)}"
    for answer in report.answers:
        yield f"**{plain(answer.said.lead)}.** {plain(answer.said.body)}"
        if answer.rows:
            yield f"#### {plain(answer.table.title)}\n\n{_table(answer.table)}"
    yield plain(report.what_was_run)
    if run.is_going_on:
        yield "**This run is still running**; these are the results so far."
    elif cut := report.cut_short:
        yield f"**{cut[0]}** ({plain(run.record.status)})."
    yield plain(_legend(report))
    yield from _distrust(report)
    yield (
        f"{plain(environment_words(run))}. "
        f"Run {code(run.record.run_id)} of {plain(run.record.created_at[:10])}."
    )
    yield folded("How it was made", fenced(command(run), "sh"))
    for table in report.others:
        yield folded(plain(table.title), _table(table))
    if skips := run.record.plan.skips:
        yield folded(
            f"{plural(len(skips), 'combination')} not run",
            "\n".join(f"- {code(skip.what)}: {plain(str(skip.reason))}" for skip in skips),
        )


def _distrust(report: Report) -> Iterator[str]:
    items = [
        f"- **{plain(each.title)}**: {plain(each.text)} *{plain(each.remedy)}*" for each in report.findings
    ]
    if not items:
        yield NO_DOUBT
        return
    yield f"#### {plural(len(items), 'reason')} to distrust these numbers"
    yield "\n".join(items[:_REASONS_OPEN])
    if more := items[_REASONS_OPEN:]:
        yield folded(f"{len(more)} more", "\n".join(more))


def _legend(report: Report) -> str:
    run = report.run
    decision = next((each.decision for each in report.answers if each.decision and each.decision.best), None)
    legend = (
        "Means over starts [95 % interval] (for two starts, their range).",
        "Bold: the decided leader of a column.",
        f"Ratios are of {title_of(decision.metric)} to the leader's. {of_own_tests(decision)}".strip()
        if decision
        else "",
        report.basis,
        f"SLO: {slo_words(run.record.slo)}." if run.record.slo else "",
        f"{SIGN} 2 after a value: two of the reasons below apply to it.",
    )
    return " ".join(filter(None, legend))


def _table(answers: Table) -> str:
    columns = {"deployment": [code(row.deployment) for row in answers.rows]}
    columns |= {plain(each.head): list(map(_cell, each.cells)) for each in answers.columns(answers.names)}
    return table(list(columns), zip(*columns.values(), strict=True), right_from=1)


def _cell(cell: Value | Entry) -> str:
    text = plain(cell.wide)
    return f"{f'**{text}**' if cell.is_decided else text} {mark_text(cell.marks)}".rstrip()


# --- GitHub-flavoured Markdown ---------------------------------------------------------------------

# Matches the characters that XML 1.0 does not allow, not even escaped.
NOT_XML = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
# Characters that no terminal and no page shows as they are, and marks of the direction of writing, which
# could reorder text.
_UNWRITABLE = re.compile(f"{NOT_XML}|[\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
# An underscore within a word is no markup.
_MARKUP = re.compile(r"([\\`*\[\]<>#|~&$]|(?<!\w)_|_(?!\w))")
# What a forge turns into a link without any markup: mentions, addresses, issue numbers.
_LINKED = re.compile(r"@|(?<=:)(?=//)|(?i:(?<=www)(?=\.))|(?<=#)(?=\d)")
_INVISIBLE = "\u200b"


def plain(value: str) -> str:
    """Return text on one line with its markup escaped. Invisible characters keep it from becoming a link."""
    return _MARKUP.sub(r"\\\1", _LINKED.sub(lambda link: f"{link.group()}{_INVISIBLE}", one_line(value)))


def code(value: str) -> str:
    """Return a code span, safe within a table's cell."""
    inside = one_line(value).replace("`", "'")
    # A backslash before a bar would escape the bar's own backslash.
    inside = re.sub(r"\\(?=\|)", "\\\\\u200b", inside).replace("|", r"\|")
    return f"`{inside or NOTHING}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right_from: int | None = None) -> str:
    """Return a Markdown table; columns from `right_from` on are aligned to the right."""
    right = len(heads) if right_from is None else right_from
    rule = ["---" if at < right else "---:" for at in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def folded(title: str, content: str) -> str:
    """Return Markdown content folded behind a title."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def fenced(value: str, language: str = "") -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", value)), default=0))
    return f"{fence}{language}\n{one_line(value)}\n{fence}"


def one_line(value: str) -> str:
    """Return text without line breaks, with characters that cannot be shown replaced."""
    return " ".join(_UNWRITABLE.sub("\ufffd", value).split())
