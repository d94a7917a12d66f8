"""Latency: percentiles by load, then at each load distributions and turns, and the same requests in pairs."""

from functools import partial

from reports.data.run import Run
from reports.measures.distributions import Paired, Spread, paired, spreads_of
from reports.measures.metrics import LATENCIES, metric_of
from reports.measures.over_starts import pooled
from reports.measures.written import number
from reports.page.by_load import by_load_charts, of_group, turn_charts
from reports.page.cells import value_cell
from reports.page.declared import AtEachLoad, Block, Chart, Section, Shown, Topic
from reports.page.drawing.charts import Part
from reports.page.drawing.more_kinds import distribution, pairs
from reports.page.looks import Of, looks
from reports.verdicts.load_cases import LoadCase, baseline_of, load_cases_of, opened, title_of_case
from reports.words import claims as words
from reports.words.verdict_words import title_at, title_of

# What a reader of a stream waits for is shown.
_SHOWN = ("ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95")
_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_BY_TURN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")


def _pooled(run: Run, name: str, spread: Spread) -> Shown:
    return value_cell(name, pooled(run, spread.group, name))


def _distribution(run: Run, case: LoadCase, name: str) -> Chart[Spread]:
    together = ", starts together" if any(len(each.counted_by_start) > 1 for each in case.groups) else ""
    levels = {f"p{level} {metric_of(name).shown_unit}{together}": level for level in (50, 90, 95, 99)}
    return Chart(
        f"ecdf-{name}-{load_cases_of(run).index(case)}",
        f"{title_of(name)} at {case.load}",
        lambda run: spreads_of(run, case.groups, name, is_split=case in opened(run, load_cases_of(run))),
        lambda run, rows: distribution(looks(run), rows, name),
        lambda run: {
            "deployment": lambda each: each.group.deployment,
            "n": lambda each: each.whole.counted,
            **{head: partial(_pooled, run, f"{name}.p{level}") for head, level in levels.items()},
        },
        lambda each: of_group(each.group),
        finding=lambda run: title_at(run, f"{name}.p50", case.groups),
        note=words.too_few,
        about=Of(load=case.load),
    )


def _at_load(run: Run, case: LoadCase) -> list[Part]:
    return [
        *(chart for name in LATENCIES for chart in _distribution(run, case, name)(run)),
        *turn_charts(run, case, load_cases_of(run).index(case), *_BY_TURN),
    ]


def _pairs_of(run: Run) -> list[Paired]:
    return [
        each
        for case in opened(run, load_cases_of(run))
        if (baseline := baseline_of(run, case))
        for each in paired(run, title_of_case(run, case), case.groups, baseline)
    ]


PAIRS = Chart[Paired](
    "pairs",
    "",
    _pairs_of,
    lambda run, rows: pairs(looks(run), rows),
    lambda _: {
        "deployment": lambda each: each.group.deployment,
        "pairs": lambda each: f"{len(each.own):,}",
        "faster in": lambda each: f"{100 * float((each.own < each.base).mean()):.0f} %",
        "difference p25 ms": lambda each: number(each.gap(0.25)),
        "p50 ms": lambda each: number(each.gap(0.5)),
        "p75 ms": lambda each: number(each.gap(0.75)),
    },
    lambda each: of_group(each.group),
    each=lambda each: f"TTFT of the same requests, {each.where.lower()}",
    note=words.SAME_REQUESTS,
)
LATENCY = Topic(
    "latencies",
    "Latency",
    [
        lambda run: by_load_charts(run, *_SHOWN),
        Block("ITL, E2E and p99 by load", [lambda run: by_load_charts(run, *_FOLDED)], is_folded=True),
        AtEachLoad(_at_load),
        Block("Prefix cache by load", [lambda run: by_load_charts(run, "cached_share")]),
        Block("The same requests", [PAIRS]),
    ],
    words.LATENCY,
    words.PERCENTILES,
)
SECTION = Section("latency", "Latency", [LATENCY])
