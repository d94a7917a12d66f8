"""Latency: percentiles by load, distributions, and maps over the window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.data.chunks import TIME_BINS
from reports.data.run import Run
from reports.measures.metrics import LATENCIES
from reports.measures.over_starts import BARS
from reports.page.charts import Chart, Section, grid
from reports.page.looks import key
from reports.page.markup import Html, Of, details, join, note, paragraph, tag
from reports.page.sections import heat
from reports.page.sections.by_load import by_load_charts
from reports.page.sections.distributions import distributions, steps_each
from reports.verdicts.load_cases import LoadPoint, load_points, opened

# What a reader of a stream waits for is shown.
_SHOWN = ("ttft_s.p50", "ttft_s.p95", "tpot_s.p50", "tpot_s.p95")
_FOLDED = ("itl_s.p50", "itl_s.p95", "e2e_s.p50", "e2e_s.p95", *(f"{name}.p99" for name in LATENCIES))
_ABOUT_MAPS = note(
    "A column is a part of the window, and its colours are how the latencies in it are spread: a level band "
    "is steady, a rising one a queue that grows.",
    "TTFT by when a request was sent, ITL by when a gap ended. The windows of all starts are laid on each "
    "other. ITL's percentiles in the tables are to within 13 %.",
)


@dataclass(frozen=True)
class _AtLoad:
    """What is drawn of one load."""

    point: LoadPoint
    title: str
    spreads: Sequence[Chart]
    ttft: Sequence[Chart]
    itl: Sequence[Chart]

    @property
    def charts(self) -> list[Chart]:
        return [*self.spreads, *self.ttft, *self.itl]


def section(run: Run) -> Section | None:
    """None where no request gave a latency."""
    shown, folded = (_by_load(run, names) for names in (_SHOWN, _FOLDED))
    loads = list(_loads(run))
    charts = [*shown, *folded, *(chart for each in loads for chart in each.charts)]
    if not charts:
        return None
    about = note(
        f"Lower is better. Points are means over starts of each start's percentile. {BARS}",
        "A point is missing where a start had too few requests for that percentile (see Method). "
        + _origins(run),
    )
    parts = [about, key(run), grid(shown)]
    parts += [details("ITL, E2E and p99 by load", grid(folded))] if folded else []
    return Section("Latency", join([*parts, *_parts(run, loads)]), charts)


def _by_load(run: Run, names: Sequence[str]) -> list[Chart]:
    return [chart for name in names for chart in by_load_charts(run, name)]


def _origins(run: Run) -> str:
    """Where TTFT and E2E count from, for the loads that this run has."""
    kinds = {cell.load.kind for cell in run.planned_cells}
    said = "TTFT and E2E count from the moment a request was {}."
    if "closed" not in kinds:
        return said.format("due: a late sending is part of them (see Method)")
    if kinds == {"closed"}:
        return said.format("sent")
    return said.format("sent (users), or was due (rates and traces)")


def _loads(run: Run) -> Iterator[_AtLoad]:
    """Of each scenario the load told first at the front, in most detail; none without a chart."""
    by_scenario = load_points(run)
    points = [point for each in by_scenario.values() for point in each]
    first, steps = opened(run, points), _steps(run)
    for index, point in enumerate(points):
        is_first = point in first
        parts = TIME_BINS if is_first else heat.FEWER_PARTS
        title = f"{point.load}, {point.scenario}" if len(by_scenario) > 1 else point.load
        ttft, itl = (heat.maps(run, point, name, index, parts) for name in heat.NAMES)
        found = _AtLoad(point, title, distributions(run, point, index, steps, is_split=is_first), ttft, itl)
        if found.charts:
            yield found


def _parts(run: Run, loads: Sequence[_AtLoad]) -> Iterator[Html]:
    """The load told first open, the others folded."""
    first = opened(run, [each.point for each in loads])
    for number, each in enumerate(loads):
        if each.point in first:
            yield from _open(run, each, is_told=number == 0)
        else:
            both = (grid(each.spreads), heat.small([*each.ttft, *each.itl]))
            whole = details(f"Distributions and maps at {each.title}", *both)
            yield tag("div", whole, **Of(load=each.point.load).attributes)


def _open(run: Run, each: _AtLoad, *, is_told: bool) -> Iterator[Html]:
    """`is_told`: with what explains the charts."""
    parts: list[Html] = []
    if each.spreads:
        parts.append(tag("h3", f"Distributions at {each.title}"))
        parts += [_about_steps(run)] if is_told else []
        parts.append(grid(each.spreads))
    if each.ttft or each.itl:
        parts.append(tag("h3", f"Over the window at {each.title}"))
        parts += [_ABOUT_MAPS, heat.key()] if is_told else []
        parts.append(heat.small(each.ttft))
        parts += [details("ITL over the window", heat.small(each.itl))] if each.itl else []
    yield tag("div", *parts, **Of(load=each.point.load).attributes)


def _steps(run: Run) -> int:
    points = [each for found in load_points(run).values() for each in found]
    return steps_each(run, points, opened(run, points))


def _about_steps(run: Run) -> Html:
    return paragraph(
        "Share of requests (ITL: of gaps) at or below each value, all starts that count together; at most "
        f"{_steps(run)} steps of a line are drawn, evenly by rank; gaps to within 1.6 %."
    )
