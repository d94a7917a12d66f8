"""Why: what bounded each load, and what decode reads of the weights against what the memory gives."""

from reports.checks.bounds import Decode, bounds_of, decodes_of
from reports.measures.written import number
from reports.page.by_load import load_tables
from reports.page.cells import bound_cell
from reports.page.declared import Chart, Notes, Topic, of_group
from reports.page.drawing.more_kinds import roofline
from reports.page.looks import looks, prose
from reports.words import claims

BOUNDS = Topic(
    "bounds",
    claims.bounds_title,
    [
        lambda run: list(
            load_tables(
                run,
                claims.BOUNDS,
                [(group, bound_cell(group, bound)) for group, bound in bounds_of(run)],
                "words loads bounds",
            ).values()
        ),
        Notes(claims.not_known),
    ],
    prose("bound_by"),
    claims.BOUND_HOW,
)
DECODE = Topic(
    "decode",
    "Decode against bandwidth",
    [
        Chart[Decode](
            "decode",
            "Weights read by decode: their size / TPOT p50",
            decodes_of,
            lambda run, rows: roofline(looks(run), rows),
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
    prose("decode"),
)
