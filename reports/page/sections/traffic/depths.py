"""What depth costs: TTFT and the time per token against the tokens of the prompt, and the KV cache there."""

from collections.abc import Callable, Sequence
from functools import partial

from reports.data import Run
from reports.measures import number
from reports.measures.anatomy import kv_bytes_per_token
from reports.measures.traffic.parts import Part, by_depth, parts_of
from reports.page.cells import aggregate_cell
from reports.page.declared import Chart, Columns, Topic, of_group
from reports.page.drawing.charts import axis
from reports.page.drawing.kinds import Drawn, Point, lines
from reports.page.looks import looks, prose
from reports.page.sections.traffic.by_group import group_table


def _draw(name: str, run: Run, parts: Sequence[Part]) -> Drawn:
    points = []
    for part in (part for part in parts if part.input_tokens is not None):
        value, starts = by_depth(run, part, name)
        if value.mean is not None:
            tokens = part.input_tokens or 0.0
            points.append(Point(name, of_group(part.group), f"{tokens:,.0f}", tokens, value, starts))
    return lines(looks(run), points, axis("input tokens", rangemode="tozero"), "ms")


def _chart(name: str, title: str, rate: str, per_s: Callable[[Part], float | None]) -> Chart[Part]:
    def columns(run: Run) -> Columns[Part]:
        return {
            "deployment": lambda part: part.group.deployment,
            "input tokens": lambda part: number(part.input_tokens, 0),
            f"{title} ms": lambda part: aggregate_cell(name, by_depth(run, part, name)[0]),
            rate: lambda part: number(per_s(part)),
            "KV cache MiB": lambda part: number(_kv_mib(run, part)),
            "requests": lambda part: f"{part.requests:,}",
        }

    return Chart(
        f"depth-{name.partition('.')[0]}".replace("_", "-"),
        "",
        lambda run: parts_of(run, "long_context"),
        partial(_draw, name),
        columns,
        lambda part: of_group(part.group),
        each=lambda part: f"{title} against depth, {part.group.scenario} at {part.group.load}",
        names_ends=True,
    )


def _prefill(part: Part) -> float | None:
    if not part.ttft_s or part.input_tokens is None:
        return None
    return part.input_tokens * (1 - (part.cached_share or 0.0)) / part.ttft_s


def _kv_mib(run: Run, part: Part) -> float | None:
    per_token = kv_bytes_per_token(run, part.group.deployment)
    return None if per_token is None or part.input_tokens is None else per_token * part.input_tokens / 2**20


DEPTHS = Topic(
    "depths",
    "Against the depth of the context",
    [
        _chart("ttft_s.p50", "TTFT p50", "prefill tokens/s", _prefill),
        _chart(
            "tpot_s.p50", "TPOT p50", "decode tokens/s", lambda part: 1 / part.tpot_s if part.tpot_s else None
        ),
        group_table("long_context", ["quadratic_share", "prefill_tokens_per_s", "decode_tokens_per_s"]),
    ],
    prose("depths"),
)
