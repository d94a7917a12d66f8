"""Why: what limited each load, what decode reads, what speculation gained, and what servers reported."""

from serving_bench.reports.checks.bounds import Decode, bounds_of, decodes_of
from serving_bench.reports.checks.unequal_work import BECAME
from serving_bench.reports.data import Group, Run, foreign_share, growth, pooled, server_cores
from serving_bench.reports.measures import NOTHING, mean, number
from serving_bench.reports.measures.speculation import Speculated, speculated_of
from serving_bench.reports.page.by_load import load_tables
from serving_bench.reports.page.cells import bound_cell, device_cell, gauge_cell, none_cell
from serving_bench.reports.page.declared import Chart, Notes, Table, Topic, below, of_group
from serving_bench.reports.page.drawing.more_kinds import roofline
from serving_bench.reports.page.looks import Html, looks, prose
from serving_bench.reports.verdicts import SPEED, comparisons_of
from serving_bench.reports.words import claims, quality
from serving_bench.reports.words.verdict_words import ratio_text, title_of, word_of

# --- what limited each load -------------------------------------------------------------------------


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
            "Bandwidth at which decode reads the weights: size / TPOT p50",
            decodes_of,
            lambda run, rows: roofline(looks(run), rows),
            lambda _: {
                "deployment": lambda each: each.group.deployment,
                "load": lambda each: each.group.load,
                "in flight": lambda each: number(each.in_flight),
                "TPOT p50 ms": lambda each: number(each.tpot_s, 2, 1e3),
                "weights GB": lambda each: number(each.weights_gb, 2),
                "read GB/s": lambda each: number(each.read_gb_per_s),
                "memory bandwidth GB/s": lambda each: number(each.roof_gb_per_s),
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


# --- speculation ------------------------------------------------------------------------------------


def _gain(run: Run, each: Speculated) -> Html:
    if each.off is None:
        return none_cell("the run has no such deployment without speculation")
    gain = comparisons_of(run).of(*each.group.key[1:], SPEED, each.group.deployment, each.off)
    if gain is None:
        return none_cell("compare.baseline names another deployment, so these two are not compared")
    if gain.why:
        return none_cell(gain.why)
    return below(ratio_text(SPEED, gain), word_of(SPEED, gain, run.record.compare.margin_share))


def _answers(each: Speculated) -> Html | str:
    others = [f"{n} {BECAME[became]}" for became, n in each.became.items() if became != "same"]
    same = f"{each.became.get('same', 0)} of {sum(each.became.values())}"
    return below(same, ", ".join(others)) if each.became else NOTHING


SPECULATION = Topic(
    "speculation",
    "Speculation",
    [
        Table[Speculated](
            "By load",
            speculated_of,
            lambda run: {
                "deployment": lambda each: each.group.deployment,
                "load": lambda each: each.group.load,
                "drafted tokens": lambda each: number(each.drafted_tokens, 0),
                "accepted %": lambda each: number(each.accepted_share, scale=100),
                "accepted per step": lambda each: number(each.accepted_per_step, 2),
                f"{title_of(SPEED)} against off": lambda each: _gain(run, each),
                "KL nats against off": lambda each: below(*quality.cells(each.quality)[0]),
                "same answers": _answers,
            },
            lambda each: of_group(each.group),
            is_bare=True,
        )
    ],
    prose("speculation"),
)


# --- what servers reported ------------------------------------------------------------------------------


TOLD = Topic(
    "told",
    "What the servers and the machine reported",
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
                "time in queue ms": lambda group: number(
                    pooled(run, group, "queue_s", "queued_requests"), scale=1e3
                ),
                "cores used": lambda group: number(mean([server_cores(run, cell) for cell in group.counted])),
                "other programs' CPU %": lambda group: number(
                    mean([foreign_share(run, cell) for cell in group.counted]), 0, 100
                ),
                "device %": lambda group: device_cell(run, group, "utilization_pct", "mean"),
                "highest °C": lambda group: device_cell(run, group, "temperature_c", "max"),
                "samples": lambda group: (
                    f"{sum(len(run.window_samples('server', cell)) for cell in group.counted):,}"
                ),
                "starts": lambda group: str(len(group.counted)),
            },
            of_group,
        ),
        Notes(claims.unread),
    ],
    prose("told"),
)
