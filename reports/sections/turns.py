"""Turns and cache: what each turn of the conversation takes, and what of its prompt the prefix cache has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.frames import Run
from reports.load_cases import LoadPoint, load_points
from reports.page.charts import Chart, Section, grid
from reports.page.looks import key
from reports.page.markup import Html, Of, details, join, paragraph, several, tag
from reports.sections.by_load import by_load_charts
from reports.sections.by_turn import turn_chart
from reports.spans import BARS

_SHOWN = ("ttft_s.p50", "cached_share", "input_tokens", "tpot_s.p50")
_FOLDED = ("itl_s.p50", "e2e_s.p50")
_NO_CACHE = (
    "No server says how many tokens of a prompt it found in its prefix cache "
    "(usage.prompt_tokens_details.cached_tokens), so no share is drawn."
)


@dataclass(frozen=True)
class _AtLoad:
    """The charts of one load."""

    point: LoadPoint
    title: str
    shown: Sequence[Chart]
    folded: Sequence[Chart]


def section(run: Run) -> Section | None:
    """None where no conversation has a second turn and no server tells of its cache."""
    hits = by_load_charts(run, "cached_share")
    loads = list(_loads(run))
    charts = [*(chart for each in loads for chart in (*each.shown, *each.folded)), *hits]
    if not charts:
        return None
    parts = [paragraph(_note(run)), key(run), *_parts(loads)]
    parts += [tag("h3", "Prefix cache by load"), grid(hits)] if hits else []
    return Section("Turns and cache", join(parts), charts)


def _note(run: Run) -> str:
    said = (
        "Points are means over starts of each start's median (tokens: mean, share: cached tokens per input "
        f"token). {BARS} A title that says rises, falls or stays compares the last turn with the first of "
        "the same start: the whole interval, corrected for the number of deployments, lies beyond the "
        "margin, or within it."
    )
    untold = _untold(run)
    if len(untold) == len(run.deployments):
        return f"{said} {_NO_CACHE}"
    return f"{said} Cached tokens are not reported by {several(untold)}." if untold else said


def _untold(run: Run) -> list[str]:
    """Deployments whose server never told how much of a prompt was cached."""
    told = {g.deployment for g in run.groups if any(v.n for v in run.by_start(g, "cached_share").values())}
    return [label for label in run.deployments if label not in told]


def _loads(run: Run) -> Iterator[_AtLoad]:
    """Of each scenario the load that decides first; none without a chart."""
    by_scenario = load_points(run)
    points = [point for each in by_scenario.values() for point in each]
    for index, point in enumerate(points):
        title = f"{point.load}, {point.scenario}" if len(by_scenario) > 1 else point.load
        shown, folded = (
            [chart for name in names if (chart := turn_chart(run, point, name, index))]
            for names in (_SHOWN, _FOLDED)
        )
        if shown or folded:
            yield _AtLoad(point, title, shown, folded)


def _parts(loads: Sequence[_AtLoad]) -> Iterator[Html]:
    """Of each scenario the first load open, the others folded."""
    seen: set[str] = set()
    for each in loads:
        is_first = each.point.scenario not in seen
        seen.add(each.point.scenario)
        if is_first:
            parts = [tag("h3", f"By turn at {each.title}"), grid(each.shown)]
            parts += [details("ITL and E2E by turn", grid(each.folded))] if each.folded else []
        else:
            parts = [details(f"By turn at {each.title}", grid([*each.shown, *each.folded]))]
        yield tag("div", *parts, **Of(load=each.point.load).attributes)
