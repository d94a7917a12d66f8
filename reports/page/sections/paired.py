"""Same requests: what each took beside the same one of the baseline, and whether their answers agree."""

from collections.abc import Iterator, Sequence

from harness.contracts import timing
from reports.checks.examine import mark_text, marks_between
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.written import NOTHING, number, plural, several
from reports.page import forest
from reports.page.charts import Chart, Section, figure
from reports.page.drawn.thinned import significant
from reports.page.looks import looks, named
from reports.page.marks import mark_html
from reports.page.markup import Html, Of, Row, details, join, note, paragraph, table, tag
from reports.verdicts.load_cases import LoadCase, load_cases_of, opened, title_of_case
from reports.verdicts.request_pairs import DELTAS, LEVELS, Agreement, Deltas, Paired, paired
from reports.words.verdict_words import signed, title_of

_FASTER = join(["faster in", tag("span", "of the pairs", class_="range")])
_AGREEMENT = (
    join(["answers agree", tag("span", "of the pairs", class_="range")]),
    join(["others begin alike", tag("span", "of the characters", class_="range")]),
)


def section(run: Run) -> Section | None:
    """None where no deployment has a request that its baseline has, too."""
    cases = [(case, paired(run, case.groups, case.baseline)) for case in load_cases_of(run) if case.baseline]
    cases = [(case, found) for case, found in cases if any(each.n for each in found)]
    if not cases:
        return None
    parts: list[Html] = [_said(run)]
    charts: list[Chart] = []
    first = opened(run, [case for case, _ in cases])
    for place, (case, found) in enumerate(cases):
        chart = _chart(run, case, found, f"paired-{place}")
        charts += [chart] if chart else []
        title = title_of_case(run, case)
        body = [*([figure(chart)] if chart else []), _table(run, found), _turns(run, found)]
        part = [tag("h3", title), *body] if case in first else [details(title, *body)]
        parts.append(tag("div", *part, **Of(load=case.load).attributes))
    return Section("Same requests, side by side", join(parts), charts)


def _said(run: Run) -> Html:
    said = (
        "A pair is of the same repeat, conversation and turn, ok and sent in the window on both. E2E is of "
        "pairs with answers of one length. Requests of one start are not independent: these figures describe "
        "the pairs, without intervals, and not what another start would give. "
        "Answers are asked for at temperature 0; they agree where every character does, reasoning included. "
        "Others begin alike: of answers that do not agree, the median share of the longer one's "
        f"characters before the first that differs. Quartiles need {timing.needed(75)} pairs, p5 and p95 "
        f"{timing.needed(95)}."
    )
    if any(cell.planned.scenario.options.get("history") == "model" for cell in run.planned_cells):
        said += (
            " Each server's own answers are the history, so from the second turn on a pair's prompts may "
            "differ; first turns have the same prompt for sure."
        )
    return note(
        "What a deployment took for a request less what the baseline took for the same one: below 0 is "
        "faster. No verdict comes from it.",
        said,
    )


# --- table -----------------------------------------------------------------------------------------


def _table(run: Run, found: Sequence[Paired]) -> Html:
    heads = [head for name in DELTAS for head in (_head(name), _FASTER)]
    columns: list[Html | str] = ["deployment", "pairs", *heads, *_AGREEMENT]
    rows = [
        Row(
            [
                named(looks(run)[each.a.deployment]),
                _count(each),
                *(
                    cell
                    for name in DELTAS
                    for cell in _delta_cells(each.deltas.get(name), _marks(run, each, name))
                ),
                *_agreement_cells(each.agreement),
            ],
            _of(each),
        )
        for each in found
    ]
    return join(
        [
            table(columns, rows, "summary pairs", f"Differences by request at {found[0].b.load}"),
            paragraph(f"Differences from {found[0].b.deployment}."),
        ]
    )


def _head(name: str) -> Html:
    return join([f"{title_of(name)} ms", tag("span", "median, quartiles", class_="range")])


def _of(found: Paired, turn: int | None = None) -> Of:
    """What a row is about; `turn` from 1."""
    return Of(found.a.deployment, found.a.load, turn)


def _count(found: Paired) -> Html:
    if found.why_none:
        return tag("span", NOTHING, title=found.why_none, class_="none", tabindex="0")
    return tag("span", f"{found.n:,}", title=f"in {plural(found.blocks, 'block')}")


def _marks(run: Run, found: Paired, name: str) -> tuple[Finding, ...]:
    return marks_between(run, found.a, found.b, name)


def _delta_cells(found: Deltas | None, marks: Sequence[Finding] = ()) -> tuple[Html, Html]:
    """Median with quartiles and its mark, and the share of pairs in which it was faster."""
    if found is None or found.at(50) is None:
        why = (found.why_none if found else None) or f"too few pairs: {found.n if found else 0}"
        none = tag("span", NOTHING, title=why, class_="none", tabindex="0")
        return none, none
    median = tag("span", _ms(found.at(50)), title=f"n = {plural(found.n, 'pair')}")
    quartiles = _quartiles(found)
    below = [tag("span", quartiles, class_="range")] if quartiles else []
    return join([median, mark_html(marks), *below]), _share(found.faster_share)


def _quartiles(found: Deltas) -> str:
    """Empty where there are too few pairs."""
    return "" if found.at(25) is None else f"{_ms(found.at(25))} to {_ms(found.at(75))}"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    ms = seconds * 1e3
    return signed(ms, 1 if abs(ms) >= 10 else 2)


def _share(value: float | None) -> Html:
    return Html(NOTHING if value is None else f"{number(100 * value, 0)} %")


def _agreement_cells(found: Agreement) -> tuple[Html, Html]:
    if not found.n:
        return Html(NOTHING), Html(NOTHING)
    agree = tag("span", _share(found.agree_share), title=f"{found.agree:,} of {plural(found.n, 'pair')}")
    return agree, _share(found.common_share)


def _turns(run: Run, found: Sequence[Paired]) -> Html:
    """By turn, where there is more than one."""
    if max((len(each.by_turn) for each in found), default=0) < 2:
        return Html("")
    columns: list[Html | str] = ["deployment", "turn", "pairs", _head("ttft_s"), *_AGREEMENT]
    rows = [
        Row(
            [
                named(looks(run)[each.a.deployment]),
                str(turn.turn + 1),
                f"{turn.agreement.n:,}",
                _delta_cells(turn.ttft_s, _marks(run, each, "ttft_s"))[0],
                *_agreement_cells(turn.agreement),
            ],
            _of(each, turn.turn + 1),
        )
        for each in found
        for turn in each.by_turn
    ]
    return details(
        "By turn", table(columns, rows, "summary pairs", f"Differences by turn at {found[0].b.load}")
    )


# --- chart -----------------------------------------------------------------------------------------


def _chart(run: Run, case: LoadCase, found: Sequence[Paired], chart_id: str) -> Chart | None:
    """TTFT: quantiles of the deltas, a row per deployment."""
    rows = [row for each in found if (row := _row(run, each))]
    if not rows:
        return None
    missing = [each.a.deployment for each in found if not _row(run, each)]
    note = (
        "Better to the left. Marker: median; thick line: quartiles; thin line: from p5 to p95, where there "
        "are pairs enough."
    )
    if missing:
        note += f" Not drawn: {several(missing)}."
    columns = ["deployment", "latency", "pairs", *(f"p{level} ms" for level in LEVELS), "faster in"]
    return Chart(
        chart_id,
        f"TTFT beside {found[0].b.deployment}, request by request, {_lower(title_of_case(run, case))}",
        forest.traces(rows),
        forest.difference_layout(rows, "difference of TTFT, ms"),
        columns,
        [line for each in found for line in _quantiles(each)],
        note,
        forest.height_px(rows),
        of=Of(load=case.load),
        has_baseline=True,
    )


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def _row(run: Run, found: Paired) -> forest.Row | None:
    deltas = found.deltas.get("ttft_s")
    if deltas is None:
        return None
    scaled = [None if value is None else significant(value * 1e3) for value in deltas.levels]
    low, first, median, third, high = scaled
    if median is None or first is None or third is None:
        return None
    ends = (first if low is None else low, third if high is None else high)
    said = f"{_ms(deltas.at(50))} ms ({_quartiles(deltas)}), "
    said += f"faster in {_share(deltas.faster_share).text} of {plural(deltas.n, 'pair')}"
    label = found.a.deployment
    name = f"{label}: {_ms(deltas.at(50))} ms {mark_text(_marks(run, found, 'ttft_s'))}".rstrip()
    return forest.Row(looks(run)[label], name, median, *ends, said, (first, third), _of(found))


def _quantiles(found: Paired) -> Iterator[Row]:
    for name, deltas in found.deltas.items():
        scale = metric_of(name).shown_scale
        values = [NOTHING if v is None else signed(v * scale, 2) for v in deltas.levels]
        cells: list[Html | str] = [
            found.a.deployment,
            title_of(name),
            f"{deltas.n:,}",
            *values,
            _share(deltas.faster_share),
        ]
        yield Row(cells, _of(found))
