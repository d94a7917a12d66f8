"""Latency: percentiles by load, then at each load the distribution over requests, and latency by turn."""

from functools import partial

from serving_bench.reports.data import Run
from serving_bench.reports.measures import LATENCIES, metric_of
from serving_bench.reports.measures.distributions import Spread, spreads_of
from serving_bench.reports.page import by_load, cells
from serving_bench.reports.page.declared import AtEachLoad, Block, Chart, Shows, Topic, of_group
from serving_bench.reports.page.drawing.more_kinds import distribution
from serving_bench.reports.page.looks import Of, looks, prose
from serving_bench.reports.verdicts import LoadCase, load_cases_of
from serving_bench.reports.words import claims, verdict_words

_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_BY_TURN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")


def _at_load(run: Run, case: LoadCase) -> list[Shows]:
    distributions = (_distribution(run, case, name) for name in LATENCIES)
    return [*distributions, *(partial(by_load.turn_chart, case, name) for name in _BY_TURN)]


def _distribution(run: Run, case: LoadCase, name: str) -> Chart[Spread]:
    together = ", starts together" if any(len(each.counted_by_start) > 1 for each in case.groups) else ""
    levels = {f"p{level} {metric_of(name).shown_unit}{together}": level for level in (50, 90, 95, 99)}
    return Chart(
        f"ecdf-{name}-{load_cases_of(run).index(case)}",
        f"{verdict_words.title_of(name)} at {case.load}",
        lambda run: spreads_of(run, case.groups, name, is_split=case.is_open),
        lambda run, rows: distribution(looks(run), rows, name),
        lambda run: {
            "deployment": lambda each: each.group.deployment,
            "n": lambda each: each.whole.counted,
            **{head: partial(cells.pooled_cell, run, f"{name}.p{level}") for head, level in levels.items()},
        },
        lambda each: of_group(each.group),
        finding=lambda run: verdict_words.title_at(run, f"{name}.p50", case.groups),
        note=claims.too_few,
        about=Of(load=case.load),
    )


LATENCY = Topic(
    "latencies",
    "Latency",
    [
        lambda run: by_load.load_charts(run, "ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95"),
        Block("ITL, E2E and p99 by load", [lambda run: by_load.load_charts(run, *_FOLDED)], is_folded=True),
        AtEachLoad(_at_load),
        Block("Prefix cache by load", [lambda run: by_load.load_charts(run, "cached_share")]),
    ],
    "Lower is better. ITL is the gap between chunks; Trust says how many tokens a chunk has.",
    prose("latencies"),
)
