"""The table of the first screen: a row per deployment, best first, with its ratio to the leader drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.checks.examine import marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import Aggregate, aggregate, unit_of
from reports.page.cells import aggregate_cell, mark_html
from reports.page.looks import Look, looks, named
from reports.page.markup import Html, Of, Row, join, table, tag
from reports.verdicts.decisions import Decision
from reports.verdicts.searches import capacities_of
from reports.words.answer import OTHER_CORES
from reports.words.verdict_words import heading_of, ratio_words, title_of

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
# The drawing of a ratio, in px.
_WIDTH, _HEIGHT = 150, 16
# A head, and the cell of each row.
Column = tuple[Html | str, Sequence[Html | str]]


@dataclass(frozen=True)
class _Line:
    """A row: a deployment with its values by metric. `note` stands under its name."""

    group: Group
    look: Look
    values: Mapping[str, Aggregate]
    note: str


def answer_table(run: Run, made: Decision) -> Html:
    """Draw the deployments of a decision, contenders first; a decided leader of a column is bold."""
    names = list(dict.fromkeys((made.metric, *COLUMNS, _PER_CORE)))
    notes = {**made.left_out, **{each.deployment: "" for each in made.capacities if each.level is not None}}
    found, lines = looks(run), []
    for group in (*made.groups, *(each for each in made.case.groups if each.deployment in made.left_out)):
        values = {name: aggregate(run, group, name) for name in names}
        lines.append(_Line(group, found[group.deployment], values, notes.get(group.deployment, "")))
    used = [mean for line in lines if (mean := line.values["cores_used"].mean)]
    if not used or max(used) <= OTHER_CORES * min(used):
        names.remove(_PER_CORE)
    winner = made.leader.deployment if made.leader and (made.best or made.capacities[1:]) else ""
    loads = _loads(run, made, lines)
    first, *rest = _columns(run, lines, names, made.leaders, "there" if loads else f"at {made.case.load}")
    columns = [*loads, first, *_ratios(made, lines), *rest]
    rows = []
    for line, *cells in zip(lines, *(cells for _, cells in columns), strict=True):
        name = join([named(line.look), tag("span", line.note, class_="said") if line.note else ""])
        head = tag("span", name, class_="winner") if line.look.label == winner else name
        rows.append(Row([head, *cells], Of(deployment=line.look.label)))
    return table(["deployment", *(head for head, _ in columns)], rows, "standing", "Standing")


def _loads(run: Run, made: Decision, lines: Sequence[_Line]) -> list[Column]:
    """Return the column of the highest loads of a search, at which its values stand; nothing of a run."""
    found = {each.deployment: each for each in capacities_of(run) if each.group in made.case.groups}
    cells: list[Html | str] = []
    for each in (found[line.look.label] for line in lines if found):
        beside = "" if each.level is not None else tag("span", f"values at {each.group.load}", class_="range")
        cells.append(join([each.words, beside]))
    return [("keeps the SLO up to", cells)] if found else []


def _columns(
    run: Run, lines: Sequence[_Line], names: Sequence[str], decided: Mapping[str, str], where: str
) -> list[Column]:
    """Return a column of each metric that a deployment has a value of; the first one says at which load."""
    columns: list[Column] = []
    for name in names:
        values = [line.values[name] for line in lines]
        if columns and all(value.mean is None and value.pooled is None for value in values):
            continue
        cells = []
        for line in lines:
            cell = aggregate_cell(name, line.values[name], mark_html(marks_of(run, line.group, name)))
            cells.append(tag("b", cell, class_="lead") if decided.get(name) == line.look.label else cell)
        head = heading_of(name, unit_of(run, name))
        columns.append((head if columns else f"{head} {where}", cells))
    return columns


# --- against the leader ----------------------------------------------------------------------------


def _ratios(made: Decision, lines: Sequence[_Line]) -> list[Column]:
    """Return the column of ratios to the leader, drawn on one log axis for all; nothing without a test."""
    ratios = [made.ratio_to_leader(line.look.label) for line in lines]
    known = [ratio for ratio in ratios if ratio]
    if not known:
        return []
    frame = max(0.02, min(0.9, *(low for _, low, _ in known))), min(50.0, max(1.1, *(r[2] for r in known)))
    cells: list[Html | str] = []
    for line, ratio in zip(lines, ratios, strict=True):
        figures: Html | str = ""
        if ratio:
            head, _, ends = ratio_words(*ratio).partition(" ")
            figures = tag("span", head, tag("span", ends, class_="range"), class_="figures")
        is_drawn = ratio or line.group == made.groups[0]
        drawn = _picture(line.look, ratio or (1.0, 1.0, 1.0), frame) if is_drawn else ""
        cells.append(join([drawn, figures]))
    title = f"{title_of(made.metric)} over the leader's, in {made.repeats} paired repeats"
    head = "against the leader, 95 %" + (" together" if len(known) > 1 else "")
    return [(tag("span", head, title=title), cells)]


def _picture(look: Look, ratio: tuple[float, float, float], frame: tuple[float, float]) -> Html:
    """Draw a dot with its interval, and 1 as a dotted line; the figures beside it say the same.

    What lies beyond the frame stands at its edge.
    """
    low, high = map(math.log, frame)
    shares = [(math.log(max(value, 1e-9)) - low) / (high - low) for value in (*ratio, 1.0)]
    at, least, most, one = (5 + (_WIDTH - 10) * min(1.0, max(0.0, share)) for share in shares)
    middle = _HEIGHT / 2
    return Html(
        f'<svg class="ratio" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'aria-hidden="true" style="stroke:var({look.colour});fill:var({look.colour})">'
        f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{middle:g}" y2="{middle:g}" stroke-width="2"/>'
        f'<circle cx="{at:.1f}" cy="{middle:g}" r="4"/></svg>'
    )
