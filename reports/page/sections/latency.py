"""Latency: percentiles by load, then at each load the distribution over requests, and latency by turn."""

from serving_bench.reports.data import Run
from serving_bench.reports.measures import LATENCIES, metric_of
from serving_bench.reports.measures.distributions import spreads_of
from serving_bench.reports.page import by_load, cells
from serving_bench.reports.page.drawing.more_kinds import distribution
from serving_bench.reports.page.looks import Of, Row, looks, prose
from serving_bench.reports.page.parts import Block, Chart, Topic, of_group
from serving_bench.reports.verdicts import LoadCase, load_cases_of
from serving_bench.reports.words import claims, verdict_words

_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_BY_TURN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")


def latency(run: Run) -> Topic:
    at_loads = [
        by_load.case_block(
            run,
            case,
            [
                *(_distribution(run, case, name) for name in LATENCIES),
                *(chart for name in _BY_TURN for chart in by_load.turn_chart(run, case, name)),
            ],
        )
        for case in load_cases_of(run)
    ]
    return Topic(
        "latencies",
        "Latency",
        [
            *by_load.load_charts(run, "ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95"),
            Block("ITL, E2E and p99 by load", by_load.load_charts(run, *_FOLDED), is_folded=True),
            *at_loads,
            Block("Prefix cache by load", by_load.load_charts(run, "cached_share")),
        ],
        "Lower is better. ITL is the gap between chunks; Trust says how many tokens a chunk has.",
        prose("latencies", run),
    )


def _distribution(run: Run, case: LoadCase, name: str) -> Chart:
    spreads = spreads_of(run, case.groups, name, is_split=case.is_open)
    together = ", starts together" if any(len(each.counted_by_start) > 1 for each in case.groups) else ""
    heads = {
        f"{name}.p{level}": f"p{level} {metric_of(name).shown_unit}{together}" for level in (50, 90, 95, 99)
    }
    rows = [
        Row(
            {
                "deployment": each.group.deployment,
                "n": each.whole.counted,
                **{head: cells.pooled_cell(run, level, each) for level, head in heads.items()},
            },
            of_group(each.group),
        )
        for each in spreads
    ]
    return Chart(
        f"ecdf-{name}-{load_cases_of(run).index(case)}",
        f"{verdict_words.title_of(name)} at {case.load}",
        *distribution(looks(run), spreads, name),
        rows,
        claims.too_few(spreads),
        verdict_words.title_at(run, f"{name}.p50", case.groups),
        Of(load=case.load),
    )
