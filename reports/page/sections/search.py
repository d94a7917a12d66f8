"""Service levels: what a search found; of a run with objectives, how many requests met them at each load."""

from collections.abc import Callable, Mapping, Sequence, Set

from harness.contracts import Objective
from reports.checks.examine import marks_of_answer, marks_of_capacity
from reports.data.run import Run
from reports.measures.slo import Attainment, Judged, judged_cells
from reports.measures.values import values_of
from reports.measures.written import NOTHING, number, plural, several
from reports.page.charts import Section, figure
from reports.page.looks import key, looks, named
from reports.page.marks import mark_html
from reports.page.markup import Html, Of, Row, details, join, note, paragraph, table, tag
from reports.page.sections.goodput_curve import goodput_curves
from reports.verdicts.decision import decision_rows
from reports.verdicts.picks import State
from reports.verdicts.search_starts import Answer, Tried
from reports.verdicts.searches import (
    CAPACITY,
    Capacity,
    capacities_of,
    mean_words,
    slo_metrics,
    span_words,
    verdict_count,
    word,
)
from reports.words.decision_words import objective_words, slo_words
from reports.words.verdict_words import family_text, ratio_text

_INTERVAL = "In brackets the 95 % interval of the share."
_WILSON = (
    "The interval is of all requests together (Wilson), and of several starts so wide that it also holds the "
    "t interval of their shares. An objective is kept where all of it is at the asked share or above; it is "
    "not where all of it is below; else that is not clear. A failed request meets none; TPOT does not apply "
    "to an answer of one token."
)
_JUDGED: Mapping[State, str] = {
    "kept": "keeps it",
    "broken": "does not",
    "unclear": "not clear",
    "unknown": "not measured",
}


def section(run: Run) -> Section | None:
    """None in a run without objectives, and where nothing was measured."""
    if not run.record.slo or not values_of(run):
        return None
    return _search(run) if run.record.search else _levels(run)


# --- a search --------------------------------------------------------------------------------------


def _search(run: Run) -> Section:
    capacities = capacities_of(run)
    charts = list(goodput_curves(run, capacities))
    terms = run.record.search
    assert terms is not None
    what = "users" if terms.over == "concurrency" else "conversations begun per second"
    about = note(
        f"The highest load, in {what}, that keeps the SLO ({slo_words(run.record.slo)}). It lies from the "
        "highest load kept to the lowest broken; “proven” are those whose intervals say so.",
        f"Searched on each start from {terms.lowest:g} to {terms.highest:g}: doubled until an objective "
        f"broke, then halved between the two to within {_precision(run)}. "
        + _comparison_note(run, capacities),
    )
    parts = [about, _answers(run, capacities)]
    parts += [key(run), *(figure(chart) for chart in charts)] if charts else []
    parts += [details("Every trial", paragraph(f"{_INTERVAL} {_WILSON}"), _trials(run, capacities))]
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
    rows = [
        Row(
            [
                named(found[each.deployment]),
                *([each.scenario] if has_several else []),
                _mean(run, each),
                _by_start(each, _found),
                _proven(each),
                _by_start(each, _unclear),
                _against(run, each, capacities),
            ],
            Of(each.deployment),
        )
        for each in capacities
    ]
    return table(columns, rows, "summary", "Search")


def _mean(run: Run, each: Capacity) -> Html:
    if each.estimate is None:
        return tag("span", NOTHING, title=each.why or "not measured", class_="none", tabindex="0")
    mark, text = mark_html(marks_of_capacity(run, each)), mean_words(each)
    if each.estimate.k < 2:
        return join([tag("span", text, title="one start: no interval"), mark])
    return join([tag("b", text), mark, tag("span", span_words(each), class_="range")])


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


def _against(run: Run, each: Capacity, capacities: Sequence[Capacity]) -> Html:
    """The verdict on its load over the baseline's, with the marks of both."""
    if each.baseline is None:
        return tag("span", "the baseline")
    if each.verdict is None:
        return tag("span", NOTHING)
    verdict = each.verdict
    baseline = [
        marks_of_capacity(run, o)
        for o in capacities
        if (o.scenario, o.deployment) == (each.scenario, each.baseline)
    ]
    ratio = ratio_text(CAPACITY, verdict) if verdict.kind != "none" else ""
    return join(
        [
            tag("b", word(verdict, run.record.compare.margin_share), title=verdict.why or ""),
            mark_html(
                list(
                    dict.fromkeys(
                        mark for marks in [marks_of_capacity(run, each), *baseline] for mark in marks
                    )
                )
            ),
            *([tag("span", ratio, class_="range")] if ratio else []),
            *([tag("span", verdict.why, class_="why")] if verdict.why else []),
        ]
    )


def _comparison_note(run: Run, capacities: Sequence[Capacity]) -> str:
    count = verdict_count(capacities)
    said = (
        "A start is one observation: means are geometric, of the highest loads kept. The 95 % interval over "
        "starts reaches from what the kept ends leave to what the broken ends do; of two starts the ends "
        "themselves stand there."
    )
    if count:
        said += (
            f" Ratios are over the baseline's load, paired by repeat, and as wide as both brackets; "
            f"{family_text(count)}: all pairs of deployments, on the load, and the speed and memory at it."
        )
    return f"{said} {_served_at_once(run)}".strip()


def _served_at_once(run: Run) -> str:
    """How many requests the servers serve at once: what waits is what breaks a TTFT."""
    told = {each.terms.concurrent_sequences for each in run.deployments.values()} - {None}
    if not told:
        return ""
    counts = several([str(count) for count in sorted(filter(None, told))])
    return f"Servers were told to serve {counts} requests at once (engine.concurrent_sequences); more wait."


def _trials(run: Run, capacities: Sequence[Capacity]) -> Html:
    """A row per start and load, in the load's order."""
    found = looks(run)
    columns: list[Html | str] = ["deployment", "start", "load", "windows", "requests", *_heads(run), "SLO"]
    rows = [
        Row(
            [
                named(found[each.deployment]),
                str(answer.repeat + 1),
                tried.load,
                str(len(tried.cells)),
                *_judged_cells(run, tried),
            ],
            Of(each.deployment, tried.load, start=answer.repeat + 1),
        )
        for each in capacities
        for answer in each.answers
        for tried in answer.tried
    ]
    return table(columns, rows, "summary levels", "Every load that was tried")


def _heads(run: Run) -> list[Html]:
    """Of each objective, with the unit of its column."""
    return [
        join([objective_words(each), tag("span", _limit(each), class_="range")]) for each in run.record.slo
    ]


def _limit(objective: Objective) -> str:
    """`% within 300 ms, 95 % asked`."""
    within = "" if objective.limit_s is None else f" within {1e3 * objective.limit_s:g} ms"
    return f"%{within}, {100 * objective.share:g} % asked"


def _judged_cells(run: Run, tried: Tried) -> list[Html | str]:
    if tried.judged is None:
        reasons = [cell.reason or cell.status for cell in tried.cells]
        return [NOTHING] * (len(run.record.slo) + 1) + [tag("span", several(reasons, "; "), class_="why")]
    return _shares(run, tried.judged, {cell.number for cell in tried.cells if cell.counts})


def _shares(run: Run, found: Judged, cells: Set[int]) -> list[Html | str]:
    """How many requests, each objective's share with its marks, and what they come to."""
    most = max((each.n for each in found.attained), default=0)
    marks = [marks_of_answer(run, cells, [metric]) for metric in slo_metrics(run)]
    shares = [_share(each, mark_html(own)) for each, own in zip(found.attained, marks, strict=True)]
    return [f"{most:,}", *shares, _said(found)]


def _share(each: Attainment, mark: Html) -> Html:
    if each.share is None:
        return tag("span", NOTHING, title="it applies to no request here", class_="none")
    low, high = each.interval
    shown_share = tag(
        "span", f"{number(100 * each.share)} %", title=f"{each.met:,} of {each.n:,}; {each.verdict}"
    )
    return join([shown_share, mark, tag("span", f"[{100 * low:.1f}, {100 * high:.1f}]", class_="range")])


def _said(found: Judged) -> Html:
    said = _JUDGED[found.verdict]
    if found.verdict == "unclear":
        said = f"{said} ({'keeps it' if found.meets else 'does not'} as it stands)"
    wanting = [f"{objective_words(each.objective)} {each.wanting}" for each in found.attained if each.wanting]
    whys = [found.too_high] if found.too_high else wanting if found.verdict == "unclear" else []
    why = f"{said}: {several(whys, '; ')}" if whys else said
    return tag("span", why, class_="why bad" if found.verdict == "broken" else "why")


# --- a run with objectives -------------------------------------------------------------------------


def _levels(run: Run) -> Section | None:
    found = looks(run)
    columns: list[Html | str] = ["deployment", "load", "starts", "requests", *_heads(run), "SLO"]
    judged = [(group, judged_cells(run, group.cells)) for group in run.groups]
    parts: list[Html] = []
    for scenario in dict.fromkeys(group.scenario for group, _ in judged):
        rows = [
            Row(
                [
                    named(found[group.deployment]),
                    group.load,
                    str(len({cell.planned.repeat for cell in group.cells if cell.record})),
                    *_shares(run, what, {cell.number for cell in group.counted}),
                ],
                Of(group.deployment, group.load),
            )
            for group, what in judged
            if what and group.scenario == scenario
        ]
        if rows:
            parts += [
                tag("h3", scenario),
                table(columns, rows, "summary levels", f"Service levels, {scenario}"),
            ]
    if not parts:
        return None
    about = note(
        f"SLO: {slo_words(run.record.slo)}. The share of requests that meet each objective, at each load. "
        f"{_INTERVAL} Goodput is in Throughput.",
        _WILSON,
    )
    # Decision tells the same of the objective that is nearest to being missed.
    body = [details("Every objective at every load", *parts)] if decision_rows(run) else parts
    return Section("Service levels", join([about, *body]))
