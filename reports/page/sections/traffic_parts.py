"""Topics on parts of a group's requests: turns and prefixes that a cache serves, depths, LoRA adapters."""

from collections.abc import Iterable, Iterator, Sequence

from serving_bench.reports.data import Run, grouped
from serving_bench.reports.measures import number
from serving_bench.reports.measures.anatomy import kv_bytes_per_token
from serving_bench.reports.measures.traffic.cache import Served, metrics_share, served_of
from serving_bench.reports.measures.traffic.of_groups import (
    Part,
    adapter_name,
    by_part,
    groups_under,
    parts_of,
)
from serving_bench.reports.page.cells import aggregate_cell, gauge_cell, inferred_cell, name_cell
from serving_bench.reports.page.drawing.charts import axis
from serving_bench.reports.page.drawing.kinds import Point, lines
from serving_bench.reports.page.drawing.more_kinds import cache_bars
from serving_bench.reports.page.looks import Row, escaped, looks, prose
from serving_bench.reports.page.parts import Chart, Notes, Shown, Table, Topic, of_group, shared
from serving_bench.reports.page.sections.traffic import group_table
from serving_bench.reports.words import claims

# --- what a prefix cache could serve, what the server reports, and what TTFT says --------------------


def cache(run: Run) -> Topic:
    whole = [each for each in served_of(run) if not each.part]
    by_load = grouped(whole, lambda each: f"{each.group.scenario} at {each.group.load}")
    charts = []
    for at, (where, served) in enumerate(by_load.items()):
        rows = [Row(_whole(run, each), of_group(each.group)) for each in served]
        title = f"Input tokens of a request of {where}"
        charts.append(Chart(f"cache-{at}", title, *cache_bars(served), rows, of=shared(rows), is_wide=True))
    rows = [Row(_part(run, each), of_group(each.group)) for each in served_of(run) if each.part]
    return Topic(
        "prefix-cache",
        "Prefix cache",
        [
            Notes(claims.contradictions(run)),
            Notes(claims.ideals(run)),
            *charts,
            Table("By turn or prefix", rows),
        ],
        claims.cache_claim(run),
        prose("prefix_cache", run),
    )


def _served(run: Run, each: Served) -> dict[str, Shown]:
    return {
        "deployment": name_cell(run, each.group),
        "load": each.group.load,
        "part": each.part,
        "scenario": each.group.scenario if run.has_scenarios else "",
        "requests": f"{each.requests:,}",
        "input tokens": number(each.input_tokens, 0),
    }


def _whole(run: Run, each: Served) -> dict[str, Shown]:
    return {
        **_served(run, each),
        "ideal %": number(each.ideal, 1, 100 / each.input_tokens),
        "reported %": number(each.reported, 1, 100 / each.input_tokens),
        "metrics page %": number(metrics_share(run, each.group), scale=100),
        "by TTFT %": inferred_cell(each, 100 / each.input_tokens),
        "prefill tokens saved": number(each.saved, 0),
    }


def _part(run: Run, each: Served) -> dict[str, Shown]:
    return {
        **_served(run, each),
        "ideal": number(each.ideal, 0),
        "reported": number(each.reported, 0),
        "by TTFT": inferred_cell(each),
        "TTFT p50 ms": number(each.ttft_s, scale=1e3),
    }


# --- depths and adapters ----------------------------------------------------------------------------

_TTFT, _TPOT = "ttft_s.p50", "tpot_s.p50"
# More adapters are shown by their numbers, from 0.
_NAMES_THAT_FIT = 20


def _by_group(parts: Sequence[Part]) -> Iterator[tuple[int, str, list[Part]]]:
    by_group = grouped(parts, lambda part: f"{part.group.scenario} at {part.group.load}")
    for at, (where, of_one) in enumerate(by_group.items()):
        yield at, where, of_one


def _points(run: Run, name: str, places: Iterable[tuple[Part, str, float]]) -> list[Point]:
    """Return a point for each part, with its place in words and on the axis, that has such a median."""
    return [
        Point(name, of_group(part.group), at, x, value, starts)
        for part, at, x in places
        for value, starts in [by_part(run, part, name)]
        if value.mean is not None
    ]


def depths(run: Run) -> Topic:
    groups = groups_under(run, "long_context")
    rates = ["quadratic_share", "prefill_tokens_per_s", "decode_tokens_per_s"]
    in_use = [gauge_cell(run, group, "kv_cache_usage_share", 100) for group in groups]
    return Topic(
        "depths",
        "Latency against context depth",
        [
            *_against_depth(run, _TTFT, "TTFT p50"),
            *_against_depth(run, _TPOT, "TPOT p50"),
            group_table(run, groups, rates, {"KV cache in use %": in_use}),
        ],
        prose("depths", run),
    )


def _against_depth(run: Run, name: str, title: str) -> Iterator[Chart]:
    for at, where, parts in _by_group(parts_of(run, "long_context")):
        places = [
            (part, f"{part.input_tokens:,.0f}", part.input_tokens) for part in parts if part.input_tokens
        ]
        points = _points(run, name, places)
        rows = [
            Row(
                {
                    "deployment": part.group.deployment,
                    "input tokens": number(part.input_tokens, 0),
                    f"{title} ms": aggregate_cell(name, by_part(run, part, name)[0]),
                    "tokens/s": number(part.read_per_s if name == _TTFT else part.made_per_s),
                    "KV cache MiB": _kv_mib(run, part),
                    "requests": f"{part.requests:,}",
                },
                of_group(part.group),
            )
            for part in parts
        ]
        yield Chart(
            f"depth-{name.partition('_')[0]}-{at}",
            f"{title} against depth, {where}",
            *lines(looks(run), points, axis("input tokens", rangemode="tozero"), "ms"),
            rows,
            of=shared(rows),
            names_ends=True,
        )


def _kv_mib(run: Run, part: Part) -> str:
    per_token = kv_bytes_per_token(run, part.group.deployment)
    return number(per_token and part.input_tokens and per_token * part.input_tokens, scale=2.0**-20)


def adapters(run: Run) -> Topic:
    table = group_table(run, groups_under(run, "lora_mix"), ["swap_share"])
    return Topic("adapters", "Adapters", [*by_adapter(run), table], prose("adapters", run))


def by_adapter(run: Run) -> Iterator[Chart]:
    """Yield a chart of TTFT by adapter for each scenario and load."""
    for at, where, parts in _by_group(parts_of(run, "lora_mix")):
        points = _points(run, _TTFT, [(part, adapter_name(part), part.number) for part in parts])
        names = dict(sorted((part.number, escaped(adapter_name(part))) for part in parts))
        is_named = len(names) <= _NAMES_THAT_FIT
        ticks = {"tickvals": list(names), "ticktext": list(names.values())} if is_named else {}
        rows = [
            Row(
                {
                    "deployment": name_cell(run, part.group),
                    "adapter": adapter_name(part),
                    "TTFT p50 ms": aggregate_cell(_TTFT, by_part(run, part, _TTFT)[0]),
                    "TPOT p50 ms": aggregate_cell(_TPOT, by_part(run, part, _TPOT)[0]),
                    "requests": f"{part.requests:,}",
                },
                of_group(part.group),
            )
            for part in parts
        ]
        yield Chart(
            f"adapters-{at}",
            f"TTFT p50 by adapter, {where}",
            *lines(looks(run), points, axis("adapter, most frequent first", **ticks), "ms"),
            rows,
            of=shared(rows),
        )
