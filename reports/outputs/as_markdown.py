"""A run as GitHub-flavoured Markdown, for a pull request: answer, table, reasons to distrust, command."""

from collections.abc import Iterator, Sequence

from reports.checks.examine import SIGN, findings_of, mark_text, marks_of
from reports.data.cells import Group
from reports.data.run import Run
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
from reports.words.verdict_words import heading_of, ratio_words, slo_words, title_of

# A comment on GitHub holds 65,536 characters; something may stand around this.
_LENGTH_AT_MOST = 60_000
_SHORT = "Left out, as a comment has no room for it: all tables but the first, what reasons and skips say."
_CUT = "The rest is left out: a comment has no room for it."
# Of several scenarios and models.
_ANSWERS_AT_MOST = 8
# More reasons than these are folded.
_REASONS_OPEN = 5
_STATES = {"kept": "keeps it", "unclear": "not clear", "broken": "does not", "unknown": "not measured"}


def markdown_text(run: Run) -> str:
    """Return heading, answer, the table at the load that decides, and reasons to distrust; fold the rest.

    What a comment has no room for is left out, and the end says so.
    """
    for is_short in (False, True):
        text = "\n".join(_lines(run, is_short=is_short)) + "\n"
        if len(text) <= _LENGTH_AT_MOST:
            return text
    # A table, a list and a block of code have no blank line in them.
    kept = text[:_LENGTH_AT_MOST].rpartition("\n\n")[0]
    is_open = kept.count("<details>") - kept.count("</details>")
    return "\n\n".join([kept, *["</details>"] * is_open, _CUT]) + "\n"


def _lines(run: Run, *, is_short: bool) -> Iterator[str]:
    yield from _top(run)
    open_tables, folded = _tables(run)
    for lines in open_tables[:1] if is_short else [*open_tables, *folded]:
        yield from lines
    yield from ("", gfm.plain(_legend(run)))
    yield from _distrust(run, is_short=is_short)
    run_id = f"Run {gfm.code(run.record.run_id)} of {gfm.plain(run.record.created_at[:10])}."
    yield from ("", f"{gfm.plain(environment_words(run))}. {run_id}")
    if skips := run.record.plan.skips:
        title = f"{plural(len(skips), 'combination')} not run"
        told = [f"- {gfm.code(skip.what)}: {gfm.plain(skip.reason)}" for skip in skips]
        yield from ["", f"{title}."] if is_short else gfm.folded(title, told)
    yield from gfm.folded("How it was made", gfm.fenced(command(run), "sh"))
    if is_short:
        yield from ("", _SHORT)


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


def _distrust(run: Run, *, is_short: bool) -> Iterator[str]:
    """Yield each reason with what would help, or their titles alone; the first open, the rest folded."""
    found = findings_of(run)
    if not found:
        yield from ("", "No check found a reason to distrust these numbers. That proves nothing yet.")
        return
    titles = [f"- **{gfm.plain(each.title)}**" for each in found]
    texts = [f": {gfm.plain(each.text)} *{gfm.plain(each.remedy)}*" for each in found]
    items = titles if is_short else [title + text for title, text in zip(titles, texts, strict=True)]
    yield from ("", f"#### {plural(len(items), 'reason')} to distrust these numbers", "")
    yield from items[:_REASONS_OPEN]
    if more := items[_REASONS_OPEN:]:
        yield from gfm.folded(f"{len(more)} more", more)


def _legend(run: Run) -> str:
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
    return " ".join(filter(None, said))


# --- tables ----------------------------------------------------------------------------------------


def _tables(run: Run) -> tuple[list[list[str]], list[list[str]]]:
    """Return the table of each answer, and the folded ones of other loads; of a search none of these."""
    made = {(each.case.scenario, each.case.model, each.case.load): each for each in decisions_of(run)}
    decided = [
        ["", f"#### {gfm.plain(title_of_case(run, each.case))}", "", *_table(run, each.case.groups, each)]
        for each in made.values()
    ]
    others = [
        gfm.folded(gfm.plain(title_of_case(run, case)), _table(run, case.groups, None))
        for case in load_cases_of(run, at_least=1)
        if run.record.search is None and (case.scenario, case.model, case.load) not in made
    ]
    return decided, others


def _table(run: Run, groups: Sequence[Group], made: Decision | None) -> list[str]:
    """Return a row per deployment, with a decision best first, beside its ratio to the leader."""
    best_first = list(made.groups) if made else []
    ordered = [*best_first, *(group for group in groups if group not in best_first)]
    columns = {"deployment": [gfm.code(group.deployment) for group in ordered]}
    where = groups[0].scenario, groups[0].load
    rows = [row for row in slo_rows(run) if (row.scenario, row.load) == where]
    kept = {each.deployment: each.words for each in capacities_of(run) if each.scenario == where[0]}
    if kept:
        columns["keeps the SLO up to"] = [gfm.plain(kept[group.deployment]) for group in ordered]
    elif rows:
        states = {each.label: _STATES[each.state] for row in rows for each in row.standings}
        columns["SLO"] = [states.get(group.deployment, gfm.NOTHING) for group in ordered]
    leaders = dict(made.leaders) if made else {}
    if made and made.kind in ("named", "slight"):
        leaders[made.metric] = made.groups[0].deployment
    for name in dict.fromkeys([made.metric, *COLUMNS] if made else COLUMNS):
        if all(aggregate(run, group, name).mean is None for group in groups):
            continue
        values = [_value(run, group, name, leaders.get(name)) for group in ordered]
        columns[gfm.plain(heading_of(name, unit_of(run, name)))] = values
        if made and made.best and name == made.metric:
            columns["against the leader"] = [_ratio(made, group) for group in ordered]
    return gfm.table(list(columns), zip(*columns.values(), strict=True), right_from=1)


def _value(run: Run, group: Group, name: str, leader: str | None) -> str:
    """Return the mean with its interval and marks; that of the decided leader is bold."""
    found = aggregate(run, group, name)
    if found.mean is None:
        pooled = found.pooled
        return f"{shown(name, pooled.value)} ({found.pooled_over})" if pooled else gfm.NOTHING
    main = gfm.plain(supported(name, found.mean, shorter_half(found)))
    strong = f"**{main}**" if group.deployment == leader else main
    return " ".join(filter(None, (strong, span_text(name, found), mark_text(marks_of(run, group, name)))))


def _ratio(made: Decision, group: Group) -> str:
    if ratio := made.ratio_to_leader(group.deployment):
        return gfm.plain(ratio_words(*ratio))
    return gfm.plain(made.left_out.get(group.deployment, gfm.NOTHING))
