"""The table of the first screen: a row per deployment, best first, with its ratio to the leader drawn."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports.checks.examine import marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import Aggregate, aggregate, unit_of
from reports.page.cells import aggregate_cell, mark_html
from reports.page.looks import Look, looks, named
from reports.page.markup import Html, Of, Row, join, table, tag
from reports.verdicts.decisions import Decision
from reports.verdicts.searches import Capacity, value_at_highest
from reports.words.answer import OTHER_CORES
from reports.words.said import at
from reports.words.search_text import mean_words, span_words
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
    """A row: `value` gives the aggregate of a metric; `note` stands under the name."""

    label: str
    value: Callable[[str], Aggregate]
    group: Group | None = None
    note: str = ""


def answer_table(run: Run, made: Decision) -> Html:
    """Draw the deployments of a decision, contenders first; a decided leader of a column is bold."""
    left = [group for group in made.case.groups if group.deployment in made.left_out]
    lines = [
        _Line(
            group.deployment,
            lambda name, group=group: aggregate(run, group, name),  # type: ignore[misc]
            group,
            made.left_out.get(group.deployment, ""),
        )
        for group in (*made.groups, *left)
    ]
    decided = dict(made.leaders)
    if made.kind in ("named", "slight"):
        decided[made.metric] = made.groups[0].deployment
    metrics = [made.metric, *COLUMNS, *([_PER_CORE] if _use_other_cores(lines) else [])]
    first, *rest = _columns(run, lines, metrics, decided, at(made.case.load))
    columns = [first, *_ratios(run, made, lines), *rest]
    return _table(run, lines, columns, made.groups[0].deployment if decided.get(made.metric) else None)


def _use_other_cores(lines: Sequence[_Line]) -> bool:
    """Say whether the servers kept numbers of cores busy that differ by more than 15 %."""
    used = [mean for line in lines if (mean := line.value("cores_used").mean)]
    return bool(used) and max(used) > OTHER_CORES * min(used)


def capacity_table(run: Run, found: Sequence[Capacity]) -> Html:
    """Draw the deployments of a search: the highest load that each kept, and its values there."""
    ordered = sorted(found, key=lambda each: -(each.estimate.shown if each.estimate else 0.0))
    lines = [
        _Line(
            each.deployment,
            lambda name, each=each: value_at_highest(run, each, name),  # type: ignore[misc]
            note=each.why or "",
        )
        for each in ordered
    ]
    loads = [
        join([mean_words(each) or "–", tag("span", span_words(each), class_="range")]) for each in ordered
    ]
    columns = [("load within SLO", loads), *_columns(run, lines, COLUMNS, {}, "there")]
    return _table(run, lines, columns, None)


def _table(run: Run, lines: Sequence[_Line], columns: Sequence[Column], winner: str | None) -> Html:
    found = looks(run)
    rows = []
    for place, line in enumerate(lines):
        note = tag("span", line.note, class_="said") if line.note else ""
        name = join([named(found[line.label]), note])
        if line.label == winner:
            name = tag("span", name, class_="winner")
        cells = [name, *(cells[place] for _, cells in columns)]
        rows.append(Row(cells, Of(deployment=line.label)))
    return table(["deployment", *(head for head, _ in columns)], rows, "standing", "Standing")


def _columns(
    run: Run, lines: Sequence[_Line], metrics: Sequence[str], decided: Mapping[str, str], where: str
) -> list[Column]:
    """Return a column of each metric that a deployment has a value of; the first one says at which load."""
    columns: list[Column] = []
    for name in dict.fromkeys(metrics):
        values = [line.value(name) for line in lines]
        if columns and all(value.mean is None and value.pooled is None for value in values):
            continue
        cells = []
        for line, value in zip(lines, values, strict=True):
            mark = mark_html(marks_of(run, line.group, name)) if line.group else ""
            cell = aggregate_cell(name, value, mark)
            cells.append(tag("b", cell, class_="lead") if decided.get(name) == line.label else cell)
        head = heading_of(name, unit_of(run, name))
        columns.append((head if columns else f"{head} {where}", cells))
    return columns


# --- against the leader ----------------------------------------------------------------------------


def _ratios(run: Run, made: Decision, lines: Sequence[_Line]) -> list[Column]:
    """Return the column of ratios to the leader, drawn on one log axis for all; nothing without a test."""
    ratios = {line.label: ratio for line in lines if (ratio := made.ratio_to_leader(line.label))}
    if not ratios:
        return []
    low = min(0.9, *(ratio[1] for ratio in ratios.values()))
    high = max(1.1, *(ratio[2] for ratio in ratios.values()))
    frame = (max(low, 0.02), min(high, 50.0))
    found = looks(run)
    cells: list[Html | str] = []
    for line in lines:
        ratio = ratios.get(line.label)
        if ratio is not None:
            head, _, ends = ratio_words(ratio[0], ratio[1:], is_told=False).partition(" ")
            figures = tag("span", head, tag("span", ends, class_="range"), class_="figures")
            cells.append(join([_picture(found[line.label], ratio, frame), figures]))
        elif line.label == made.groups[0].deployment:
            cells.append(_picture(found[line.label], (1.0, 1.0, 1.0), frame))
        else:
            cells.append("")
    title = f"{title_of(made.metric)} over the leader's, in {made.repeats} paired repeats"
    level = "together" if len(ratios) > 1 else ""
    return [(tag("span", f"against the leader, 95 % {level}".rstrip(), title=title), cells)]


def _picture(look: Look, ratio: tuple[float, float, float], frame: tuple[float, float]) -> Html:
    """Draw a dot with its interval, and 1 as a dotted line; the figures beside it say the same."""
    middle = _HEIGHT / 2
    at, low, high, one = (_x(value, frame) for value in (*ratio, 1.0))
    return Html(
        f'<svg class="ratio" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'aria-hidden="true" style="stroke:var({look.colour});fill:var({look.colour})">'
        f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}" stroke-width="2"/>'
        f'<circle cx="{at:.1f}" cy="{middle:g}" r="4"/></svg>'
    )


def _x(ratio: float, frame: tuple[float, float]) -> float:
    """Return where a ratio stands, in px; one beyond the frame at its edge."""
    low, high = frame
    share = math.log(max(ratio, 1e-9) / low) / math.log(high / low)
    return 5 + (_WIDTH - 10) * min(1.0, max(0.0, share))
