"""Why: what bounded each load, what decode reads each second, and what servers and their machine told."""

from collections.abc import Sequence

from reports.checks.bounds import Decode, bounds_of, decodes_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.data.samples import (
    foreign_share,
    growth,
    pooled,
    server_cores,
)
from reports.measures.metrics import mean
from reports.measures.written import number
from reports.page.by_load import load_tables, of_group
from reports.page.cells import bound_cell, device_cell, gauge_cell
from reports.page.declared import Chart, Notes, Section, Table, Topic
from reports.page.drawing import charts
from reports.page.drawing.kinds import Drawn, Limit, curves
from reports.page.looks import looks
from reports.words import claims


def _bounds(run: Run) -> list[charts.Part]:
    cells = [(group, bound_cell(group, bound)) for group, bound in bounds_of(run)]
    return [*load_tables(run, claims.BOUNDS, cells, "words loads bounds"), *Notes(claims.not_known)(run)]


def _decode(run: Run, found: Sequence[Decode]) -> Drawn:
    roofs = sorted({each.roof_gb_per_s for each in found if each.roof_gb_per_s})
    limits = [Limit(roof, f"memory: {roof:,.0f} GB/s") for roof in roofs]
    places = [(of_group(each.group), each.in_flight, each.read_gb_per_s) for each in found]
    return curves(looks(run), places, "requests in flight, mean", "GB/s", limits)


BOUNDS = Topic("bounds", claims.bounds_title, [_bounds], claims.BOUND_BY, claims.BOUND_HOW)
DECODE = Topic(
    "decode",
    "Decode against bandwidth",
    [
        Chart[Decode](
            "decode",
            "Weights read by decode: their size / TPOT p50",
            decodes_of,
            _decode,
            lambda _: {
                "deployment": lambda each: each.group.deployment,
                "load": lambda each: each.group.load,
                "in flight": lambda each: number(each.in_flight),
                "TPOT p50 ms": lambda each: number(each.tpot_s, 2, 1e3),
                "weights GB": lambda each: number(each.weights_gb, 2),
                "read GB/s": lambda each: number(each.read_gb_per_s),
                "memory gives GB/s": lambda each: number(each.roof_gb_per_s),
            },
            lambda each: of_group(each.group),
            finding=claims.decode_finding,
            note=claims.DECODE_NOTE,
            names_ends=True,
            is_wide=True,
        )
    ],
    claims.DECODE,
)
TOLD = Topic(
    "told",
    "What servers and their machine told",
    [
        Table[Group](
            "By load",
            lambda run: [group for group in run.groups if group.counted],
            lambda run: {
                "deployment": lambda group: group.deployment,
                "load": lambda group: group.load,
                "running requests": lambda group: gauge_cell(run, group, "running", 1),
                "waiting requests": lambda group: gauge_cell(run, group, "waiting", 1),
                "KV cache %": lambda group: gauge_cell(run, group, "kv_cache_usage_share", 100),
                "prefix hits %": lambda group: number(
                    pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens"), scale=100
                ),
                "preemptions": lambda group: number(
                    mean([growth(run, cell, "preemptions") for cell in group.counted]), 0
                ),
                "queue ms": lambda group: number(pooled(run, group, "queue_s", "queued_requests"), scale=1e3),
                "cores used": lambda group: number(mean([server_cores(run, c) for c in group.counted])),
                "others' CPU %": lambda group: number(
                    mean([foreign_share(run, c) for c in group.counted]), 0, 100
                ),
                "device %": lambda group: device_cell(run, group, "utilization_pct", "mean"),
                "hottest °C": lambda group: device_cell(run, group, "temperature_c", "max"),
                "samples": lambda group: (
                    f"{sum(len(run.window_samples(run.server, cell)) for cell in group.counted):,}"
                ),
                "starts": lambda group: str(len(group.counted)),
            },
            of_group,
        ),
        Notes(claims.unread),
    ],
    claims.TOLD,
)
SECTION = Section("why", "Why", [BOUNDS, DECODE, TOLD])
