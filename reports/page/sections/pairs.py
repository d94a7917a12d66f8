"""The same request on two deployments: a scatter of what both took. It describes and decides nothing."""

from collections.abc import Iterator

import pandas as pd

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.equal_work import work_of
from reports.measures.written import number
from reports.page.drawing import kinds
from reports.page.drawing.charts import Chart
from reports.page.looks import looks
from reports.page.markup import Of, Row
from reports.verdicts.load_cases import LoadCase, baseline_of, load_cases_of, opened, title_of_case

# Dots per deployment.
_AT_MOST = 400
# A log axis has no zero.
_LEAST_MS = 1e-3
# What makes two requests the same: a cell's seed is the same for every deployment.
_SAME = ["repeat", "conversation", "turn"]


def pair_charts(run: Run) -> Iterator[Chart]:
    """Yield a chart of TTFT, each deployment against the baseline, at the load that is told first."""
    cases = [case for case in load_cases_of(run) if baseline_of(run, case)]
    for number_of, case in enumerate(opened(run, cases)):
        baseline = baseline_of(run, case)
        if baseline and (chart := _chart(run, case, baseline, f"pairs-{number_of}")):
            yield chart


def _chart(run: Run, case: LoadCase, baseline: Group, chart_id: str) -> Chart | None:
    whose = work_of(run).prompt_class(baseline.deployment)
    own = _requests(run, baseline)
    found: list[tuple[Group, pd.DataFrame]] = []
    for group in case.groups:
        if group is not baseline and work_of(run).prompt_class(group.deployment) == whose:
            both = _requests(run, group).merge(own, on=_SAME, suffixes=("", "_of_baseline"))
            found += [(group, both)] if len(both) else []
    if not found:
        return None
    series, rows = [], []
    for group, both in found:
        dots = both.iloc[:: -(-len(both) // _AT_MOST)]
        series.append((looks(run)[group.deployment], dots["ms_of_baseline"].tolist(), dots["ms"].tolist()))
        gap = both["ms"] - both["ms_of_baseline"]
        faster = f"{100 * float((gap < 0).mean()):.0f} %"
        quartiles = (number(float(gap.quantile(share))) for share in (0.25, 0.5, 0.75))
        cells = [group.deployment, f"{len(both):,}", faster, *quartiles]
        rows.append(Row(cells, Of(group.deployment, group.load)))
    against = f"TTFT on {baseline.deployment}, ms"
    return Chart(
        chart_id,
        f"TTFT of the same requests, {title_of_case(run, case).lower()}",
        *kinds.pairs(series, against, "TTFT, ms"),
        ["deployment", "pairs", "faster in", "difference p25 ms", "p50 ms", "p75 ms"],
        rows,
        "Below the dotted line the deployment answered that request sooner. Requests of one start are not "
        "independent: no verdict comes from it.",
        height_px=380,
        of=Of(load=case.load),
    )


def _requests(run: Run, group: Group) -> pd.DataFrame:
    frames = []
    for cell in group.counted:
        ok = run.ok_requests(cell.number, "conversation", "turn", "ttft_s").dropna()
        frames.append(
            ok.assign(repeat=cell.planned.repeat, ms=(1e3 * ok["ttft_s"]).clip(lower=_LEAST_MS)).drop(
                columns="ttft_s"
            )
        )
    return pd.concat(frames) if frames else pd.DataFrame(columns=[*_SAME, "ms"])
