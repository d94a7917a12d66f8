"""A run as GitHub-flavoured Markdown, for a pull request: answer, table, reasons to distrust, command.

Text from a run may be anything (a model's output, a file's name, a log), so all of it is escaped.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from serving_bench.reports.checks.examine import SIGN, findings_of, mark_text, marks_of
from serving_bench.reports.data import Group, Run, command
from serving_bench.reports.measures import (
    NOTHING,
    aggregate,
    plural,
    read_rates,
    unit_of,
    value_cells,
    value_text,
)
from serving_bench.reports.page.answer import COLUMNS
from serving_bench.reports.page.cells import STATES
from serving_bench.reports.verdicts import (
    Decision,
    capacities_of,
    decisions_of,
    load_cases_of,
    slo_rows,
    title_of_case,
)
from serving_bench.reports.words import quality
from serving_bench.reports.words.answer import answers_of, basis, joint
from serving_bench.reports.words.described import cut_short, environment_words, question, what_was_run
from serving_bench.reports.words.verdict_words import heading_of, ratio_words, slo_words, title_of

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
    yield f"### {plain(question(run))}"
    decisions = decisions_of(run)
    for said, made in zip_longest(answers_of(run), decisions):
        rest = " ".join(filter(None, (said.text, said.unless, said.note)))
        yield f"**{plain(said.lead)}.** {plain(rest)}"
        if made:
            yield f"#### {plain(title_of_case(run, made.case))}\n\n{_table(run, made.ranked, made)}"
    yield plain(what_was_run(run))
    if run.is_going_on:
        yield "**This run is still running**; these are the results so far."
    elif cut := cut_short(run):
        yield f"**{cut[0].rstrip('. ')}** ({plain(run.record.status)})."
    yield plain(_legend(run))
    yield from _distrust(run)
    yield (
        f"{plain(environment_words(run))}. "
        f"Run {code(run.record.run_id)} of {plain(run.record.created_at[:10])}."
    )
    yield folded("How it was made", fenced(command(run), "sh"))
    for case in load_cases_of(run) if run.record.search is None else ():
        if case.key not in [made.case.key for made in decisions]:
            yield folded(plain(title_of_case(run, case)), _table(run, case.groups, None))
    if skips := run.record.plan.skips:
        yield folded(
            f"{plural(len(skips), 'combination')} not run",
            "\n".join(f"- {code(skip.what)}: {plain(skip.reason)}" for skip in skips),
        )


def _distrust(run: Run) -> Iterator[str]:
    items = [
        f"- **{plain(each.title)}**: {plain(each.text)} *{plain(each.remedy)}*" for each in findings_of(run)
    ]
    if not items:
        yield "No check found a reason to distrust these numbers. That proves nothing yet."
        return
    yield f"#### {plural(len(items), 'reason')} to distrust these numbers"
    yield "\n".join(items[:_REASONS_OPEN])
    if more := items[_REASONS_OPEN:]:
        yield folded(f"{len(more)} more", "\n".join(more))


def _legend(run: Run) -> str:
    made = next((each for each in decisions_of(run) if each.best), None)
    said = (
        "Means over starts [95 % interval] (for two starts, their range).",
        "Bold: the decided leader of a column.",
        f"Ratios are of {title_of(made.metric)} to the leader's. {joint(made)}".strip() if made else "",
        basis(run),
        f"SLO: {slo_words(run.record.slo)}." if run.record.slo else "",
        f"{SIGN} 2 after a value: two of the reasons below apply to it.",
    )
    return " ".join(filter(None, said))


def _table(run: Run, groups: Sequence[Group], made: Decision | None) -> str:
    columns = {"deployment": [code(group.deployment) for group in groups]}
    where = groups[0].scenario, groups[0].load
    rows = [row for row in slo_rows(run) if (row.scenario, row.load) == where]
    if kept := {each.deployment: each.words for each in capacities_of(run) if each.scenario == where[0]}:
        columns["keeps the SLO up to"] = [plain(kept[group.deployment]) for group in groups]
    elif rows:
        states = {each.label: STATES[each.state][0] for row in rows for each in row.standings}
        columns["SLO"] = [states.get(group.deployment, NOTHING) for group in groups]
    for name in dict.fromkeys([*([made.metric] if made else []), *read_rates(run, groups), *COLUMNS]):
        if all(aggregate(run, group, name).mean is None for group in groups):
            continue
        values = [_value(run, made, group, name) for group in groups]
        columns[plain(heading_of(name, unit_of(run, name)))] = values
        if made and made.best and name == made.metric:
            columns["against the leader"] = [_ratio(made, group) for group in groups]
    asked = [quality.texts(run, group.deployment) for group in groups]
    columns |= {plain(head): [plain(each[head]) for each in asked] for head in asked[0]}
    return table(list(columns), zip(*columns.values(), strict=True), right_from=1)


def _value(run: Run, made: Decision | None, group: Group, name: str) -> str:
    said = plain(value_text(name, made.value(run, group, name) if made else aggregate(run, group, name)))
    strong = f"**{said}**" if made and made.leaders.get(name) == group.deployment else said
    cells = made.cells(run, group) if made else value_cells(run, group)
    return f"{strong} {mark_text(marks_of(run, cells, name))}".rstrip()


def _ratio(made: Decision, group: Group) -> str:
    if ratio := made.ratio_to_leader(group.deployment):
        return plain(ratio_words(*ratio))
    return plain(str(made.left_out.get(group.deployment, NOTHING)))


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
    return _MARKUP.sub(r"\\\1", _LINKED.sub(lambda found: f"{found.group()}{_INVISIBLE}", one_line(value)))


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
