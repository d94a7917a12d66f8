"""The page of a comparison: what differs, the ratios as a forest plot, then both sides' values."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from reports.checks.examine import LEGEND, mark_text
from reports.measures.written import NOTHING
from reports.page.cells import mark_html
from reports.page.document import check_writable, document, write_page
from reports.page.drawing import forest
from reports.page.drawing.charts import Chart, figure
from reports.page.looks import Look
from reports.page.markup import Html, details, join, paragraph, table, tag
from reports.stats.family import Kind, Verdict
from reports.two_runs.compare import ComparedCase, Comparison, Row, verdict_line, verdict_text
from reports.two_runs.differences import KINDS
from reports.two_runs.side_values import Mark, SideValue
from reports.words.verdict_words import margin_text, ratio_text, title_of

# Colour and marker of a row by its verdict; the word itself is in its name.
_LOOKS: dict[Kind, Look] = {
    "better": Look("better", "", "--c-green", "solid", "", "triangle-up", "full"),
    "worse": Look("worse", "", "--c-vermilion", "solid", "", "triangle-down", "full"),
    "same": Look("same", "", "--c-blue", "solid", "", "circle", "full"),
    "unknown": Look("cannot tell", "", "--c-grey", "solid", "", "circle", "open"),
    "none": Look("no verdict", "", "--c-other", "solid", "", "cross", "open"),
}


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page and return its path. Raises UserError where it cannot be written."""
    check_writable(path)
    write_page(path, comparison_page(comparison))
    return path


def comparison_page(comparison: Comparison) -> str:
    """Return the whole page as text."""
    title = f"{comparison.b} against {comparison.a}"
    charts = list(_charts(comparison))
    parts = [
        tag("h1", title),
        paragraph(f"A: {comparison.a} · B: {comparison.b} · ratios are B over A", "sub"),
        paragraph(verdict_line(comparison), "answer"),
        paragraph(comparison.how, "sub"),
        *_distrust(comparison),
        tag("h2", "What differs"),
        _differences(comparison),
        tag("h2", "B over A"),
        paragraph(
            "Values are means over starts, in brackets their 95 % intervals; of two starts their range. "
            + LEGEND
        ),
        *(figure(chart) for chart in charts),
        *(part for case in comparison.cases for part in _case(comparison, case)),
        *_left_out(comparison),
    ]
    return document(title, tag("main", *parts), charts)


def _differences(comparison: Comparison) -> Html:
    parts = []
    for kind in KINDS:
        rows = [each.cells() for each in comparison.differences if each.kind == kind]
        if rows:
            made = table(["what", "A", "B"], rows, "words facts", kind)
            parts.append(
                details(f"{kind}: {len(rows)}", made) if kind == "versions" else join([tag("h3", kind), made])
            )
    return join(parts or [paragraph("Nothing that was recorded.")])


def _distrust(comparison: Comparison) -> list[Html]:
    if not comparison.distrust:
        return []
    items = (
        tag(
            "li",
            tag("b", each.title),
            f" ({' and '.join(each.sides)}). ",
            tag("span", each.remedy, class_="fix"),
            id=f"distrust-{each.check}",
        )
        for each in comparison.distrust
    )
    box = tag("div", tag("h2", "Reasons to distrust"), tag("ul", *items), class_="why-box", id="distrust")
    return [box]


def _charts(comparison: Comparison) -> Iterator[Chart]:
    """Yield a chart of the ratios at each scenario and load; differences have a table only."""
    by_load: dict[str, list[ComparedCase]] = {}
    for case in comparison.cases:
        by_load.setdefault(f"{case.scenario}, {case.load}", []).append(case)
    for number, (where, cases) in enumerate(by_load.items()):
        found = [
            (case, row, row.verdict)
            for case in cases
            for row in case.rows
            if row.verdict and row.verdict.is_log and ratio_text(row.metric, row.verdict)
        ]
        if found:
            yield _chart(comparison, f"ratios-{number}", where, found)


def _chart(
    comparison: Comparison, name: str, where: str, found: Sequence[tuple[ComparedCase, Row, Verdict]]
) -> Chart:
    rows, shown = [], []
    for case, row, verdict in found:
        metric, marks = row.metric, mark_text(row.marks)
        word = f"{verdict_text(metric, verdict, comparison.margin_share)} {marks}".rstrip()
        said = ratio_text(metric, verdict)
        whose = f" · {case.deployment}" if len({each.name for each, _, _ in found}) > 1 else ""
        look = _LOOKS[verdict.kind]
        rows.append(forest.row(look, f"{title_of(metric)}: {said}, {word}{whose}", verdict, said))
        shown.append([case.deployment, metric, said, word])
    return Chart(
        name,
        f"B over A at {where}, each with its interval",
        forest.traces(rows),
        forest.ratio_layout(rows, "B / A", comparison.margin_share),
        ["deployment", "metric", "B / A", "verdict"],
        shown,
        f"Log axis; right of 1: B has more. Band: within {margin_text(comparison.margin_share)}. "
        "▲ B better, ▼ B worse, ● same, ○ cannot tell, ✛ no verdict.",
        forest.height_px(rows),
    )


def _case(comparison: Comparison, case: ComparedCase) -> list[Html]:
    parts = [tag("h3", case.name), paragraph(case.starts_text, "note")]
    if case.why_none:
        parts.append(paragraph(f"No verdicts: {case.why_none}."))
    parts += [paragraph(f"Note: {note}.") for note in case.notes]
    asked = [row for row in case.rows if row.verdict]
    others = [row for row in case.rows if row.verdict is None]
    heads = ["metric", "unit", "A", "B", "B / A", "verdict"]
    parts.append(table(heads, [_cells(comparison, row) for row in asked], "words", case.name))
    if others:
        rows = [_cells(comparison, row)[:4] for row in others]
        made = table(heads[:4], rows, "words", f"Other values, {case.name}")
        parts.append(details("Other values, without verdicts", made))
    return parts


def _cells(comparison: Comparison, row: Row) -> list[Html | str]:
    sides = (_value(row, side) for side in (row.a, row.b))
    values: list[Html | str] = [row.metric, row.shown_unit, *sides]
    if row.verdict is None:
        return values
    word = verdict_text(row.metric, row.verdict, comparison.margin_share)
    return [*values, ratio_text(row.metric, row.verdict) or NOTHING, _marked(word, row.marks)]


def _value(row: Row, side: SideValue) -> Html:
    return _marked(side.text(row.metric, has_why=row.verdict is None), side.marks)


def _marked(said: str, marks: Sequence[Mark]) -> Html:
    return join([said, mark_html(marks)])


def _left_out(comparison: Comparison) -> list[Html]:
    if not comparison.left_out:
        return []
    items = (tag("li", f"{each.what}: {each.why}") for each in comparison.left_out)
    return [tag("h2", "Not compared"), tag("ul", *items)]
