"""The first screen: the question, the answer, the table to choose from, and the reasons to distrust them."""

from collections.abc import Sequence
from itertools import zip_longest

from harness.contracts import timing
from reports.checks.examine import findings_of, marks_of
from reports.data import Group, Run
from reports.measures import MEANS_APART, NOTHING, several, unit_of
from reports.page.cells import aggregate_cell, cell_marks, mark_html, quality_columns
from reports.page.looks import (
    Html,
    Of,
    Row,
    join,
    looks,
    macro,
    named,
    paragraph,
    ratio_frame,
    ratio_picture,
    table,
    tag,
    unbroken,
)
from reports.verdicts import Decision, capacities_of, decisions_of
from reports.words.answer import answers_of, basis
from reports.words.described import cut_short, question, what_was_run
from reports.words.verdict_words import clipped, heading_of, ratio_words, sure_text, title_of

# Beside the metric that decides; those that no deployment has a value of are left out.
COLUMNS = (
    "output_tokens_per_s",
    "ttft_s.p50",
    "tpot_s.p50",
    "memory_peak_bytes",
    "energy_j_per_output_token",
    "cost_per_million_output_tokens",
    "cores_used",
)
_PER_CORE = "output_tokens_per_s_per_core"
# Characters of why one is left out: a narrow screen has room for few.
_NOTE = 90
# Reasons to distrust that fit on a screen; the others are folded.
_TOLD = 5
# The cells of the table's rows by the column's head.
Columns = dict[Html | str, list[Html | str]]


def opening(run: Run) -> Html:
    """Draw the first screen: question, answer, the table to choose from, and what speaks against it."""
    said = answers_of(run)
    tables = [(made.case.load, _table(run, made)) for made in decisions_of(run)]
    return macro(
        "opening",
        unbroken(question(run)),
        len(said) == 1,
        run.record.stopped_because
        and f"{'until ended: ' * bool(run.record.until)}{run.record.stopped_because}",
        cut_short(run),
        [
            (each, each and unbroken(f"{each.lead}."), *(table or ("", "")))
            for each, table in zip_longest(said, tables)
        ],
        unbroken(what_was_run(run)),
        basis(run),
        several([skip.what for skip in run.record.plan.skips]),
        findings_of(run),
        _TOLD,
    )


# --- the table to choose from ---------------------------------------------------------------------


def _table(run: Run, made: Decision) -> Html:
    """Draw the deployments of a decision, contenders first; a decided leader of a column is bold."""
    groups = made.ranked
    kept = _kept_loads(run, made, groups)
    first, *rest = _values(run, made, groups, "there" if kept else f"at {made.case.load}").items()
    columns: Columns = {**kept, **dict([first]), **_ratios(run, made, groups), **dict(rest)}
    columns |= quality_columns(run, [group.deployment for group in groups])
    notes = {**made.left_out, **{each.deployment: "" for each in made.capacities if each.level is not None}}
    rows = []
    for at, group in enumerate(groups):
        name, note = named(looks(run)[group.deployment]), notes.get(group.deployment)
        if note:  # in full below, with the reasons to distrust
            name = join([name, tag("span", clipped(note, _NOTE), title=note, class_="said quiet")])
        name = join(
            [
                tag("span", name, class_="winner" if group.deployment == made.served else ""),
                cell_marks(run, group) if {cell.validity for cell in group.counted} == {"suspect"} else "",
            ]
        )
        rows.append(Row([name, *(cells[at] for cells in columns.values())], Of(group.deployment)))
    medians = (made.value(run, group, "ttft_s.p50") for group in groups if group.counted)
    few = [each.mean is None and each.pooled is None for each in medians]
    what = "No TTFT or TPOT" if all(few) else NOTHING
    why = paragraph(f"{what}: fewer than {timing.needed(50)} requests.") if any(few) else ""
    return join([table(["deployment", *columns], rows, "standing", "Standing"), why])


def _kept_loads(run: Run, made: Decision, groups: Sequence[Group]) -> Columns:
    found = {each.deployment: each for each in capacities_of(run) if each.group in made.case.groups}
    cells: list[Html | str] = [
        join([each.words, tag("span", f"values at {each.group.load}" * (each.level is None), class_="range")])
        for each in (found[group.deployment] for group in groups if found)
    ]
    return {"keeps the SLO up to": cells} if found else {}


def _values(run: Run, made: Decision, groups: Sequence[Group], where: str) -> Columns:
    names = dict.fromkeys((made.metric, *COLUMNS, _PER_CORE))
    values = {name: [made.value(run, group, name) for group in groups] for name in names}
    used = [each.mean for each in values["cores_used"] if each.mean]
    if not used or max(used) <= MEANS_APART * min(used):
        del values[_PER_CORE]
    columns: Columns = {}
    for name, own in values.items():
        if columns and all(each.mean is None and each.pooled is None for each in own):
            continue
        head = heading_of(name, unit_of(run, name))
        cells = columns.setdefault(head if columns else f"{head} {where}", [])
        for group, each in zip(groups, own, strict=True):
            marks = [found for found in marks_of(run, group.counted, name) if not found.is_at_name]
            cell = aggregate_cell(name, each, mark_html(marks))
            cells.append(
                tag("b", cell, class_="lead") if made.leaders.get(name) == group.deployment else cell
            )
    return columns


# --- against the leader ----------------------------------------------------------------------------


def _ratios(run: Run, made: Decision, groups: Sequence[Group]) -> Columns:
    ratios = {group.deployment: made.ratio_to_leader(group.deployment) for group in groups}
    known = [ratio for ratio in ratios.values() if ratio]
    if not known:
        return {}
    frame = ratio_frame(known)
    cells: list[Html | str] = []
    for label, ratio in ratios.items():
        figures: Html | str = ""
        if ratio:
            said, _, ends = ratio_words(*ratio).partition(" ")
            figures = tag("span", said, tag("span", ends, class_="range"), class_="figures")
        is_drawn = ratio or label == groups[0].deployment
        colour = looks(run)[label].colour
        drawn = ratio_picture(colour, ratio or (1.0, 1.0, 1.0), frame) if is_drawn else ""
        cells.append(join([drawn, figures]))
    title = f"{title_of(made.metric)} over the leader's, in {made.repeats} paired repeats"
    sure = f"{sure_text(made.alpha)}{' together' if len(known) > 1 else ''}"
    return {tag("span", f"against the leader, {sure}", title=title): cells}
