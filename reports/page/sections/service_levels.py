"""Who keeps the SLO at which load; of a search its answers and every load that it tried."""

from collections.abc import Callable, Mapping, Sequence

from harness.contracts import Objective
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.slo import Attainment, Judged, judged_cells
from reports.measures.written import NOTHING, number, plural, several
from reports.page.cells import none_cell
from reports.page.drawing.charts import Block, Part, Table
from reports.page.looks import looks, named
from reports.page.markup import Head, Html, Of, Row, join, tag
from reports.verdicts.searches import Answer, Capacity, capacities_of
from reports.verdicts.standings import State, slo_rows
from reports.words.verdict_words import objective_words, slo_words

_STATES: Mapping[State, tuple[str, str]] = {
    "kept": ("keeps it", ""),
    "broken": ("does not", "bad"),
    "unclear": ("not clear", "warn"),
    "unknown": ("not measured", "none"),
}
HOW = (
    "A deployment keeps the SLO where the interval of each objective's share (95 % over its loads "
    "together) is not below what is "
    "asked; it does not where one is wholly below; else it is not clear. The interval is of all requests "
    "together (Wilson), and of several starts so wide that it also holds the t interval of their shares. A "
    "failed request meets no objective; TPOT does not apply to an answer of one token."
)


def levels(run: Run) -> list[Part]:
    """Return the table of who keeps the SLO by load, and each objective's shares, folded."""
    judged = _judged(run)
    parts: list[Part] = []
    in_order = sorted((group for group, _ in judged), key=lambda group: (group.family, group.level))
    for scenario in dict.fromkeys(group.scenario for group in in_order):
        loads = list(dict.fromkeys(group.load for group in in_order if group.scenario == scenario))
        own = {(g.deployment, g.load): found for g, found in judged if g.scenario == scenario}
        rows = [
            Row([named(look), *(_state(own.get((label, load))) for load in loads)], Of(label))
            for label, look in looks(run).items()
            if any(label == deployment for deployment, _ in own)
        ]
        every = [
            Row([named(looks(run)[label]), load, *_shares(found)], Of(label, load))
            for (label, load), found in own.items()
        ]
        heads = [Head(load, Of(load=load)) for load in loads]
        columns: list[Html | str] = ["deployment", "load", "requests", *_heads(run), "SLO"]
        title = f"Who keeps the SLO ({slo_words(run.record.slo)})"
        said = f", {scenario}" if len({group.scenario for group in in_order}) > 1 else ""
        kept = Table(f"Who keeps the SLO{said}", ["deployment", *heads], rows, "words loads")
        shares = Table(f"Service levels, {scenario}", columns, every, "summary levels")
        parts.append(Block(f"{title}{said}", [kept]))
        parts.append(Block(f"Every objective at every load{said}", [shares], is_folded=True))
    return parts


def _judged(run: Run) -> list[tuple[Group, Judged]]:
    """Return what is known of each group; of a search, whose loads are its own, each by itself."""
    if run.record.search is not None:
        return [(group, found) for group in run.groups if (found := judged_cells(run, group.cells))]
    standings = (standing for row in slo_rows(run) for standing in row.standings)
    return [(each.group, each.judged) for each in standings if each.group and each.judged]


def _state(found: Judged | None) -> Html:
    """Return whether it keeps the SLO, with the objective that is nearest to being missed."""
    word, tone = _STATES[found.verdict if found else "unknown"]
    said = tag("span", word, class_=tone)
    if found is None:
        return said
    if found.too_high:
        return join([said, tag("span", found.too_high, class_="range")])
    worst = min(found.attained, key=lambda each: (each.share or 0.0) - each.objective.share)
    low, high = (100 * end for end in worst.interval)
    share = f"{objective_words(worst.objective)} {100 * (worst.share or 0.0):.1f} %"
    # A narrow column breaks before the bracket alone.
    parts = [tag("span", part, class_="unbroken") for part in (share, f"[{low:.1f}, {high:.1f}]")]
    return join([said, tag("span", parts[0], " ", parts[1], class_="range")])


def _heads(run: Run) -> list[Html]:
    return [
        join([objective_words(each), tag("span", _asked(each), class_="range")]) for each in run.record.slo
    ]


def _asked(objective: Objective) -> str:
    within = "" if objective.limit_s is None else f" within {1e3 * objective.limit_s:g} ms"
    return f"%{within}, {100 * objective.share:g} % asked"


def _shares(found: Judged) -> list[Html | str]:
    """Return how many requests there were, each objective's share, and what they come to."""
    word, tone = _STATES[found.verdict]
    if found.verdict == "unclear":
        word += f" ({'keeps it' if found.meets else 'does not'} as it stands)"
    wanting = [f"{objective_words(each.objective)} {each.wanting}" for each in found.attained if each.wanting]
    whys = [found.too_high] if found.too_high else wanting if found.verdict == "unclear" else []
    most = max((each.n for each in found.attained), default=0)
    said = f"{word}: {several(whys, '; ')}" if whys else word
    return [f"{most:,}", *map(_share, found.attained), tag("span", said, class_=f"why {tone}")]


def _share(each: Attainment) -> Html:
    if each.share is None:
        return none_cell("it applies to no request here")
    low, high = each.interval
    title = f"{each.met:,} of {each.n:,}; {each.verdict}"
    shown = tag("span", f"{number(100 * each.share)} %", title=title)
    return join([shown, tag("span", f"[{100 * low:.1f}, {100 * high:.1f}]", class_="range")])


# --- a search --------------------------------------------------------------------------------------


def search_claim(run: Run) -> str:
    """Say what was searched, and how."""
    terms = run.record.search
    assert terms is not None
    what = "users" if terms.over == "concurrency" else "conversations begun per second"
    precision = f"{100 * terms.precision_share:g} %{', or one user' if terms.over == 'concurrency' else ''}"
    return (
        f"The highest load, in {what}, that keeps the SLO ({slo_words(run.record.slo)}). Searched on each "
        f"start from {terms.lowest:g} to {terms.highest:g}: doubled until an objective broke, then halved "
        f"between the two to within {precision}."
    )


def search_parts(run: Run) -> list[Part]:
    """Return a search's answers, and every load that was tried, folded."""
    found = capacities_of(run)
    return [_answers(run, found), Block("Every load that was tried", [_trials(run, found)], is_folded=True)]


def answer_lines(run: Run) -> list[dict[str, object]]:
    """Return a dashed line at each deployment's answer, for charts over the load."""
    return [
        {
            "type": "line", "x0": each.level, "x1": each.level,
            "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": looks(run)[each.deployment].colour, "dash": "dash", "width": 1},
            "of": Of(each.deployment).to_builtins(),
        }
        for each in capacities_of(run)
        if each.level is not None and not each.is_least
    ]  # fmt: skip


def _answers(run: Run, found: Sequence[Capacity]) -> Table:
    has_several = len({each.scenario for each in found}) > 1
    columns = [
        "deployment",
        "highest load kept",
        "kept – broken, by start",
        "proven",
        "not clear",
    ]
    rows = [
        Row(
            [
                join([named(looks(run)[each.deployment]), *([f" {each.scenario}"] if has_several else [])]),
                none_cell(each.why or "") if each.level is None else tag("b", each.words),
                _by_start(each, _found),
                _proven(each),
                _by_start(each, _unclear),
            ],
            Of(each.deployment),
        )
        for each in found
    ]
    return Table("Search", columns, rows)


def _by_start(each: Capacity, words: Callable[[Answer], str]) -> str:
    """Return what each start says, once if all say the same."""
    said = [words(answer) for answer in each.answers]
    return "; ".join(said if len(set(said)) > 1 else said[:1])


def _found(answer: Answer) -> str:
    return _bracket(answer.kept, answer.broken) if answer.is_whole and answer.broken else answer.words


def _proven(each: Capacity) -> str:
    if all((a.proven_kept, a.proven_broken) == (a.kept, a.broken) for a in each.answers):
        return "the same"
    return _by_start(each, lambda answer: _bracket(answer.proven_kept, answer.proven_broken))


def _bracket(kept: float | None, broken: float | None) -> str:
    return f"{'none' if kept is None else f'{kept:g}'} – {NOTHING if broken is None else f'{broken:g}'}"


def _unclear(answer: Answer) -> str:
    said = [f"{each.level:g} ({plural(len(each.cells), 'window')})" for each in answer.uncertain]
    return ", ".join(said) or "none"


def _trials(run: Run, found: Sequence[Capacity]) -> Table:
    rows = []
    for each in found:
        for answer in each.answers:
            for tried in answer.tried:
                reasons = several([cell.reason or cell.status for cell in tried.cells], "; ")
                nothing = [NOTHING] * (len(run.record.slo) + 1) + [tag("span", reasons, class_="why")]
                cells = _shares(tried.judged) if tried.judged else nothing
                start = answer.repeat + 1
                of = Of(each.deployment, tried.load, start)
                name = named(looks(run)[each.deployment])
                rows.append(Row([name, str(start), tried.load, str(len(tried.cells)), *cells], of))
    columns: list[Html | str] = ["deployment", "start", "load", "windows", "requests", *_heads(run), "SLO"]
    return Table("Every load that was tried", columns, rows, "summary levels")
