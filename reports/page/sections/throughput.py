"""Throughput against latency: the frontier, throughput by load, who keeps the SLO, and a search's answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from harness.contracts import Objective
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import BARS, aggregate
from reports.measures.slo import Judged
from reports.measures.values import values_of
from reports.measures.written import NOTHING, number, several
from reports.page.cells import mean_cell, none_cell
from reports.page.drawing import kinds
from reports.page.drawing.charts import Block, Chart, Part, Section, Table, block
from reports.page.drawing.kinds import Limit, Point, ends_of
from reports.page.listed import Columns, Shown, below, filled
from reports.page.looks import looks, named
from reports.page.markup import Head, Of, tag
from reports.page.sections.by_load import at_load, by_load_charts, families, of_group
from reports.verdicts.searches import Answer, Capacity, Tried, capacities_of
from reports.verdicts.standings import State, slo_rows
from reports.words.titles import title_at
from reports.words.verdict_words import objective_words, slo_words, title_of

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
    "A deployment keeps the SLO where the interval of each objective's share (95 % over its loads "
    "together) is not below what is asked; it does not where one is wholly below; else it is not clear. "
    "The interval is of all requests together (Wilson), and of several starts so wide that it also holds "
    "the t interval of their shares. A failed request meets no objective; TPOT does not apply to an answer "
    "of one token."
)
_HOW_OF_SEARCH = (
    "A deployment's answer is the least of its starts' answers. Loads are steps of a grid and have no "
    "variance: they order deployments and are never tested. In the chart a dashed line is a deployment's "
    "answer, and points are means over the starts that tried a load."
)
T = TypeVar("T")
# A deployment, its answer on a start, and a load that was tried there.
_Trial = tuple[str, Answer, Tried]


def section(run: Run) -> Section:
    """Return the section; of a search, whose starts try other loads, its answers and no frontier."""
    title = "Throughput against latency"
    if run.record.search is not None:
        return _of_search(run, title)
    goodput = ["goodput_per_s"] if run.record.slo else []
    kept = _levels(run)
    how = f"Points are means over starts. {BARS} The front goes by means and is no verdict."
    return Section(
        title,
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
    name = f"{metric}.p{level}"
    words = " ".join(reversed(title_of(name).split(" ")))
    asked = next((each for each in slo if each.name == name), None)
    limit = Limit(1e3 * (asked.limit_s or 0.0), f"SLO: {slo_words([asked])}") if asked else None
    first = [*wanted, 95][0]
    note = f"p{level}: too few points have requests enough for p{first}. " if level != first else ""
    absent = [f"{group.deployment} at {group.load}" for group in groups if group.key not in found]
    note += f"Not drawn, with no value of both: {several(absent, '; ')}." if absent else ""
    front = kinds.on_front(list(found.values()))
    return Chart(
        f"frontier-{metric}-{number}".replace("_", "-"),
        f"Output tokens/s against {words}{suffix}",
        *kinds.frontier(
            looks(run),
            list(found.values()),
            f"{words}, ms, lower is better",
            "output tokens/s, higher is better",
            limit,
        ),
        *filled(
            {
                "deployment": lambda group: group.deployment,
                "load": lambda group: group.load,
                f"{title_of(name)} ms": lambda group: mean_cell(run, group, name),
                "output tokens/s": lambda group: mean_cell(run, group, _SPEED),
                "starts": lambda group: str(aggregate(run, group, _SPEED).k),
                "front": lambda group: "on it" if found.get(group.key) in front else "",
            },
            groups,
            of_group,
        ),
        note.rstrip(),
        _HEIGHTS_PX[metric],
        finding=title_at(run, _SPEED if metric == "ttft_s" else name, groups),
        names_ends=True,
        is_wide=number == 0,
    )


def _point(run: Run, group: Group, name: str) -> Point | None:
    """Return the speed over a latency; None without either."""
    latency, speed = aggregate(run, group, name), at_load(run, group, _SPEED)
    if latency.mean is None or speed.value.mean is None:
        return None
    x = latency.mean * metric_of(name).shown_scale
    return replace(speed, x=x, x_ends=ends_of(name, latency), starts={})


# --- who keeps the SLO -----------------------------------------------------------------------------


def _levels(run: Run) -> list[Part]:
    """Return the table of who keeps the SLO by load, and each objective's shares, folded."""
    rows = [(row, each) for row in slo_rows(run) for each in row.standings if each.group and each.judged]
    scenarios = list(dict.fromkeys(row.scenario for row, _ in rows))
    parts: list[Part] = []
    for scenario in scenarios:
        loads = list(dict.fromkeys(row.load for row, _ in rows if row.scenario == scenario))
        found = [(each.group, each.judged) for row, each in rows if row.scenario == scenario]
        own = {(group.deployment, group.load): judged for group, judged in found if group}
        said = f", {scenario}" if len(scenarios) > 1 else ""
        by_load: Columns[str] = {
            "deployment": lambda name: named(looks(run)[name]),
            **{Head(load, Of(load=load)): partial(_state, own, load) for load in loads},
        }
        every: Columns[tuple[str, str]] = {
            "deployment": lambda key: named(looks(run)[key[0]]),
            "load": lambda key: key[1],
            **_shares(run, own.__getitem__),
        }
        names = [name for name in looks(run) if any(name == label for label, _ in own)]
        kept = Table(f"Who keeps the SLO{said}", *filled(by_load, names, Of), "words loads")
        shares = Table(
            f"Service levels{said}", *filled(every, list(own), lambda key: Of(*key)), "summary levels"
        )
        parts.append(Block(f"Who keeps the SLO ({slo_words(run.record.slo)}){said}", [kept]))
        parts.append(Block(f"Every objective at every load{said}", [shares], is_folded=True))
    return parts


def _state(own: Mapping[tuple[str, str], Judged | None], load: str, name: str) -> Shown:
    """Return whether it keeps the SLO, with the objective that is nearest to being missed."""
    found = own.get((name, load))
    word, tone = _STATES[found.verdict if found else "unknown"]
    said = tag("span", word, class_=tone)
    if found is None or found.too_high:
        return below(said, found.too_high or "" if found else "")
    worst = min(found.attained, key=lambda each: (each.share or 0.0) - each.objective.share)
    low, high = (100 * end for end in worst.interval)
    share = f"{objective_words(worst.objective)} {100 * (worst.share or 0.0):.1f} %"
    return below(said, share, f"[{low:.1f}, {high:.1f}]")


def _shares(run: Run, judged: Callable[[T], Judged | None]) -> Columns[T]:
    """Return columns of how many requests there were, each objective's share, and what they come to."""

    def of(show: Callable[[Judged], Shown]) -> Callable[[T], Shown]:
        return lambda thing: NOTHING if (found := judged(thing)) is None else show(found)

    shares = {
        below(objective_words(each), _asked(each)): of(partial(_share, at))
        for at, each in enumerate(run.record.slo)
    }
    most = of(lambda found: f"{max(each.n for each in found.attained):,}")
    return {"requests": most, **shares, "SLO": of(_verdict)}


def _share(at: int, found: Judged) -> Shown:
    each = found.attained[at]
    if each.share is None:
        return none_cell("it applies to no request here")
    low, high = each.interval
    title = f"{each.met:,} of {each.n:,}; {each.verdict}"
    main = tag("span", f"{number(100 * each.share)} %", title=title)
    return below(main, f"[{100 * low:.1f}, {100 * high:.1f}]")


def _verdict(found: Judged) -> Shown:
    word, tone = _STATES[found.verdict]
    wanting = [f"{objective_words(each.objective)} {each.wanting}" for each in found.attained if each.wanting]
    why = found.too_high or (several(wanting, "; ") if found.verdict == "unclear" else "")
    return tag("span", f"{word}: {why}" if why else word, class_=f"why {tone}")


def _asked(objective: Objective) -> str:
    within = "" if objective.limit_s is None else f" within {1e3 * objective.limit_s:g} ms"
    return f"%{within}, {100 * objective.share:g} % asked"


# --- a search --------------------------------------------------------------------------------------


def _of_search(run: Run, title: str) -> Section:
    """Return a search's answers, goodput against the load with them, and every load that was tried."""
    terms, found = run.record.search, capacities_of(run)
    if terms is None or not values_of(run):
        return Section(title)
    is_users = terms.over == "concurrency"
    what = "users" if is_users else "conversations begun per second"
    precision = f"{100 * terms.precision_share:g} %{', or one user' if is_users else ''}"
    tried = [
        (each.deployment, answer, trial)
        for each in found
        for answer in each.answers
        for trial in answer.tried
    ]
    columns: Columns[_Trial] = {
        "deployment": lambda each: named(looks(run)[each[0]]),
        "start": lambda each: str(each[1].repeat + 1),
        "load": lambda each: each[2].load,
        "windows": lambda each: str(len(each[2].cells)),
        **_shares(run, lambda each: each[2].judged),
        "why not": _why_nothing,
    }
    name = "Every load that was tried"
    trials = filled(columns, tried, lambda each: Of(each[0], each[2].load, each[1].repeat + 1))
    return Section(
        title,
        f"The highest load, in {what}, that keeps the SLO ({slo_words(run.record.slo)}). Searched on each "
        f"start from {terms.lowest:g} to {terms.highest:g}: doubled until an objective broke, then halved "
        f"between the two to within {precision}.",
        [
            Table("Search", *filled(_answers(run), found, lambda each: Of(each.deployment)), "plain"),
            Block(name, [Table(name, *trials, "summary levels")], is_folded=True),
            *(_with_answers(run, chart, found) for chart in by_load_charts(run, "goodput_per_s")),
        ],
        f"{_HOW_OF_SEARCH} {_HOW_SLO}",
    )


def _answers(run: Run) -> Columns[Capacity]:
    has_several = len({each.scenario for each in capacities_of(run)}) > 1
    return {
        "deployment": lambda each: named(looks(run)[each.deployment]),
        "scenario": lambda each: each.scenario if has_several else "",
        "highest load kept": _highest,
        "kept – broken, by start": lambda each: _by_start(each, _found),
        "proven": lambda each: _by_start(each, _proven),
    }


def _highest(each: Capacity) -> Shown:
    return none_cell(each.why or "") if each.level is None else tag("b", each.words)


def _by_start(each: Capacity, words: Callable[[Answer], str]) -> str:
    """Return what each start says, once if all say the same."""
    said = [words(answer) for answer in each.answers]
    return "; ".join(said if len(set(said)) > 1 else said[:1])


def _found(answer: Answer) -> str:
    return _bracket(answer.kept, answer.broken) if answer.is_whole and answer.broken else answer.words


def _proven(answer: Answer) -> str:
    return _bracket(answer.proven_kept, answer.proven_broken)


def _bracket(kept: float | None, broken: float | None) -> str:
    return f"{'none' if kept is None else f'{kept:g}'} – {NOTHING if broken is None else f'{broken:g}'}"


def _why_nothing(each: _Trial) -> Shown:
    trial = each[2]
    return "" if trial.judged else several([cell.reason or cell.status for cell in trial.cells], "; ")


def _with_answers(run: Run, chart: Chart, found: Sequence[Capacity]) -> Chart:
    """Return the chart with a dashed line at each deployment's answer."""
    shapes = [
        {
            "type": "line", "x0": each.level, "x1": each.level,
            "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": looks(run)[each.deployment].colour, "dash": "dash", "width": 1},
            "of": Of(each.deployment).to_builtins(),
        }
        for each in found
        if each.level is not None and not each.is_least
    ]  # fmt: skip
    return replace(chart, layout={**chart.layout, "shapes": shapes})
