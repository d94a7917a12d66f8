"""Speed against memory: which deployments no other beats in both, a chart per scenario and load.

Quality is the third of what is traded, and nothing here measures it; the charts say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.checks.examine import marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.anatomy import anatomies
from reports.measures.metrics import metric_of
from reports.measures.over_starts import Aggregate, aggregate, span
from reports.measures.written import several, span_text
from reports.page.charts import Chart, Section, about, axis, figure, grid, line, spread
from reports.page.charts import label as text_of
from reports.page.looks import Look, key, looks
from reports.page.marks import mark_html, marked_cell
from reports.page.markup import Of, Row, aggregate_cell, details, join, paragraph
from reports.page.sections.points import marked_points, point_text
from reports.stats.fronts import Front, Told, front_of
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decision import by_pairs, needed_by_start, over_starts
from reports.verdicts.load_cases import LoadCase, load_cases_of, opened
from reports.words.titles import LONGEST
from reports.words.verdict_words import margin_text

_SPEED, _PEAK = "output_tokens_per_s", "memory_peak_bytes"
_NEEDED = "memory needed"
_NO_QUALITY = "Quality was not measured: a smaller quantization may answer worse."


@dataclass(frozen=True)
class Memory:
    """What each deployment takes at a load. `told`: the verdict on less; `words`: what the sizes are of."""

    words: str
    sizes: Mapping[str, Aggregate]
    told: Told


def section(run: Run) -> Section | None:
    """None where no two deployments have both values at a load, and of a search, whose loads differ."""
    if run.record.search is not None:
        return None
    needed = _needed(run)
    cases = enumerate(load_cases_of(run))
    found = [(case, chart) for number, case in cases if (chart := _chart(run, case, needed, number))]
    if not found:
        return None
    first = opened(run, [case for case, _ in found])
    shown = [chart for case, chart in found if case in first]
    folded = [chart for case, chart in found if case not in first]
    margin = margin_text(run.record.compare.margin_share)
    note = paragraph(
        "Up and to the left is better. On the front is who no other is proven to beat: better in one of the "
        f"two, and better or the same within {margin} in the other."
    )
    parts = [note, key(run), *(figure(chart) for chart in shown)]
    parts += [details("At the other loads", grid(folded))] if folded else []
    return Section("Speed against memory", join(parts), [*shown, *folded])


def _needed(run: Run) -> dict[str, dict[int, float]]:
    """What each deployment's starts needed; nothing where that is not known of all, or not of one kind."""
    found = anatomies(run)
    kinds = {each.is_host for starts in found.values() for each in starts}
    measured = {group.deployment for group in run.groups if group.counted}
    labels = [label for label in run.deployments if label in measured]
    return needed_by_start(found, labels) if len(kinds) == 1 else {}


def _memory(run: Run, groups: Sequence[Group], needed: Mapping[str, Mapping[int, float]]) -> Memory:
    labels = [group.deployment for group in groups if group.counted]
    if needed and all(label in needed for label in labels):
        own = {label: needed[label] for label in labels}
        sizes = {label: over_starts(list(each.values())) for label, each in own.items()}
        return Memory(_NEEDED, sizes, by_pairs(run, own, None))
    first = groups[0]
    peaks = {group.deployment: aggregate(run, group, _PEAK) for group in groups}
    return Memory(
        "peak memory",
        {label: each for label, each in peaks.items() if each.mean is not None},
        lambda a, b: comparisons_of(run).of(first.scenario, first.load, _PEAK, a, b),
    )


def _chart(run: Run, case: LoadCase, needed: Mapping[str, Mapping[int, float]], number: int) -> Chart | None:
    memory = _memory(run, case.groups, needed)
    speeds = {group.deployment: aggregate(run, group, _SPEED) for group in case.groups}
    drawn = [g for g in case.groups if g.deployment in memory.sizes and speeds[g.deployment].mean is not None]
    if len(drawn) < 2:
        return None
    front = front_of(
        {group.deployment: speeds[group.deployment].mean or 0.0 for group in drawn},
        {group.deployment: memory.sizes[group.deployment].mean or 0.0 for group in drawn},
        lambda a, b: comparisons_of(run).of(case.scenario, case.load, _SPEED, a, b),
        memory.told,
    )
    has_verdicts = comparisons_of(run).why_none is None
    dots = [_dot(run, looks(run)[g.deployment], g, speeds[g.deployment], memory) for g in drawn]
    steps = [_steps(front, speeds, memory)] if has_verdicts and len(front.steps) > 1 else []
    quantity = f"Output tokens/s against {memory.words} at {case.load}{_suffix(run, case)}"
    finding = _finding(front, case.load) if has_verdicts else None
    return Chart(
        f"pareto-{number}",
        finding or quantity,
        [*steps, *dots],
        {
            "xaxis": axis(f"{memory.words}, GiB, lower is better", rangemode="tozero"),
            "yaxis": axis("output tokens/s, higher is better", rangemode="tozero"),
        },
        ["deployment", f"{memory.words} GiB", "output tokens/s", "starts", "standing"],
        [_row(run, group, speeds[group.deployment], memory, front, has_verdicts) for group in case.groups],
        _note(run, case, drawn, memory, front),
        height_px=380,
        quantity=quantity if finding else "",
        of=Of(load=case.load),
        names_ends=True,
    )


def _suffix(run: Run, case: LoadCase) -> str:
    """What tells it from the charts of other scenarios and models."""
    said = [case.scenario] if len({group.scenario for group in run.groups}) > 1 else []
    said += [case.model] if len({group.model for group in run.groups}) > 1 else []
    return f": {', '.join(said)}" if said else ""


def _finding(front: Front, load: str) -> str | None:
    """Only where each deployment is on the front or beaten."""
    if not front.is_whole or not front.beaten:
        return None
    if len(front.steps) == 1:
        return f"{front.steps[0]} is beaten by none in speed and memory at {load}"
    names = f"{', '.join(front.steps[:-1])} and {front.steps[-1]}"
    said = f"On the front at {load}: {names}"
    whole = len(front.steps) + len(front.beaten)
    counted = f"{len(front.steps)} of {whole} deployments are on the front at {load}"
    return said if len(said) <= LONGEST else counted


# --- what is drawn ---------------------------------------------------------------------------------


def _dot(run: Run, look: Look, group: Group, speed: Aggregate, memory: Memory) -> dict[str, Any]:
    scale, size = metric_of(_PEAK).shown_scale, memory.sizes[group.deployment]
    x, y = [(size.mean or 0.0) * scale], [speed.mean or 0.0]
    across, up = span(size), span(speed)
    ends_x = [tuple(end * scale for end in across) if across else (None, None)]
    ends_y = [up or (None, None)]
    said = (
        f"tokens/s: {point_text(run, group, _SPEED, speed)}<br>GiB: {span_text(_PEAK, size) or 'no interval'}"
    )
    trace = line(
        look,
        x,
        y,
        error_x=spread(x, [low for low, _ in ends_x], [high for _, high in ends_x]),
        error_y=spread(y, [low for low, _ in ends_y], [high for _, high in ends_y]),
        text=[said],
        hovertemplate=f"%{{fullData.name}}<br>{text_of(group.load)}: %{{y:,.4~g}} tokens/s in "
        "%{x:,.4~g} GiB<br>%{text}<extra></extra>",
    )
    trace["marker"]["size"] = 10
    return about(trace, Of(look.label), points=[Of(load=group.load)])


def _steps(front: Front, speeds: Mapping[str, Aggregate], memory: Memory) -> dict[str, Any]:
    """From one deployment of the front to the next: less memory gives no more speed."""
    scale = metric_of(_PEAK).shown_scale
    return {
        "type": "scatter", "mode": "lines", "name": "", "hoverinfo": "skip",
        "x": [(memory.sizes[label].mean or 0.0) * scale for label in front.steps],
        "y": [speeds[label].mean for label in front.steps],
        "line": {"color": "--mut", "width": 1, "dash": "dot", "shape": "hv"},
    }  # fmt: skip


# --- words -----------------------------------------------------------------------------------------


def _row(run: Run, group: Group, speed: Aggregate, memory: Memory, front: Front, has_verdicts: bool) -> Row:
    label = group.deployment
    size = memory.sizes.get(label, Aggregate(None, None, None, 0, 0, ()))
    mark = mark_html(marks_of(run, group, _PEAK))
    cells = (
        label,
        aggregate_cell(_PEAK, size, mark),
        marked_cell(run, group, _SPEED),
        str(speed.k),
        _standing(front, label) if has_verdicts else "no verdict",
    )
    return Row(cells, Of(label, group.load))


def _standing(front: Front, label: str) -> str:
    if beaters := front.beaten.get(label):
        return f"beaten by {several([each for each in beaters if each in front.steps] or beaters)}"
    if label in front.steps:
        return "on the front"
    return "not told apart from the front" if label in front.untold else "no value of both"


def _note(run: Run, case: LoadCase, drawn: Sequence[Group], memory: Memory, front: Front) -> str:
    said = [_NO_QUALITY]
    if why := comparisons_of(run).why_none:
        said.append(f"No front is drawn: {why}.")
    else:
        said += [f"Not told apart from the front: {several(front.untold)}."] if front.untold else []
        if memory.words == _NEEDED:
            said.append("Speed and memory are two families of verdicts, each with its own 5 % of error.")
    if missing := [group.deployment for group in case.groups if group not in drawn]:
        said.append(f"Not drawn, with no value of both: {several(missing)}.")
    if memory.words == _NEEDED:
        said.append(
            "Memory needed: of a start over all its loads, less the KV cache that was reserved and not used."
        )
    said.append(marked_points(run, drawn, [_SPEED, _PEAK]))
    return " ".join(filter(None, said))
