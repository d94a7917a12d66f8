"""A run as GitHub-flavoured Markdown, for a pull request: the answer, the table at the load that decides, why
to distrust it, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator

from reports.cells import Group
from reports.comparisons import remedy
from reports.decision_text import slo_words
from reports.described import question, what_was_run
from reports.frames import Run
from reports.lineups import fronts_of
from reports.load_cases import LoadCase, title_of_case
from reports.marks import SIGN, mark_text
from reports.outputs import gfm
from reports.outputs.markdown_rows import States, heads_of, row_of, search_heads, search_row, whys_of
from reports.outputs.words import answer_in_words, environment_words
from reports.page.markup import plural, several
from reports.sections.rerun import command
from reports.verdict_words import family_text, margin_text

# A comment on GitHub holds 65,536 characters; something may stand around this.
_LENGTH_AT_MOST = 60_000
_MARKS = f"{SIGN} 2 behind a value: two of the reasons below to distrust it."
# More reasons than these are folded.
_REASONS_OPEN = 5


def markdown_text(run: Run) -> str:
    """A heading, the answer, a table at the load that decides, the reasons to distrust; the rest folded, and
    left out where a comment has no room for it."""
    top, end = list(_top(run)), [*_distrust(run), *_made(run)]
    decided, others = _searched(run) if run.record.search is not None else _by_load(run)
    if sum(map(len, (*top, *decided, *others, *end))) > _LENGTH_AT_MOST:
        others = ["", "Other loads are left out: a comment has no room for them."]
    return "\n".join([*top, *decided, *others, *end]) + "\n"


def _top(run: Run) -> Iterator[str]:
    answer = answer_in_words(run)
    said = " ".join(f"**{gfm.plain(each.lead)}.** {gfm.plain(each.text)}" for each in answer.said)
    yield from (f"### {gfm.plain(question(run))}", "", f"{said} {mark_text(answer.marks)}".rstrip())
    yield from ("", gfm.plain(what_was_run(run)))
    if run.record.status != "completed":
        yield from ("", f"**This run was cut short** ({gfm.plain(run.record.status)}).")


# --- tables ----------------------------------------------------------------------------------------


def _by_load(run: Run) -> tuple[list[str], list[str]]:
    """Of each scenario and model the load that is told first on the page, then the others."""
    states: States = {
        (row.scenario, row.load, each.label): each.state for row in run.decisions for each in row.standings
    }
    first = fronts_of(run)
    keys = {(case.scenario, case.model, case.load) for case in first}
    others = [case for case in _cases(run) if (case.scenario, case.model, case.load) not in keys]
    decided: list[str] = []
    for case in first:
        decided += ["", f"#### {_title(run, case)}", "", *_table(run, case, states)]
    folded = [line for case in others for line in gfm.folded(_title(run, case), _table(run, case, states))]
    return [*decided, "", *_legend(run)], folded


def _cases(run: Run) -> list[LoadCase]:
    """Every load, those of a scenario, model and family from the highest on."""
    found: dict[tuple[str, str, str], list[Group]] = {}
    for group in sorted(run.groups, key=lambda each: (each.scenario, each.model, each.family, -each.level)):
        found.setdefault((group.scenario, group.model, group.load), []).append(group)
    baselines = run.comparisons.baselines
    return [
        LoadCase(
            scenario,
            load,
            model,
            tuple(groups),
            next((group for group in groups if group.deployment == baselines[model]), None),
        )
        for (scenario, model, load), groups in found.items()
    ]


def _title(run: Run, case: LoadCase) -> str:
    return gfm.plain(title_of_case(run, case))


def _table(run: Run, case: LoadCase, states: States) -> list[str]:
    rows = [row_of(run, group, case, states) for group in case.groups]
    table = gfm.table(heads_of(run, case, states), rows, numbers_from=1)
    whys = whys_of(run, case)
    return [*table, *(["", f"No verdict: {gfm.plain(several(whys, '; '))}."] if whys else [])]


def _searched(run: Run) -> tuple[list[str], list[str]]:
    rows = [search_row(run, each) for each in run.capacities]
    note = f"{answer_in_words(run).basis} SLO: {slo_words(run.record.slo)}. {_MARKS}".lstrip()
    return ["", *gfm.table(search_heads(), rows, numbers_from=1), "", gfm.plain(note)], []


def _legend(run: Run) -> list[str]:
    """How to read the tables, and by which rule the verdicts are given."""
    found = run.comparisons
    said = ["Means over starts [95 % interval] (of two starts their range)."]
    if found.why_none:
        said.append(f"No verdicts: {found.why_none}. {remedy(run)}".rstrip())
    elif found.family:
        margin = margin_text(run.record.compare.margin_share)
        said.append(f"Below, the ratio to the baseline: {family_text(found.family)}; same: within {margin}.")
    if run.record.slo:
        said.append(f"SLO: {slo_words(run.record.slo)}.")
    return [gfm.plain(" ".join([*said, _MARKS]))]


# --- what to know of it ----------------------------------------------------------------------------


def _distrust(run: Run) -> list[str]:
    """Each reason, with what would help."""
    items = [
        f"- **{gfm.plain(each.title)}**: {gfm.plain(each.text)} *{gfm.plain(each.remedy)}*"
        for each in run.findings
    ]
    if not items:
        return ["", "No check found a reason to distrust these numbers. That proves nothing yet."]
    title = f"{plural(len(items), 'reason')} to distrust these numbers"
    more = items[_REASONS_OPEN:]
    rest = gfm.folded(f"{len(more)} more", more) if more else []
    return ["", f"#### {title}", "", *items[:_REASONS_OPEN], *rest]


def _made(run: Run) -> list[str]:
    """The machine, what was not run, and the command that asks for the same again."""
    skips = [f"Not run: {gfm.code(skip.what)}: {gfm.plain(skip.reason)}" for skip in run.record.plan.skips]
    fence = gfm.fenced(command(run), "sh")
    run_id = f"Run {gfm.code(run.record.run_id)} of {gfm.plain(run.record.created_at[:10])}."
    lines = [*(f"- {skip}" for skip in skips), *([""] if skips else []), *fence]
    return ["", f"{gfm.plain(environment_words(run))}. {run_id}", *gfm.folded("How it was made", lines)]
