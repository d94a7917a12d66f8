"""What the requests for each LoRA adapter wait for, and how often the next one is for another."""

from collections.abc import Sequence

from reports.data import Run
from reports.measures.traffic.adapters import adapters_of
from reports.measures.traffic.parts import Part, by_part, parts_of
from reports.page.cells import aggregate_cell, name_cell
from reports.page.declared import Chart, Columns, Topic, of_group
from reports.page.drawing.charts import axis
from reports.page.drawing.kinds import Drawn, Point, lines
from reports.page.looks import escaped, looks, prose
from reports.page.sections.traffic.by_group import group_table

_TTFT, _TPOT = "ttft_s.p50", "tpot_s.p50"
# Below a chart; of more adapters there are their numbers, from 0.
_NAMES_THAT_FIT = 20


def _name(part: Part) -> str:
    """Return an adapter's name, or its number where the run does not have it."""
    names = [adapter.name for adapter in adapters_of(part.group)]
    return names[part.number] if part.number < len(names) else f"adapter {part.number}"


def _draw(run: Run, parts: Sequence[Part]) -> Drawn:
    found = [(part, *by_part(run, part, _TTFT)) for part in parts]
    points = [
        Point(_TTFT, of_group(part.group), _name(part), part.number, value, starts)
        for part, value, starts in found
        if value.mean is not None
    ]
    names = dict(sorted((part.number, escaped(_name(part))) for part in parts))
    is_named = len(names) <= _NAMES_THAT_FIT
    ticks = {"tickvals": list(names), "ticktext": list(names.values())} if is_named else {}
    return lines(looks(run), points, axis("adapter, the commonest first", **ticks), "ms")


def _columns(run: Run) -> Columns[Part]:
    return {
        "deployment": lambda part: name_cell(run, part.group),
        "adapter": _name,
        "TTFT p50 ms": lambda part: aggregate_cell(_TTFT, by_part(run, part, _TTFT)[0]),
        "TPOT p50 ms": lambda part: aggregate_cell(_TPOT, by_part(run, part, _TPOT)[0]),
        "requests": lambda part: f"{part.requests:,}",
    }


CHART = Chart[Part](
    "adapters",
    "",
    lambda run: parts_of(run, "lora_mix"),
    _draw,
    _columns,
    lambda part: of_group(part.group),
    each=lambda part: f"TTFT p50 by adapter, {part.group.scenario} at {part.group.load}",
)
ADAPTERS = Topic("adapters", "Adapters", [CHART, group_table("lora_mix", ["swap_share"])], prose("adapters"))
