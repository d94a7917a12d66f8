"""The decision: who keeps the SLO at each load, and the fastest, the cheapest and the smallest of them."""

from collections.abc import Iterator, Mapping, Sequence

from reports.checks.examine import marks_across_quantizations, marks_of, marks_of_answer, marks_of_capacity
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.measures.over_starts import unit_of
from reports.measures.slo import Attainment
from reports.measures.written import NOTHING, several
from reports.page.charts import Section
from reports.page.looks import Look, looks, named
from reports.page.marks import mark_html
from reports.page.markup import ALL, Head, Html, Of, join, note, table, tag
from reports.page.markup import Row as Line
from reports.verdicts.decision import COST, NEEDED, PEAK, SPEED, Column, Row, decision_rows
from reports.verdicts.picks import Candidate, Pick, Standing, State
from reports.verdicts.search_decision import load_rows, search_rows
from reports.verdicts.searches import CAPACITY, capacities_of, slo_metrics
from reports.words.answer import basis
from reports.words.decision_words import (
    amount_words,
    next_words,
    objective_words,
    slo_words,
    tied_words,
)

_COLUMNS: tuple[Column, ...] = ("most load", "fastest", "cheapest", "smallest")
_STATES: Mapping[State, str] = {
    "kept": "keeps it",
    "unclear": "not clear",
    "broken": "does not",
    "unknown": "not measured",
}
_TONES: Mapping[State, str] = {"kept": "", "unclear": "warn", "broken": "quiet", "unknown": "none"}


def section(run: Run) -> Section | None:
    """None without an SLO, and of a search of a single deployment."""
    is_search = run.record.search is not None
    rows = search_rows(run) if is_search else decision_rows(run)
    if not rows or (is_search and len(run.deployments) < 2):
        return None
    # The page begins with the sentence (reports/page/opening.py).
    parts: list[Html] = []
    found, by_load = looks(run), load_rows(run) if is_search else rows
    cases = list(dict.fromkeys((row.scenario, row.model) for row in rows))
    has_models = len({model for _, model in cases}) > 1
    for scenario, model in cases:
        own, loads = (
            [row for row in each if (row.scenario, row.model) == (scenario, model)]
            for each in (rows, by_load)
        )
        title = f"{scenario}, {model}" if has_models else scenario
        parts += [tag("h3", title)] if len(cases) > 1 else []
        parts += [_decided(run, own, found), tag("h3", "Who keeps the SLO"), _standings(run, loads, found)]
    parts.append(note(*(_search_note(run) if is_search else _note(run, rows))))
    return Section("Which to take", join(parts))


# --- the table -------------------------------------------------------------------------------------


def _decided(run: Run, rows: Sequence[Row], found: Mapping[str, Look]) -> Html:
    columns = [name for name in _COLUMNS if any(name in row.picks for row in rows)]
    is_search = run.record.search is not None
    lines = [
        Line(
            [row.load, _keepers(row), *(_picked(run, row, row.picks.get(name), found) for name in columns)],
            ALL if is_search else Of(load=row.load),
        )
        for row in rows
    ]
    return table(
        ["load", "keep the SLO", *(_heading(run, rows, name) for name in columns)],
        lines,
        "words decision",
        "Which to take",
    )


def _heading(run: Run, rows: Sequence[Row], name: Column) -> Html:
    """With what it is by."""
    metrics = dict.fromkeys(row.picks[name].metric for row in rows if name in row.picks)
    return join([name, tag("span", ", ".join(_unit(run, metric) for metric in metrics), class_="range")])


def _unit(run: Run, metric: str) -> str:
    if metric == CAPACITY:
        return "that keeps the SLO"
    if metric == NEEDED:
        return "GiB needed"
    if metric == COST:
        return f"{unit_of(run, metric)} per million output tokens"
    return "GiB, peak memory" if metric == PEAK else unit_of(run, metric)


def _keepers(row: Row) -> Html:
    kept, unclear, unknown = (row.labels(state) for state in ("kept", "unclear", "unknown"))
    said = [f"{len(kept)} of {len(row.standings)}"]
    said += [f"{len(unclear)} not clear"] if unclear else []
    said += [f"{len(unknown)} not measured"] if unknown else []
    return tag("span", ", ".join(said))


def _picked(run: Run, row: Row, pick: Pick | None, found: Mapping[str, Look]) -> Html | str:
    """The best, its value, and how it stands to the others."""
    if pick is None:
        return NOTHING
    small = [tag("span", line, class_="range") for line in _lines(pick, run.record.compare.margin_share)]
    if pick.why is not None and pick.next is not None:
        # Without a verdict the first by its values is no winner: values stand side by side.
        each = [tag("div", f"{c.label}: ", _amount(run, row, pick, c)) for c in (pick.best, pick.next)]
        return join([*each, *small])
    return join([named(found[pick.best.label]), tag("div", _amount(run, row, pick, pick.best)), *small])


def _amount(run: Run, row: Row, pick: Pick, candidate: Candidate) -> Html:
    """With the marks of the number, and those of a choice between quantizations."""
    group = next((each.group for each in row.standings if each.label == candidate.label), None)
    metric = PEAK if pick.metric == NEEDED else pick.metric
    marks = marks_of(run, group, metric) if group else _marks_at_highest(run, row, candidate.label, metric)
    is_across = len({run.deployments[each.label].quantization for each in row.standings}) > 1
    across = marks_across_quantizations(run) if is_across else ()
    words = amount_words(pick.metric, candidate)
    return join([words, mark_html(list(dict.fromkeys((*marks, *across))))])


def _marks_at_highest(run: Run, row: Row, label: str, metric: str) -> tuple[Finding, ...]:
    """Of a search, whose values are those at the highest load that each start kept."""
    found = capacities_of(run)
    own = next(each for each in found if (each.scenario, each.deployment) == (row.scenario, label))
    return (
        marks_of_capacity(run, own)
        if metric == CAPACITY
        else marks_of_answer(run, own.cells_at_highest, [metric])
    )


def _lines(pick: Pick, margin_share: float) -> Iterator[str]:
    by_speed = "by its speed " if pick.metric == COST and pick.verdict else ""
    if pick.next is None:
        yield "the only one" if not pick.unclear else "the only one that is known to keep it"
    elif pick.why is not None:
        yield f"no best: {pick.why}"
    elif pick.ties:
        yield f"{by_speed}{tied_words(pick, margin_share)}"
    else:
        yield f"{by_speed}{next_words(pick)}"
    if pick.unclear:
        word = {SPEED: "faster", COST: "cheaper"}.get(pick.metric, "smaller")
        yield f"proven {word}, but not that it keeps the SLO: {several(pick.unclear)}"
    if pick.left_out:
        yield f"no value, or kernels not its own: {several(pick.left_out)}"


# --- who keeps it ----------------------------------------------------------------------------------


def _standings(run: Run, rows: Sequence[Row], found: Mapping[str, Look]) -> Html:
    """A row per deployment, a column per load."""
    labels = list(dict.fromkeys(each.label for row in rows for each in row.standings))
    lines = []
    for label in labels:
        by_load = [next((s for s in row.standings if s.label == label), None) for row in rows]
        cells = [named(found[label]), *(_state(run, each) for each in by_load)]
        lines.append(Line(cells, Of(deployment=label)))
    heads = (Head(row.load, Of(load=row.load)) for row in rows)
    return table(["deployment", *heads], lines, "words loads decision", "Who keeps the SLO")


def _state(run: Run, standing: Standing | None) -> Html | str:
    if standing is None:
        return NOTHING
    word = tag("span", _STATES[standing.state], class_=_TONES[standing.state])
    if standing.judged is None:
        return word
    cells = {cell.number for cell in standing.group.counted} if standing.group else set()
    marks = mark_html(marks_of_answer(run, cells, slo_metrics(run)))
    why = standing.judged.too_high or _nearest(standing.judged.attained)
    return join([word, marks, tag("span", why, class_="range")])


def _nearest(attained: Sequence[Attainment]) -> Html:
    """The objective that is met by the least, for what is asked of it."""
    worst = min(attained, key=lambda each: (each.share or 0.0) - each.objective.share)
    low, high = (100 * end for end in worst.interval)
    share = f"{objective_words(worst.objective)} {100 * (worst.share or 0.0):.1f} %"
    # Breaks before the bracket alone.
    whole = (tag("span", part, class_="unbroken") for part in (share, f"[{low:.1f}, {high:.1f}]"))
    return Html(" ".join(part.text for part in whole))


def _note(run: Run, rows: Sequence[Row]) -> tuple[str, str]:
    """What a reader needs, and the rest."""
    by_need = any(pick.metric == NEEDED for row in rows for pick in row.picks.values())
    cheap = (
        "Cheapest: on the same devices cost is a price over the speed, so it orders as the fastest does. "
        if any("cheapest" in row.picks for row in rows)
        else ""
    )
    first = (
        f"SLO: {slo_words(run.record.slo)}. Below who keeps it: the objective that is nearest to being "
        "missed, with the share of requests that meet it [95 % interval]."
    )
    rest = (
        "A deployment keeps the SLO where the interval of each objective's share, over all requests and over "
        "starts, is not below what is asked; it does not where one is wholly below; else it is not clear. "
        "The fastest, cheapest and smallest are of those that keep it (where none is known to, of those that "
        "may), by the mean over starts [95 % interval]. Below it stands its ratio to the next one; not told "
        f"apart are those not proven worse. {basis(run)} {cheap}{_BY_NEED if by_need else _BY_PEAK}"
    )
    return first, rest


_BY_NEED = (
    "Smallest: by the memory that it needed, which is all but the KV cache that was reserved and never used, "
    "over all loads of a start; all pairs of those that keep the SLO are compared, as a family of their own."
)
_BY_PEAK = "Smallest: by its peak, what it reserves included, since what it needs is not known of all."


def _search_note(run: Run) -> tuple[str, str]:
    first = (
        f"SLO: {slo_words(run.record.slo)}. Each deployment at the highest load that it kept on all of its "
        "starts, which is another for each: speed, cost and peak memory there, means over starts [95 % "
        "interval]."
    )
    rest = (
        "Not told apart are those not proven worse. A deployment keeps a load where each start's search came "
        f"to that or more; it is not clear where only some starts' did. {basis(run)}"
    )
    return first, rest
