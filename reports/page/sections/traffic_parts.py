"""Topics on parts of a group's requests: turns and prefixes that a cache serves, depths, LoRA adapters."""

from collections.abc import Callable, Sequence

from serving_bench.reports.data import Run
from serving_bench.reports.measures import number
from serving_bench.reports.measures.anatomy import kv_bytes_per_token
from serving_bench.reports.measures.traffic.cache import Served, metrics_share, served_of
from serving_bench.reports.measures.traffic.of_groups import Part, adapter_name, by_part, parts_of
from serving_bench.reports.page.cells import aggregate_cell, gauge_cell, inferred_cell, name_cell
from serving_bench.reports.page.declared import Chart, Columns, Notes, Table, Topic, of_group
from serving_bench.reports.page.drawing.charts import axis
from serving_bench.reports.page.drawing.kinds import Drawn, Point, lines
from serving_bench.reports.page.drawing.more_kinds import cache_bars
from serving_bench.reports.page.looks import escaped, looks, prose
from serving_bench.reports.page.sections.traffic import group_table
from serving_bench.reports.words import claims

# --- what a prefix cache could serve, what the server reports, and what TTFT says --------------------


def _served(run: Run) -> Columns[Served]:
    return {
        "deployment": lambda each: name_cell(run, each.group),
        "load": lambda each: each.group.load,
        "part": lambda each: each.part,
        "scenario": lambda each: each.group.scenario if run.has_scenarios else "",
        "requests": lambda each: f"{each.requests:,}",
        "input tokens": lambda each: number(each.input_tokens, 0),
    }


WHOLE = Chart[Served](
    "cache",
    "",
    lambda run: [each for each in served_of(run) if not each.part],
    lambda _, rows: cache_bars(rows),
    lambda run: {
        **_served(run),
        "ideal %": lambda each: number(each.ideal, 1, 100 / each.input_tokens),
        "reported %": lambda each: number(each.reported, 1, 100 / each.input_tokens),
        "metrics page %": lambda each: number(metrics_share(run, each.group), scale=100),
        "by TTFT %": lambda each: inferred_cell(each, 100 / each.input_tokens),
        "prefill tokens saved": lambda each: number(each.saved, 0),
    },
    lambda each: of_group(each.group),
    each=lambda each: f"Input tokens of a request of {each.group.scenario} at {each.group.load}",
    is_wide=True,
)
PARTS = Table[Served](
    "By turn or prefix",
    lambda run: [each for each in served_of(run) if each.part],
    lambda run: {
        **_served(run),
        "ideal": lambda each: number(each.ideal, 0),
        "reported": lambda each: number(each.reported, 0),
        "by TTFT": inferred_cell,
        "TTFT p50 ms": lambda each: number(each.ttft_s, scale=1e3),
    },
    lambda each: of_group(each.group),
)
CACHE = Topic(
    "prefix-cache",
    "Prefix cache",
    [Notes(claims.contradictions), Notes(claims.ideals), WHOLE, PARTS],
    claims.cache_claim,
    prose("prefix_cache"),
)


# --- depths and adapters ----------------------------------------------------------------------------

_TTFT, _TPOT = "ttft_s.p50", "tpot_s.p50"
# More adapters are shown by their numbers, from 0.
_NAMES_THAT_FIT = 20


def _points(
    run: Run, parts: Sequence[Part], name: str, place: Callable[[Part], tuple[str, float]]
) -> list[Point]:
    """Return a point for each part that has a median by this name (`ttft_s.p50`).

    `place`: where a part stands, in words and on the axis.
    """
    return [
        Point(name, of_group(part.group), *place(part), value, starts)
        for part in parts
        for value, starts in [by_part(run, part, name)]
        if value.mean is not None
    ]


def _against_depth(name: str, title: str) -> Chart[Part]:
    def draw(run: Run, parts: Sequence[Part]) -> Drawn:
        deep = [part for part in parts if part.input_tokens]
        points = _points(run, deep, name, lambda p: (f"{p.input_tokens:,.0f}", p.input_tokens or 0.0))
        return lines(looks(run), points, axis("input tokens", rangemode="tozero"), "ms")

    def kv_mib(run: Run, part: Part) -> str:
        per_token = kv_bytes_per_token(run, part.group.deployment)
        return number(per_token and part.input_tokens and per_token * part.input_tokens, scale=2.0**-20)

    return Chart(
        f"depth-{name.partition('_')[0]}",
        "",
        lambda run: parts_of(run, "long_context"),
        draw,
        lambda run: {
            "deployment": lambda part: part.group.deployment,
            "input tokens": lambda part: number(part.input_tokens, 0),
            f"{title} ms": lambda part: aggregate_cell(name, by_part(run, part, name)[0]),
            "tokens/s": lambda part: number(part.read_per_s if name == _TTFT else part.made_per_s),
            "KV cache MiB": lambda part: kv_mib(run, part),
            "requests": lambda part: f"{part.requests:,}",
        },
        lambda part: of_group(part.group),
        each=lambda part: f"{title} against depth, {part.group.scenario} at {part.group.load}",
        names_ends=True,
    )


DEPTHS = Topic(
    "depths",
    "Latency against context depth",
    [
        _against_depth(_TTFT, "TTFT p50"),
        _against_depth(_TPOT, "TPOT p50"),
        group_table(
            "long_context",
            ["quadratic_share", "prefill_tokens_per_s", "decode_tokens_per_s"],
            lambda run: {
                "KV cache in use %": lambda group: gauge_cell(run, group, "kv_cache_usage_share", 100)
            },
        ),
    ],
    prose("depths"),
)


def _by_adapter(run: Run, parts: Sequence[Part]) -> Drawn:
    points = _points(run, parts, _TTFT, lambda part: (adapter_name(part), part.number))
    names = dict(sorted((part.number, escaped(adapter_name(part))) for part in parts))
    is_named = len(names) <= _NAMES_THAT_FIT
    ticks = {"tickvals": list(names), "ticktext": list(names.values())} if is_named else {}
    return lines(looks(run), points, axis("adapter, most frequent first", **ticks), "ms")


BY_ADAPTER = Chart[Part](
    "adapters",
    "",
    lambda run: parts_of(run, "lora_mix"),
    _by_adapter,
    lambda run: {
        "deployment": lambda part: name_cell(run, part.group),
        "adapter": adapter_name,
        "TTFT p50 ms": lambda part: aggregate_cell(_TTFT, by_part(run, part, _TTFT)[0]),
        "TPOT p50 ms": lambda part: aggregate_cell(_TPOT, by_part(run, part, _TPOT)[0]),
        "requests": lambda part: f"{part.requests:,}",
    },
    lambda part: of_group(part.group),
    each=lambda part: f"TTFT p50 by adapter, {part.group.scenario} at {part.group.load}",
)
ADAPTERS = Topic(
    "adapters", "Adapters", [BY_ADAPTER, group_table("lora_mix", ["swap_share"])], prose("adapters")
)
