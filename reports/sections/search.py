"""Service levels: what a search found; of a run with objectives, how many requests met them at each load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.contracts import SUCCESS
from reports.attainment import Attainment, Judged
from reports.cells import level_axis
from reports.charts import Chart, Section, axis, figure, grid, line, spread
from reports.charts import label as text_of
from reports.checks.finding import Finding
from reports.decision_text import slo_words
from reports.frames import Run
from reports.goodput import judged_cells
from reports.looks import key, looks, named
from reports.marks import mark_html, marks_of_answer
from reports.markup import NOTHING, Html, details, join, number, paragraph, plural, several, shown, table, tag
from reports.searches import Answer, Capacity, Tried, capacities_of, load_words, verdict_count
from reports.sections.by_load import by_load_charts
from reports.verdict_words import ratio_text, word_of
from reports.verdicts import Verdict

_GOODPUT = "goodput_per_s"
_LOG_FROM = 8.0
_WILSON = (
    "In brackets the 95 % interval (Wilson) of the share, over the requests of all windows that a row pools: "
    "an objective is kept where all of it is at the asked share or above, broken where all is below, else "
    "unclear. A failed request meets none; TPOT does not apply to an answer of one token."
)


def section(run: Run) -> Section | None:
    """None in a run without objectives, and where nothing was measured."""
    if not run.record.slo or not run.values:
        return None
    return _search(run) if run.record.search else _levels(run)


# --- a search --------------------------------------------------------------------------------------


def _search(run: Run) -> Section:
    capacities = capacities_of(run)
    charts = list(_curves(run, capacities))
    terms = run.record.search
    assert terms is not None
    what = "users" if terms.over == "concurrency" else "conversations begun per second"
    note = paragraph(
        f"The highest load, in {what}, that keeps {slo_words(run.record.slo)}, searched on each start from "
        f"{terms.lowest:g} to {terms.highest:g}: doubled until an objective broke, then bisected to within "
        f"{_precision(run)}. Between highest kept and lowest broken lies the truth; “proven” are those whose "
        "intervals say so."
    )
    parts = [note, _answers(run, capacities), paragraph(_comparison_note(run, capacities))]
    parts += [key(run), *(figure(chart) for chart in charts)] if charts else []
    parts += [details("Every trial", paragraph(_WILSON), _trials(run, capacities))]
    return Section("Service levels: the highest load", join(parts), charts)


def _precision(run: Run) -> str:
    terms = run.record.search
    assert terms is not None
    share = f"{100 * terms.precision_share:g} %"
    return f"{share}, or one user" if terms.over == "concurrency" else share


def _answers(run: Run, capacities: Sequence[Capacity]) -> Html:
    """A row per deployment."""
    found = looks(run)
    has_several = len({each.scenario for each in capacities}) > 1
    columns = ["deployment", *(["scenario"] if has_several else []), "highest load kept"]
    columns += ["kept – broken, by start", "proven", "not clear", "against the baseline"]
    rows: list[Sequence[Html | str]] = [
        [
            named(found[each.deployment]),
            *([each.scenario] if has_several else []),
            _mean(run, each),
            _by_start(each, _found),
            _proven(each),
            _by_start(each, _unclear),
            _against(run, each),
        ]
        for each in capacities
    ]
    return table(columns, rows, "summary")


def _mean(run: Run, each: Capacity) -> Html:
    estimate = each.estimate
    if estimate is None:
        return tag("span", NOTHING, title=each.why or "not measured", class_="none", tabindex="0")
    text = load_words(each.family, estimate.shown) + (" or more" if each.is_least else "")
    mark = mark_html(_doubts(run, each))
    if estimate.k < 2:
        return join([tag("span", text, title="one start: no interval"), mark])
    low, high = estimate.interval()
    return join([tag("b", text), mark, tag("span", f"[{low:.4g}, {high:.4g}]", class_="range")])


def _doubts(run: Run, each: Capacity) -> tuple[Finding, ...]:
    """What makes the windows at the highest loads kept doubtful; above those an overload is expected."""
    kept = [tried for answer in each.answers for tried in answer.tried if tried.level == answer.kept]
    cells = {cell.number for tried in kept for cell in tried.cells if cell.counts}
    metrics = ["success_share" if each.metric == SUCCESS else each.metric for each in run.record.slo]
    return marks_of_answer(run, cells, metrics)


def _by_start(each: Capacity, words: Callable[[Answer], str]) -> Html:
    """What each start says, once where all say the same."""
    said = [words(answer) for answer in each.answers]
    return tag("span", "; ".join(said if len(set(said)) > 1 else said[:1]))


def _found(answer: Answer) -> str:
    """`12 – 13`; in words where there is no such bracket."""
    has_both = answer.is_whole and answer.kept is not None and answer.broken is not None
    return _bracket(answer.kept, answer.broken) if has_both else answer.words


def _proven(each: Capacity) -> Html:
    """The brackets that the intervals prove, where they are not the same."""
    if all((a.proven_kept, a.proven_broken) == (a.kept, a.broken) for a in each.answers):
        return tag("span", "the same")
    return _by_start(each, lambda answer: _bracket(answer.proven_kept, answer.proven_broken))


def _bracket(kept: float | None, broken: float | None) -> str:
    low, high = (NOTHING if end is None else f"{end:g}" for end in (kept, broken))
    return f"{low} – {high}" if low != NOTHING else f"none – {high}"


def _unclear(answer: Answer) -> str:
    said = [f"{each.level:g} ({plural(len(each.cells), 'window')})" for each in answer.uncertain]
    return ", ".join(said) or "none"


def _against(run: Run, each: Capacity) -> Html:
    if each.verdict is None:
        return tag("span", "the baseline" if _is_baseline(run, each) else NOTHING)
    return _verdict(run, each.verdict)


def _is_baseline(run: Run, each: Capacity) -> bool:
    return each.deployment in run.comparisons.baselines.values()


def _verdict(run: Run, verdict: Verdict) -> Html:
    word = word_of(_GOODPUT, verdict, run.record.compare.margin_share)
    ratio = ratio_text(_GOODPUT, verdict)
    return join(
        [
            tag("b", word, title=verdict.why or ""),
            *([tag("span", ratio, class_="range")] if ratio else []),
            *([tag("span", verdict.why, class_="why")] if verdict.why else []),
        ]
    )


def _comparison_note(run: Run, capacities: Sequence[Capacity]) -> str:
    count = verdict_count(capacities)
    said = "A start is one observation: means are geometric, with their 95 % interval over starts."
    if count:
        more = f", Holm over {plural(count, 'comparison')}" if count > 1 else ""
        said += f" Ratios are over the baseline's load, paired by repeat; 95 %{more}."
    return f"{said} {_served_at_once(run)}".strip()


def _served_at_once(run: Run) -> str:
    """How many requests the servers serve at once: what waits is what breaks a TTFT."""
    told = {each.terms.concurrent_sequences for each in run.deployments.values()} - {None}
    if not told:
        return ""
    counts = several([str(count) for count in sorted(filter(None, told))])
    return f"Servers were told to serve {counts} requests at once (engine.concurrent_sequences); more wait."


def _curves(run: Run, capacities: Sequence[Capacity]) -> Iterator[Chart]:
    """Goodput against the load, a chart per scenario; nothing where it is not offered."""
    for place, scenario in enumerate(dict.fromkeys(each.scenario for each in capacities)):
        mine = [each for each in capacities if each.scenario == scenario]
        points = [(each, _points(run, each)) for each in mine]
        drawn = [(each, found) for each, found in points if found]
        if drawn:
            several_scenarios = len({each.scenario for each in capacities}) > 1
            yield _curve(run, drawn, f": {scenario}" if several_scenarios else "", place)


def _points(run: Run, each: Capacity) -> dict[float, list[float]]:
    """Goodput of every window by its load, all starts together, in the load's order."""
    points: dict[float, list[float]] = {}
    for answer in each.answers:
        for tried in answer.tried:
            for cell in tried.cells:
                value = run.values.get(cell.number, {}).get(_GOODPUT)
                if value and value.value is not None and not run.withheld(cell.key, _GOODPUT):
                    points.setdefault(tried.level, []).append(value.value)
    return dict(sorted(points.items()))


def _curve(
    run: Run, drawn: Sequence[tuple[Capacity, dict[float, list[float]]]], suffix: str, place: int
) -> Chart:
    found = looks(run)
    traces, rows, shapes = [], list[Sequence[Html | str]](), list[dict[str, Any]]()
    levels = sorted({level for _, points in drawn for level in points})
    for each, points in drawn:
        look = found[each.deployment]
        means = [sum(values) / len(values) for values in points.values()]
        traces.append(
            line(
                look,
                list(points),
                means,
                error_y=spread(means, [min(v) for v in points.values()], [max(v) for v in points.values()]),
                customdata=[text_of(load_words(each.family, level)) for level in points],
                hovertemplate="%{fullData.name}<br>%{customdata}: %{y:.4~g}/s<extra></extra>",
            )
        )
        rows += [
            [each.deployment, load_words(each.family, level), shown(_GOODPUT, mean), str(len(values))]
            for (level, values), mean in zip(points.items(), means, strict=True)
        ]
        if each.estimate is not None and not each.is_least:
            shapes += _beyond(each.estimate.shown, levels[-1], look.colour, is_shaded=len(drawn) == 1)
    family = drawn[0][0].family
    is_log = levels[-1] > _LOG_FROM * levels[0]
    title = level_axis(family)
    x = axis(f"{title} (log scale)", type="log") if is_log else axis(title)
    ends = "the shade begins" if len(drawn) == 1 else "a dashed line in its colour stands"
    return Chart(
        f"goodput-search-{place}",
        f"Goodput: requests per second that met every objective{suffix}",
        traces,
        {"xaxis": x, "yaxis": axis("requests/s", rangemode="tozero"), "shapes": shapes},
        ["deployment", "load", "requests/s", "windows"],
        rows,
        "Points are means over the windows at a load, of all starts; bars span them. Where the answer is, "
        f"{ends}.",
    )


def _beyond(answer: float, last: float, colour: str, *, is_shaded: bool) -> list[dict[str, Any]]:
    """What marks the loads beyond an answer."""
    if is_shaded:
        return [
            {
                "type": "rect", "x0": answer, "x1": max(last, answer), "yref": "paper", "y0": 0, "y1": 1,
                "fillcolor": "--shade", "line": {"width": 0}, "layer": "below",
            }
        ]  # fmt: skip
    return [
        {
            "type": "line", "x0": answer, "x1": answer, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": colour, "dash": "dash", "width": 1},
        }
    ]  # fmt: skip


def _trials(run: Run, capacities: Sequence[Capacity]) -> Html:
    """A row per start and load, in the load's order."""
    found = looks(run)
    names = [objective.name for objective in run.record.slo]
    columns = ["deployment", "start", "load", "windows", "requests", *names, "objectives"]
    rows: list[Sequence[Html | str]] = [
        [
            named(found[each.deployment]),
            str(answer.repeat + 1),
            tried.load,
            str(len(tried.cells)),
            *_judged_cells(tried, len(names)),
        ]
        for each in capacities
        for answer in each.answers
        for tried in answer.tried
    ]
    return table(columns, rows, "summary")


def _judged_cells(tried: Tried, objectives: int) -> list[Html | str]:
    if tried.judged is None:
        reasons = [cell.reason or cell.status for cell in tried.cells]
        return [NOTHING] * (objectives + 1) + [tag("span", several(reasons, "; "), class_="why")]
    most = max((each.n for each in tried.judged.attained), default=0)
    return [f"{most:,}", *map(_share, tried.judged.attained), _said(tried.judged)]


def _share(each: Attainment) -> Html:
    if each.share is None:
        return tag("span", NOTHING, title="it applies to no request here", class_="none")
    low, high = each.interval
    shown_share = tag(
        "span", f"{number(100 * each.share)} %", title=f"{each.met:,} of {each.n:,}; {each.verdict}"
    )
    return join([shown_share, tag("span", f"[{100 * low:.1f}, {100 * high:.1f}]", class_="range")])


def _said(found: Judged) -> Html:
    word: str = found.verdict
    if word == "unclear":
        word = f"{'kept' if found.meets else 'broken'} as it stands, not clear"
    why = f"{word}: {found.too_high}" if found.too_high else word
    return tag("span", why, class_="bad" if found.verdict == "broken" else "")


# --- a run with objectives -------------------------------------------------------------------------


def _levels(run: Run) -> Section | None:
    found = looks(run)
    names = [objective.name for objective in run.record.slo]
    columns = ["deployment", "load", "starts", "requests", *names, "objectives"]
    judged = [(group, judged_cells(run, group.cells)) for group in run.groups]
    parts: list[Html] = []
    for scenario in dict.fromkeys(group.scenario for group, _ in judged):
        rows: list[Sequence[Html | str]] = [
            [
                named(found[group.deployment]),
                group.load,
                str(what.windows),
                f"{max((each.n for each in what.attained), default=0):,}",
                *map(_share, what.attained),
                _said(what),
            ]
            for group, what in judged
            if what and group.scenario == scenario
        ]
        if rows:
            parts += [tag("h3", scenario), table(columns, rows, "summary")]
    if not parts:
        return None
    charts = by_load_charts(run, _GOODPUT)
    note = paragraph(f"Objectives: {slo_words(run.record.slo)}. {_WILSON}")
    body = join([note, *parts, *([key(run), grid(charts)] if charts else [])])
    return Section("Service levels", body, charts)
