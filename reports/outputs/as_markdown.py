"""A run as GitHub-flavoured Markdown, for a pull request: the answer, the table at the load that decides, why
to distrust it, and how it was made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.checks.examine import SIGN, findings_of
from reports.checks.finding import by_weight
from reports.data.run import Run
from reports.measures.written import plural, several
from reports.outputs.markdown_rows import States, heads_of, row_of, search_heads, search_row, whys_of
from reports.two_runs import gfm
from reports.verdicts.comparisons import comparisons_of, remedy
from reports.verdicts.decision import decision_rows
from reports.verdicts.load_cases import LoadCase, load_cases_of, title_of_case, told_first
from reports.verdicts.searches import capacities_of
from reports.words.answer import answers_of, basis
from reports.words.decision_words import slo_words
from reports.words.described import command, environment_words, question, what_was_run
from reports.words.said import clipped
from reports.words.verdict_words import family_text, margin_text

# A comment on GitHub holds 65,536 characters; something may stand around this.
# Of several scenarios and models.
_ANSWERS_AT_MOST = 8
_LENGTH_AT_MOST = 60_000
_LINE_AT_MOST = 20_000
_CUT = "\n\nThe rest is left out: a comment has no room for it.\n"
_MARKS = f"{SIGN} 2 behind a value: two of the reasons below to distrust it."
# More reasons than these are folded.
_REASONS_OPEN = 5


@dataclass(frozen=True)
class _Part:
    """`name`: what is left out where a comment has no room for `lines`, and `short` stands instead; without
    a name it stays."""

    lines: Sequence[str]
    name: str = ""
    short: Sequence[str] = ()


# In the order in which they are left out.
_LOADS, _TEXTS, _SKIPS = "other loads", "what the reasons say", "what was not run"
_TABLES, _COMMAND = "tables but the first", "the command"
_LEFT_OUT = (_LOADS, _TEXTS, _SKIPS, _TABLES, _COMMAND)


def markdown_text(run: Run) -> str:
    """A heading, the answer, a table at the load that decides, the reasons to distrust; the rest folded, and
    left out where a comment has no room for it, which is said at the end."""
    tables = _searched(run) if run.record.search is not None else _by_load(run)
    parts = [_Part(list(_top(run))), *tables, _distrust(run), *_made(run)]
    for count in range(len(_LEFT_OUT) + 1):
        text = _joined(parts, [part.name for part in parts if part.name in _LEFT_OUT[:count]])
        if len(text) <= _LENGTH_AT_MOST:
            return text
    return _cut(text)


def _joined(parts: Sequence[_Part], left_out: Sequence[str]) -> str:
    lines = [line for part in parts for line in (part.short if part.name in left_out else part.lines)]
    names = [part.name for part in parts if part.name in left_out and part.lines]
    note = ["", f"Left out, as a comment has no room for it: {', '.join(names)}."] if names else []
    return "\n".join([*lines, *note]) + "\n"


def _cut(text: str) -> str:
    """The lines from the top that there is room for, none of them a long one."""
    kept, room = [], _LENGTH_AT_MOST - len(_CUT)
    for line in text.splitlines():
        short = clipped(line, _LINE_AT_MOST)
        room -= len(short) + 1
        if room < 0:
            break
        kept.append(short)
    opened = sum(line.count("<details>") - line.count("</details>") for line in kept)
    return "\n".join([*kept, *["", "</details>"] * opened]) + _CUT


def _top(run: Run) -> Iterator[str]:
    yield f"### {gfm.plain(question(run))}"
    answers = answers_of(run)
    for said in answers[:_ANSWERS_AT_MOST]:
        rest = " ".join(filter(None, (said.text, said.unless, said.note)))
        yield from ("", f"**{gfm.plain(said.lead)}.** {gfm.plain(rest)}")
    if len(answers) > _ANSWERS_AT_MOST:
        yield from ("", f"And {len(answers) - _ANSWERS_AT_MOST} more answers.")
    yield from ("", gfm.plain(what_was_run(run)))
    if run.is_going_on:
        yield from ("", "**This run is still running**; this is what there is so far.")
    elif run.record.status != "completed":
        yield from ("", f"**This run was cut short** ({gfm.plain(run.record.status)}).")


# --- tables ----------------------------------------------------------------------------------------


def _by_load(run: Run) -> list[_Part]:
    """Of each scenario and model the load that is told first on the page, then the others."""
    states: States = {
        (row.scenario, row.load, each.label): each.state
        for row in decision_rows(run)
        for each in row.standings
    }
    first = told_first(run)
    keys = {(case.scenario, case.model, case.load) for case in first}
    others = [
        case for case in load_cases_of(run, at_least=1) if (case.scenario, case.model, case.load) not in keys
    ]
    opened = [["", f"#### {_title(run, case)}", "", *_table(run, case, states)] for case in first]
    folded = [line for case in others for line in gfm.folded(_title(run, case), _table(run, case, states))]
    more = [line for lines in opened[1:] for line in lines]
    head = opened[0] if opened else []
    return [_Part(head), _Part(more, _TABLES), _Part(["", *_legend(run)]), _Part(folded, _LOADS)]


def _title(run: Run, case: LoadCase) -> str:
    return gfm.plain(title_of_case(run, case))


def _table(run: Run, case: LoadCase, states: States) -> list[str]:
    rows = [row_of(run, group, case, states) for group in case.groups]
    table = gfm.table(heads_of(run, case, states), rows, numbers_from=1)
    whys = whys_of(run, case)
    return [*table, *(["", f"No verdict: {gfm.plain(several(whys, '; '))}."] if whys else [])]


def _searched(run: Run) -> list[_Part]:
    rows = [search_row(run, each) for each in capacities_of(run)]
    note = f"{basis(run)} SLO: {slo_words(run.record.slo)}. {_MARKS}".lstrip()
    return [_Part(["", *gfm.table(search_heads(), rows, numbers_from=1), "", gfm.plain(note)])]


def _reference(run: Run) -> str:
    return run.record.compare.baseline or "the first deployment"


def _legend(run: Run) -> list[str]:
    """How to read the tables, and by which rule the verdicts are given."""
    found = comparisons_of(run)
    said = ["Means over starts [95 % interval] (of two starts their range)."]
    if found.why_none:
        said.append(f"No verdicts: {found.why_none}. {remedy(run)}".rstrip())
    elif found.family:
        margin = margin_text(run.record.compare.margin_share)
        said.append(
            f"Below, ratios to {_reference(run)}: {family_text(found.family)}; same: within {margin}."
        )
    if run.record.slo:
        said.append(f"SLO: {slo_words(run.record.slo)}.")
    return [gfm.plain(" ".join([*said, _MARKS]))]


# --- what to know of it ----------------------------------------------------------------------------


def _distrust(run: Run) -> _Part:
    """Each reason, with what would help."""
    if not findings_of(run):
        return _Part(["", "No check found a reason to distrust these numbers. That proves nothing yet."])
    found = by_weight(findings_of(run))
    titles = [f"- **{gfm.plain(each.title)}**" for each in found]
    whole = [
        f"{title}: {gfm.plain(each.text)} *{gfm.plain(each.remedy)}*"
        for title, each in zip(titles, found, strict=True)
    ]
    return _Part(_reasons(whole), _TEXTS, _reasons(titles))


def _reasons(items: Sequence[str]) -> list[str]:
    """The first of them open, the rest folded."""
    title = f"{plural(len(items), 'reason')} to distrust these numbers"
    more = items[_REASONS_OPEN:]
    rest = gfm.folded(f"{len(more)} more", more) if more else []
    return ["", f"#### {title}", "", *items[:_REASONS_OPEN], *rest]


def _made(run: Run) -> Iterator[_Part]:
    """The machine, what was not run, and the command that asks for the same again."""
    run_id = f"Run {gfm.code(run.record.run_id)} of {gfm.plain(run.record.created_at[:10])}."
    yield _Part(["", f"{gfm.plain(environment_words(run))}. {run_id}"])
    if skips := run.record.plan.skips:
        title = f"{plural(len(skips), 'combination')} not run"
        lines = [f"- {gfm.code(skip.what)}: {gfm.plain(skip.reason)}" for skip in skips]
        yield _Part(gfm.folded(title, lines), _SKIPS, ["", f"{title}."])
    yield _Part(gfm.folded("How it was made", gfm.fenced(command(run), "sh")), _COMMAND)
