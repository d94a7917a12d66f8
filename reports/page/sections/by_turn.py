"""One value against the turn of the conversation at one load, a line per deployment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.checks.examine import marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import counted, metric_of
from reports.measures.over_starts import Aggregate, aggregate_of, span, withheld
from reports.measures.turns import TurnValues, growth, turn_values
from reports.measures.written import NOTHING, several, span_text
from reports.page.charts import Chart, about, axis, label, line, spread
from reports.page.drawn.thinned import significant
from reports.page.looks import looks
from reports.page.marks import mark_html
from reports.page.markup import Of, Row, aggregate_cell
from reports.page.sections.by_load import aside
from reports.page.sections.points import alone, marked_points
from reports.page.sections.turn_titles import Turned, cache_title, growth_note, growth_title
from reports.verdicts.load_cases import LoadPoint
from reports.words.said import capital
from reports.words.verdict_words import title_of

# Conversations of hundreds of turns are drawn at so many of them.
TURNS_AT_MOST = 20


@dataclass(frozen=True)
class _Line:
    """A deployment's values at the turns (from 0) that are drawn."""

    group: Group
    values: TurnValues
    means: Mapping[int, Aggregate]

    @property
    def known(self) -> list[int]:
        return [turn for turn, mean in self.means.items() if mean.mean is not None]


def turn_chart(run: Run, point: LoadPoint, name: str, index: int, confidence: float) -> Chart | None:
    """A value by its name (`ttft_s.p50`, `cached_share`, `input_tokens`); None where there are not two
    turns that have it. `confidence`: of the intervals that its title goes by."""
    groups = [group for group in point.groups if not withheld(run, group.key, name)]
    found = {group.deployment: turn_values(run, group, name) for group in groups}
    turns = sorted({turn for values in found.values() for turn in values})
    drawn = _thinned(turns)
    lines = [_line(run, group, name, found[group.deployment], drawn) for group in groups]
    if len({turn for each in lines for turn in each.known}) < 2:
        return None
    metric = metric_of(name)
    quantity = f"{capital(title_of(name))} by turn at {point.load}"
    turned = _turned(run, lines, confidence) if name.endswith(".p50") else None
    title = _title(run, name, lines, turned, confidence)
    traces = [
        _trace(run, each, name, place, len(lines), drawn) for place, each in enumerate(lines) if each.known
    ]
    return Chart(
        f"turns-{name.partition('.')[0]}-{index}",
        title or quantity,
        traces,
        {"xaxis": _turn_axis(drawn), "yaxis": _value_axis(name)},
        ["deployment", "turn", metric.shown_unit, "n", "starts"],
        [row for each in lines for row in _rows(run, each, name)],
        _note(run, name, lines, turned, len(turns) - len(drawn)),
        quantity=quantity if title else "",
        of=Of(load=point.load),
        names_ends=True,
    )


def _thinned(turns: Sequence[int]) -> list[int]:
    """At most TURNS_AT_MOST of them, evenly, the first and the last kept."""
    places = np.linspace(0, len(turns) - 1, min(len(turns), TURNS_AT_MOST)).round().astype(int)
    return [turns[place] for place in np.unique(places)] if turns else []


def _line(run: Run, group: Group, name: str, values: TurnValues, drawn: Sequence[int]) -> _Line:
    kept = {turn: values[turn] for turn in drawn if turn in values}
    means = {turn: aggregate_of(run, group, name, list(found.values())) for turn, found in kept.items()}
    return _Line(group, kept, means)


def _trace(
    run: Run, found: _Line, name: str, place: int, of_lines: int, drawn: Sequence[int]
) -> dict[str, Any]:
    scale, turns = metric_of(name).shown_scale, found.known
    places = aside([turn + 1.0 for turn in drawn], of_lines, place - (of_lines - 1) / 2, False)
    aggregates = [found.means[turn] for turn in turns]
    means = [_rounded(each.mean, scale) for each in aggregates]
    ends = [span(each) for each in aggregates]
    lows, highs = ([_rounded(pair[at], scale) if pair else None for pair in ends] for at in (0, 1))
    repeats = list(found.values[turns[0]])
    by_start = {repeat + 1: alone(name, [found.values[turn][repeat] for turn in turns]) for repeat in repeats}
    unit = metric_of(name).shown_unit
    trace = line(
        looks(run)[found.group.deployment],
        [places[turn + 1.0] for turn in turns],
        means,
        error_y=spread(means, lows, highs),
        customdata=[str(turn + 1) for turn in turns],
        text=[
            label(f"{span_text(name, each)}, n = {counted(each.n, each.requests)}".removeprefix(", "))
            for each in aggregates
        ],
        hovertemplate=f"%{{fullData.name}}<br>turn %{{customdata}}: %{{y:.4~g}} {label(unit)}"
        "<br>%{text}<extra></extra>",
    )
    of = Of(found.group.deployment, found.group.load)
    points = [Of(turn=turn + 1) for turn in turns]
    return about(trace, of, points=points, by_start=by_start if len(repeats) > 1 else None)


def _rounded(value: float | None, scale: float) -> float | None:
    return None if value is None else significant(value * scale)


def _rows(run: Run, found: _Line, name: str) -> list[Row]:
    mark = mark_html(marks_of(run, found.group, name))
    return [
        Row(
            [
                found.group.deployment,
                str(turn + 1),
                aggregate_cell(name, mean, mark),
                counted(mean.n, mean.requests) if mean.k else NOTHING,
                str(mean.k),
            ],
            Of(found.group.deployment, found.group.load, turn + 1),
        )
        for turn, mean in found.means.items()
    ]


def _turn_axis(drawn: Sequence[int]) -> dict[str, Any]:
    ticks = [turn + 1 for turn in drawn]
    margin = 0.09 * (ticks[-1] - ticks[0])  # lines stand beside each other (by_load.aside)
    return axis(
        "turn of the conversation",
        tickvals=ticks,
        ticktext=[str(turn) for turn in ticks],
        range=[ticks[0] - margin, ticks[-1] + margin],
    )


def _value_axis(name: str) -> dict[str, Any]:
    unit = metric_of(name).shown_unit
    if unit == "%":
        return axis("% of the prompt", range=[0, 104])
    return axis(unit, rangemode="tozero")


# --- what is found ---------------------------------------------------------------------------------


def _turned(run: Run, lines: Sequence[_Line], confidence: float) -> list[Turned]:
    """The last turn that all lines have against the first; without those whose kernels are stand-ins, which
    show no speed of their engine."""
    fakes = stand_ins(run)
    drawn = [each for each in lines if each.known and each.group.deployment not in fakes]
    shared = set.intersection(*(set(each.known) for each in drawn)) if drawn else set()
    if len(shared) < 2:
        return []
    first, last = min(shared), max(shared)
    found = []
    for each in drawn:
        a, b = (list(each.values[turn].values()) for turn in (first, last))
        is_of_starts = run.is_restarted(each.group.deployment)
        grown = growth(a, b, run.record.compare.margin_share, confidence) if is_of_starts else None
        found.append(Turned(each.group.deployment, first + 1, last + 1, grown))
    return found


def _title(
    run: Run, name: str, lines: Sequence[_Line], turned: Sequence[Turned] | None, confidence: float
) -> str:
    """Empty where the intervals support none."""
    if turned:
        return growth_title(
            f"Median {title_of(name).partition(' ')[0]}", turned, run.record.compare.margin_share
        )
    if name == "cached_share":
        known = {each.group.deployment: each.means for each in lines if each.known}
        return cache_title(known, confidence)
    return ""


def _note(run: Run, name: str, lines: Sequence[_Line], turned: Sequence[Turned] | None, left_out: int) -> str:
    """`left_out`: how many turns are not drawn."""
    drawn = [each for each in lines if each.known]
    said = [growth_note(turned) if turned else ""]
    said += [f"{left_out:,} of {left_out + TURNS_AT_MOST:,} turns are not drawn."] if left_out else []
    absent = [each.group.deployment for each in lines if not each.known]
    said += [f"No value: {several(absent, '; ')}."] if absent else []
    said.append(marked_points(run, [each.group for each in drawn], [name], "line"))
    return " ".join(each for each in said if each)
