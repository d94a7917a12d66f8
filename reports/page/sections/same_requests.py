"""The same requests: what each took on a deployment against the baseline. It describes, and never decides."""

from harness.contracts import timing
from reports.measures.distributions import Paired, paired
from reports.measures.written import number
from reports.page.declared import Chart, of_group
from reports.page.drawing.more_kinds import pairs
from reports.page.looks import looks
from reports.verdicts.load_cases import baseline_of, load_cases_of, title_of_case

PAIRS = Chart[Paired](
    "pairs",
    "",
    lambda run: [
        each
        for case in load_cases_of(run)
        if case.is_open and (baseline := baseline_of(run, case))
        for each in paired(run, title_of_case(run, case), case.groups, baseline)
    ],
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
    note=(
        "Below the dotted line the deployment answered that request sooner. Requests of one start are not "
        f"independent: no verdict comes from it. Not drawn: fewer than {timing.needed(50)} of them."
    ),
)
