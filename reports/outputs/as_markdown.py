"""A run as GitHub-flavoured Markdown, for a pull request: answer, table, reasons to distrust, command."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.checks.examine import SIGN, findings_of, mark_text, marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import BY_NAME
from reports.measures.over_starts import aggregate, shorter_half, unit_of
from reports.measures.written import plural, shown, span_text, supported
from reports.outputs import gfm
from reports.page.answer_table import COLUMNS
from reports.verdicts.decisions import Decision, decisions_of
from reports.verdicts.load_cases import load_cases_of, title_of_case
from reports.verdicts.searches import capacities_of
from reports.verdicts.standings import slo_rows
from reports.words.answer import answers_of, basis
from reports.words.described import command, environment_words, question, what_was_run
from reports.words.verdict_words import clipped, heading_of, ratio_words, slo_words, title_of

# A comment on GitHub holds 65,536 characters; something may stand around this.
# Of several scenarios and models.
_ANSWERS_AT_MOST = 8
_LENGTH_AT_MOST = 60_000
_LINE_AT_MOST = 20_000
_CUT = "\n\nThe rest is left out: a comment has no room for it.\n"
# More reasons than these are folded.
_REASONS_OPEN = 5
# What is left out first where a comment has no room for all.
_LOADS, _TEXTS, _SKIPS = "other loads", "what the reasons say", "what was not run"
_TABLES, _COMMAND = "tables but the first", "the command"
_LEFT_OUT = (_LOADS, _TEXTS, _SKIPS, _TABLES, _COMMAND)
_STATES = {"kept": "keeps it", "unclear": "not clear", "broken": "does not", "unknown": "not measured"}


@dataclass(frozen=True)
class _Part:
    """Lines that `short` may stand for, by a name of _LEFT_OUT; without a name they stay."""

    lines: Sequence[str]
    name: str = ""
    short: Sequence[str] = ()


def markdown_text(run: Run) -> str:
    """Return heading, answer, the table at the load that decides, and reasons to distrust; fold the rest.

    What a comment has no room for is left out, and named at the end.
    """
    parts = [_Part(list(_top(run))), *_tables(run), _Part(_legend(run)), _distrust(run), *_made(run)]
    for count in range(len(_LEFT_OUT) + 1):
        text = _joined(parts, _LEFT_OUT[:count])
        if len(text) <= _LENGTH_AT_MOST:
            return text
    return _cut(text)


def _joined(parts: Sequence[_Part], left_out: Sequence[str]) -> str:
    lines = [line for part in parts for line in (part.short if part.name in left_out else part.lines)]
    names = [part.name for part in parts if part.name in left_out and part.lines]
    note = ["", f"Left out, as a comment has no room for it: {', '.join(names)}."] if names else []
    return "\n".join([*lines, *note]) + "\n"


def _cut(text: str) -> str:
    """Return the lines from the top that there is room for, none of them a long one."""
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


def _tables(run: Run) -> Iterator[_Part]:
    """Yield the table of each answer, then the folded ones of other loads; of a search none of these."""
    made = {(each.case.scenario, each.case.model, each.case.load): each for each in decisions_of(run)}
    folded: list[str] = []
    for case in load_cases_of(run, at_least=1):
        title, found = gfm.plain(title_of_case(run, case)), made.get((case.scenario, case.model, case.load))
        if found is None and run.record.search is None:
            folded += gfm.folded(title, _table(run, case.groups, None))
    for place, found in enumerate(made.values()):
        title = gfm.plain(title_of_case(run, found.case))
        lines = ["", f"#### {title}", "", *_table(run, found.case.groups, found)]
        yield _Part(lines, _TABLES if place else "")
    yield _Part(folded, _LOADS)


def _table(run: Run, groups: Sequence[Group], made: Decision | None) -> list[str]:
    """Return a row per deployment, with a decision best first, beside its ratio to the leader."""
    names = dict.fromkeys([made.metric, *COLUMNS] if made else COLUMNS)
    known = [name for name in names if name.partition(".")[0] in BY_NAME]
    metrics = [name for name in known if any(aggregate(run, g, name).mean is not None for g in groups)]
    best_first = [group.deployment for group in made.groups] if made else []
    places = {label: place for place, label in enumerate(best_first)}
    ordered = sorted(groups, key=lambda group: places.get(group.deployment, len(places)))
    states = {
        each.label: each.state
        for row in slo_rows(run)
        for each in row.standings
        if (row.scenario, row.load) == (groups[0].scenario, groups[0].load)
    }
    columns: dict[str, list[str]] = {"deployment": [gfm.code(group.deployment) for group in ordered]}
    kept = {e.deployment: e.words for e in capacities_of(run) if e.scenario == groups[0].scenario}
    if kept:
        columns["keeps the SLO up to"] = [gfm.plain(kept[group.deployment]) for group in ordered]
    elif states:
        columns["SLO"] = [_STATES[states.get(group.deployment, "unknown")] for group in ordered]
    for name in metrics:
        columns[gfm.plain(heading_of(name, unit_of(run, name)))] = [
            _value(run, group, name, made) for group in ordered
        ]
        if made and made.best and name == made.metric:
            columns["against the leader"] = [_ratio(made, group) for group in ordered]
    return gfm.table(list(columns), list(zip(*columns.values(), strict=True)), right_from=1)


def _value(run: Run, group: Group, name: str, made: Decision | None) -> str:
    """Return the mean with its interval and marks; bold where it is decided that it is the best."""
    found = aggregate(run, group, name)
    if found.mean is None:
        pooled = found.pooled
        return f"{shown(name, pooled.value)} ({found.pooled_over})" if pooled else gfm.NOTHING
    main, ends = gfm.plain(supported(name, found.mean, shorter_half(found))), span_text(name, found)
    is_first = made is not None and (
        made.leaders.get(name) == group.deployment
        or (name == made.metric and made.kind in ("named", "slight") and group == made.leader)
    )
    strong = f"**{main}**" if is_first else main
    return " ".join(filter(None, (strong, ends, mark_text(marks_of(run, group, name)))))


def _ratio(made: Decision, group: Group) -> str:
    ratio = made.ratio_to_leader(group.deployment)
    if ratio is None:
        why = made.left_out.get(group.deployment)
        return gfm.plain(why) if why else gfm.NOTHING
    return gfm.plain(ratio_words(*ratio))


def _legend(run: Run) -> list[str]:
    """Return how to read the tables, and by which rule a winner is named."""
    said = ["Means over starts [95 % interval] (of two starts their range). Bold: decided."]
    made = next((each for each in decisions_of(run) if each.best), None)
    if made is not None:
        level = f"{100 * made.confidence:.4g} % each, 95 % together"
        said.append(f"Ratios are of {title_of(made.metric)} to the leader's ({level}).")
    said.append(basis(run))
    if run.record.slo:
        said.append(f"SLO: {slo_words(run.record.slo)}.")
    said.append(f"{SIGN} 2 behind a value: two of the reasons below to distrust it.")
    return ["", gfm.plain(" ".join(filter(None, said)))]


# --- what to know of it ----------------------------------------------------------------------------


def _distrust(run: Run) -> _Part:
    """Return each reason with what would help, or their titles alone."""
    found = findings_of(run)
    if not found:
        return _Part(["", "No check found a reason to distrust these numbers. That proves nothing yet."])
    titles = [f"- **{gfm.plain(each.title)}**" for each in found]
    texts = [f": {gfm.plain(each.text)} *{gfm.plain(each.remedy)}*" for each in found]
    whole = [title + text for title, text in zip(titles, texts, strict=True)]
    return _Part(_reasons(whole), _TEXTS, _reasons(titles))


def _reasons(items: Sequence[str]) -> list[str]:
    """Return the first of them open, the rest folded."""
    title = f"{plural(len(items), 'reason')} to distrust these numbers"
    more = items[_REASONS_OPEN:]
    rest = gfm.folded(f"{len(more)} more", more) if more else []
    return ["", f"#### {title}", "", *items[:_REASONS_OPEN], *rest]


def _made(run: Run) -> Iterator[_Part]:
    """Yield the machine, what was not run, and the command that asks for the same again."""
    run_id = f"Run {gfm.code(run.record.run_id)} of {gfm.plain(run.record.created_at[:10])}."
    yield _Part(["", f"{gfm.plain(environment_words(run))}. {run_id}"])
    if skips := run.record.plan.skips:
        title = f"{plural(len(skips), 'combination')} not run"
        lines = [f"- {gfm.code(skip.what)}: {gfm.plain(skip.reason)}" for skip in skips]
        yield _Part(gfm.folded(title, lines), _SKIPS, ["", f"{title}."])
    yield _Part(gfm.folded("How it was made", gfm.fenced(command(run), "sh")), _COMMAND)
