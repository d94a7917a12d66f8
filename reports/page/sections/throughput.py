"""Throughput against latency: the frontier, throughput by load, who keeps the SLO, and a search's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reports.data.cells import Group, grouped
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import BARS, aggregate
from reports.measures.slo import Attainment, Judged
from reports.measures.values import values_of
from reports.measures.written import several
from reports.page.cells import mean_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Block, Chart, Part, Section, Table, block
from reports.page.drawing.kinds import Limit, Point, ends_of
from reports.page.listed import Columns, Shown, below, filled
from reports.page.looks import looks, named
from reports.page.markup import Of, tag
from reports.page.sections.by_load import at_load, by_load_charts, families, load_table, of_group
from reports.verdicts.searches import Answer, Capacity, Tried, capacities_of
from reports.verdicts.standings import State, slo_rows
from reports.words.titles import title_at
from reports.words.verdict_words import objective_words, slo_words, title_of

_TITLE = "Throughput against latency"
_SPEED = "output_tokens_per_s"
_LEVELS = (95, 90, 50)
# By what the speed is drawn against, and how high.
_HEIGHTS_PX = {"ttft_s": 430, "tpot_s": 360}
_STATES: Mapping[State, tuple[str, str]] = {
    "kept": ("keeps it", ""),
    "broken": ("does not", "bad"),
    "unclear": ("not clear", "warn"),
    "unknown": ("not measured", "none"),
}
_HOW_SLO = (
    "A deployment keeps the SLO where the interval of each objective's share (95 % over its loads together) "
    "is not below what is asked; it does not where one is wholly below; else it is not clear. Of several "
    "starts the interval also holds the t interval of their shares. A failed request meets no objective."
)
_HOW_OF_SEARCH = (
    "A deployment's answer is the least of its starts' answers. Loads are steps of a grid and have no "
    "variance: they order deployments and are never tested. Points are means over the starts that tried it."
)
# A deployment, its answer on a start, and a load that was tried there.
_Trial = tuple[str, Answer, Tried]


def section(run: Run) -> Section:
    """Return the section; of a search, whose starts try other loads, its answers and no frontier."""
    if run.record.search is not None:
        return _of_search(run)
    goodput = ["goodput_per_s"] if run.record.slo else []
    kept = _levels(run)
    how = f"Points are means over starts. {BARS} The front goes by means and is no verdict."
    return Section(
        _TITLE,
        "Up and to the left is better. A line is a deployment, its points are loads from the lowest to the "
        "highest. The broad grey line is the front: no other point has more tokens/s at less latency.",
        [
            *frontier_charts(run),
            *kept,
            *block("Throughput by load", by_load_charts(run, _SPEED, "requests_per_s", *goodput)),
        ],
        f"{how} Goodput: requests per second that met every objective. {_HOW_SLO}" if kept else how,
    )


def frontier_charts(run: Run) -> list[Chart]:
    """Return a chart against TTFT and one against TPOT for each scenario and family of loads."""
    return [
        chart
        for number, (suffix, groups) in enumerate(families(run))
        for metric in _HEIGHTS_PX
        if (chart := _chart(run, metric, groups, suffix, number))
    ]


def _chart(run: Run, metric: str, groups: Sequence[Group], suffix: str, number: int) -> Chart | None:
    slo = [each for each in run.record.slo if each.metric == metric and each.limit_s]
    wanted = [level for each in slo if (level := round(100 * each.share)) in (50, 90, 95, 99)]
    points = {
        level: {group.key: point for group in groups if (point := _point(run, group, f"{metric}.p{level}"))}
        for level in (*wanted, *_LEVELS)
    }
    # The percentile that most points have: of several the SLO's, else the highest.
    level, found = max(points.items(), key=lambda each: len(each[1]))
    if not found:
        return None
    name, first = f"{metric}.p{level}", next(iter(points))
    words = " ".join(reversed(title_of(name).split(" ")))
    asked = next((each for each in slo if each.name == name), None)
    limit = Limit(1e3 * (asked.limit_s or 0.0), f"SLO: {slo_words([asked])}") if asked else None
    note = f"p{level}: too few points have requests enough for p{first}. " if level != first else ""
    absent = [f"{group.deployment} at {group.load}" for group in groups if group.key not in found]
    note += f"Not drawn, with no value of both: {several(absent, '; ')}." if absent else ""
    drawn = list(found.values())
    columns: Columns[Group] = {
        "deployment": lambda group: group.deployment,
        "load": lambda group: group.load,
        f"{title_of(name)} ms": lambda group: mean_cell(run, group, name),
        "output tokens/s": lambda group: mean_cell(run, group, _SPEED),
        "starts": lambda group: str(aggregate(run, group, _SPEED).k),
    }
    titles = f"{words}, ms, lower is better", "output tokens/s, higher is better"
    return Chart(
        f"frontier-{metric}-{number}".replace("_", "-"),
        f"Output tokens/s against {words}{suffix}",
        *kinds.frontier(looks(run), drawn, *titles, limit),
        *filled(columns, groups, of_group),
        note.rstrip(),
        _HEIGHTS_PX[metric],
        finding=title_at(run, _SPEED if metric == "ttft_s" else name, groups),
        names_ends=True,
        is_wide=number == 0,
    )


def _point(run: Run, group: Group, name: str) -> Point | None:
    latency, speed = aggregate(run, group, name), at_load(run, group, _SPEED)
    if latency.mean is None or speed.value.mean is None:
        return None
    x = latency.mean * metric_of(name).shown_scale
    return replace(speed, x=x, x_ends=ends_of(name, latency), starts={})


# --- who keeps the SLO -----------------------------------------------------------------------------


def _levels(run: Run) -> list[Part]:
    found = [(row, each) for row in slo_rows(run) for each in row.standings if each.group]
    parts: list[Part] = []
    for scenario, rows in grouped(found, lambda pair: pair[0].scenario).items():
        title = f"Who keeps the SLO ({slo_words(run.record.slo)})"
        title += f", {scenario}" if len({row.scenario for row, _ in found}) > 1 else ""
        cells = {(each.label, row.load): _kept(each.judged) for row, each in rows}
        parts.append(Block(title, [load_table(run, title, cells)]))
    return parts


def _kept(found: Judged | None) -> Shown:
    """Return whether windows keep the SLO, and each objective's share with its n and interval."""
    word, tone = _STATES[found.verdict if found else "unknown"]
    said = (
        [found.too_high or "", *(line for each in found.attained for line in _share(each))] if found else []
    )
    return below(tag("span", word, class_=tone), *said)


def _share(each: Attainment) -> list[str]:
    if each.share is None:
        return [f"{objective_words(each.objective)}: no request has it"]
    low, high = (100 * end for end in each.interval)
    said = f"{objective_words(each.objective)} {100 * each.share:.1f} % of {each.n:,}"
    return [said, f"[{low:.1f}, {high:.1f}]", each.wanting or ""]


# --- a search --------------------------------------------------------------------------------------


def _of_search(run: Run) -> Section:
    terms, found = run.record.search, capacities_of(run)
    if terms is None or not values_of(run):
        return Section(_TITLE)
    is_users = terms.over == "concurrency"
    what = "users" if is_users else "conversations begun per second"
    precision = f"{100 * terms.precision_share:g} %{', or one user' if is_users else ''}"
    tried = [
        (each.deployment, answer, load) for each in found for answer in each.answers for load in answer.tried
    ]
    has_several = len({each.scenario for each in found}) > 1
    answers: Columns[Capacity] = {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario if has_several else "",
        "highest load known to be kept": lambda each: (
            tag("span", each.words, title=each.why or "") if each.level is None else tag("b", each.words)
        ),
        "kept – broken, by start": _by_start,
    }
    trials: Columns[_Trial] = {
        "deployment": lambda each: named(looks(run)[each[0]]),
        "start": lambda each: str(each[1].repeat + 1),
        "load": lambda each: each[2].load,
        "windows": lambda each: str(len(each[2].cells)),
        "SLO": lambda each: _kept(each[2].judged),
        "why not": lambda each: (
            "" if each[2].judged else several([cell.reason or cell.status for cell in each[2].cells], "; ")
        ),
    }
    name = "Every load that was tried"
    every = filled(trials, tried, lambda each: Of(each[0], each[2].load, each[1].repeat + 1))
    return Section(
        _TITLE,
        f"The highest load, in {what}, that keeps the SLO ({slo_words(run.record.slo)}). Searched on each "
        f"start from {terms.lowest:g} to {terms.highest:g}: doubled until an objective broke, then halved "
        f"between the two to within {precision}.",
        [
            Table("Search", *filled(answers, found, lambda each: Of(each.deployment)), "plain"),
            Block(name, [Table(name, *every, "words loads")], is_folded=True),
            *by_load_charts(run, "goodput_per_s"),
        ],
        f"{_HOW_OF_SEARCH} {_HOW_SLO}",
    )


def _by_start(each: Capacity) -> str:
    said = list(map(_bracket, each.answers))
    return "; ".join(said if len(set(said)) > 1 else said[:1])


def _bracket(answer: Answer) -> str:
    if not answer.is_whole or answer.broken is None:
        return answer.words
    return f"{'none' if answer.kept is None else f'{answer.kept:g}'} – {answer.broken:g}"
