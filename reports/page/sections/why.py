"""Why: what limited each load, what decode reads, what speculation gained, and what servers reported."""

from serving_bench.reports.checks.bounds import bounds_of, decodes_of
from serving_bench.reports.checks.unequal_work import BECAME
from serving_bench.reports.data import Group, Run, foreign_share, growth, pooled, server_cores
from serving_bench.reports.measures import NOTHING, mean, number
from serving_bench.reports.measures.speculation import Speculated, speculated_of
from serving_bench.reports.page.by_load import load_tables
from serving_bench.reports.page.cells import bound_cell, device_cell, gauge_cell, none_cell
from serving_bench.reports.page.drawing.more_kinds import roofline
from serving_bench.reports.page.looks import Html, Row, looks, prose
from serving_bench.reports.page.parts import Chart, Notes, Shown, Table, Topic, below, of_group
from serving_bench.reports.verdicts import SPEED, comparisons_of
from serving_bench.reports.words import claims, quality
from serving_bench.reports.words.verdict_words import ratio_text, title_of, word_of

# --- what limited each load -------------------------------------------------------------------------


def bounds(run: Run) -> Topic:
    limits = [(group, bound_cell(group, bound)) for group, bound in bounds_of(run)]
    return Topic(
        "bounds",
        claims.bounds_title(run) if limits else "",
        [
            *load_tables(run, claims.BOUNDS, limits, "words loads bounds"),
            Notes(claims.not_known(run)),
        ],
        prose("bound_by", run),
        claims.BOUND_HOW,
    )


def decode(run: Run) -> Topic:
    decodes = decodes_of(run)
    rows = [
        Row(
            {
                "deployment": each.group.deployment,
                "load": each.group.load,
                "in flight": number(each.in_flight),
                "TPOT p50 ms": number(each.tpot_s, 2, 1e3),
                "weights GB": number(each.weights_gb, 2),
                "read GB/s": number(each.read_gb_per_s),
                "memory bandwidth GB/s": number(each.roof_gb_per_s),
            },
            of_group(each.group),
        )
        for each in decodes
    ]
    chart = Chart(
        "decode",
        "Bandwidth at which decode reads the weights: size / TPOT p50",
        *roofline(looks(run), decodes),
        rows,
        claims.DECODE_NOTE,
        claims.decode_finding(run),
        names_ends=True,
        is_wide=True,
    )
    return Topic("decode", "Decode against bandwidth", [chart], prose("decode", run))


# --- speculation ------------------------------------------------------------------------------------


def speculation(run: Run) -> Topic:
    rows = [
        Row(
            {
                "deployment": each.group.deployment,
                "load": each.group.load,
                "drafted tokens": number(each.drafted_tokens, 0),
                "accepted %": number(each.accepted_share, scale=100),
                "accepted per step": number(each.accepted_per_step, 2),
                f"{title_of(SPEED)} against off": _gain(run, each),
                "KL nats against off": below(*quality.cells(each.quality)[0]),
                "same answers": _answers(each),
            },
            of_group(each.group),
        )
        for each in speculated_of(run)
    ]
    table = Table("By load", rows, is_bare=True)
    return Topic("speculation", "Speculation", [table], prose("speculation", run))


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


# --- what servers reported ------------------------------------------------------------------------------


def reported(run: Run) -> Topic:
    rows = [Row(_reported(run, group), of_group(group)) for group in run.groups if group.counted]
    return Topic(
        "told",
        "What the servers and the machine reported",
        [Table("By load", rows), Notes([claims.unread(run)])],
        prose("told", run),
    )


def _reported(run: Run, group: Group) -> dict[str, Shown]:
    cells = group.counted
    prefix_hits = pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens")
    return {
        "deployment": group.deployment,
        "load": group.load,
        "running requests": gauge_cell(run, group, "running", 1),
        "waiting requests": gauge_cell(run, group, "waiting", 1),
        "KV cache %": gauge_cell(run, group, "kv_cache_usage_share", 100),
        "prefix hits %": number(prefix_hits, scale=100),
        "preemptions": number(mean([growth(run, cell, "preemptions") for cell in cells]), 0),
        "time in queue ms": number(pooled(run, group, "queue_s", "queued_requests"), scale=1e3),
        "cores used": number(mean([server_cores(run, cell) for cell in cells])),
        "other programs' CPU %": number(mean([foreign_share(run, cell) for cell in cells]), 0, 100),
        "device %": device_cell(run, group, "utilization_pct", "mean"),
        "highest °C": device_cell(run, group, "temperature_c", "max"),
        "samples": f"{sum(len(run.window_samples('server', cell)) for cell in cells):,}",
        "starts": str(len(cells)),
    }
