"""Verdicts: every deployment against its model's baseline, at each load, with what may be said of it."""

from collections.abc import Iterator, Sequence

from reports.checks.examine import LEGEND, mark_text, marks_between, marks_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate, shorter_half, unit_of
from reports.measures.written import NOTHING, plural, supported
from reports.page import forest
from reports.page.cell_marks import LEGEND as CELL_LEGEND
from reports.page.cell_marks import cell_marks
from reports.page.charts import Chart, Section, grid
from reports.page.drawn.thinned import significant
from reports.page.looks import looks, named
from reports.page.marks import mark_html
from reports.page.markup import OPEN_ROWS, Html, Of, Row, details, join, note, paragraph, table, tag
from reports.stats.family import Verdict
from reports.verdicts.comparisons import Compared, comparisons_of, remedy
from reports.verdicts.load_cases import LoadCase, load_cases_of, opened, title_of_case, verdict_of
from reports.words.said import capital
from reports.words.verdict_words import family_text, heading_of, margin_text, ratio_text, title_of, word_of

NAMED_IN_TITLE = 2


def section(run: Run) -> Section | None:
    """None where no two deployments are of one model, and of a search, whose answers are compared instead."""
    found = comparisons_of(run)
    if not found.rows or run.record.search is not None:
        return None
    if found.why_none:
        return Section("Verdicts", _said(run))  # the values stand in Values
    cases = load_cases_of(run)
    rows = sum(len(case.groups) for case in cases)
    parts: list[Html] = [_said(run)]
    charts: list[Chart] = []
    first = opened(run, cases)
    for number, case in enumerate(cases):
        made = list(_charts(run, case, number))
        charts += made
        title, values = title_of_case(run, case), _table(run, case)
        ratios = [grid(made)] if made else []
        if case in first:
            parts += [tag("h3", title), values, *ratios]
        elif rows <= OPEN_ROWS:
            parts += [tag("h3", title), values, *([details("Charts", *ratios)] if ratios else [])]
        else:
            parts.append(details(f"{title}{_tally(run, case)}", values, *ratios))
    others = [row for row in found.rows if row.b not in found.baselines.values()]
    if others:
        parts.append(details("Between the others", _between(run, others)))
    return Section("Verdicts", join([*parts, _legend()]), charts)


def _said(run: Run) -> Html:
    """By which rule the verdicts are given, or why there are none and what would help."""
    if why := comparisons_of(run).why_none:
        return paragraph(f"No verdicts: {why}. {remedy(run)}".rstrip())
    if not comparisons_of(run).family:
        return paragraph("No verdicts: no comparison allows one; each says why.")
    margin, family = margin_text(run.record.compare.margin_share), comparisons_of(run).family
    level = max((100 * row.verdict.confidence for row in comparisons_of(run).rows), default=95.0)
    return note(
        f"Ratios to the baseline with their intervals in brackets, {family_text(family)}; same: within "
        f"{margin}.",
        "Block = one repeat, in which every deployment was started once. A ratio is the mean of the blocks' "
        f"ratios. An interval is at up to {level:.4g} %, so that all words here are right together in 95 of "
        "100 such runs.",
    )


def _tally(run: Run, case: LoadCase) -> str:
    """`: output tokens/s: 3 faster, 1 cannot tell`, of the first metric, for a load that is folded."""
    first = run.record.compare.metrics[0]
    words = [
        word_of(first, verdict, run.record.compare.margin_share)
        for group in case.groups
        if (verdict := verdict_of(run, case, group, first))
    ]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return f": {title_of(first)}: {counts}" if counts else ""


# --- table -----------------------------------------------------------------------------------------


def _table(run: Run, case: LoadCase) -> Html:
    metrics = run.record.compare.metrics
    heads = [heading_of(name, unit_of(run, name)) for name in metrics]
    rows = [
        Row(
            [
                join([named(looks(run)[group.deployment]), _role(case, group), cell_marks(run, group)]),
                *(_cell(run, case, group, name) for name in metrics),
            ],
            Of(group.deployment, group.load),
        )
        for group in case.groups
    ]
    return table(["deployment", *heads], rows, "summary verdicts", f"Verdicts, {title_of_case(run, case)}")


def _role(case: LoadCase, group: Group) -> Html:
    return tag("span", "baseline", class_="said quiet") if group is case.baseline else Html("")


def _cell(run: Run, case: LoadCase, group: Group, name: str) -> Html:
    """Of the baseline its value; else the ratio with its interval and the verdict, or why there is none."""
    verdict = verdict_of(run, case, group, name)
    if verdict is not None:
        return _verdict(run, case, group, name, verdict)
    found = aggregate(run, group, name)
    if found.mean is None:
        return tag("span", NOTHING, title=found.why or "no value", class_="none", tabindex="0")
    value = supported(name, found.mean, shorter_half(found))
    shown = tag("span", value, title=f"mean of {plural(found.k, 'start')}", class_="quiet")
    return join([shown, mark_html(marks_of(run, group, name))])


def _verdict(run: Run, case: LoadCase, group: Group, name: str, verdict: Verdict) -> Html:
    word = word_of(name, verdict, run.record.compare.margin_share)
    if verdict.kind == "none":
        said = tag("span", word, title=verdict.why or word, class_="verdict none", tabindex="0")
        return join([said, tag("span", verdict.why or "", class_="range why-none")])
    assert case.baseline is not None
    marks = mark_html(marks_between(run, group, case.baseline, name))
    title = f"{plural(verdict.k, 'block')}; interval at {100 * verdict.confidence:.4g} %"
    value, _, interval = ratio_text(name, verdict).partition(" ")
    ratio = tag("span", value, " ", tag("span", interval, class_="range"), title=title)
    return join([ratio, tag("span", word, " ", marks, class_=f"verdict {verdict.kind}")])


def _between(run: Run, rows: Sequence[Compared]) -> Html:
    """Comparisons that no baseline is in; asked where deployments that keep the SLO are chosen from."""
    columns = ["of", "to", "scenario", "load", "metric", "ratio", "verdict"]
    margin = run.record.compare.margin_share
    cells = [
        Row(
            [
                row.a,
                row.b,
                row.scenario,
                row.load,
                title_of(row.metric),
                ratio_text(row.metric, row.verdict) if row.verdict.kind != "none" else NOTHING,
                tag(
                    "span",
                    row.verdict.why or word_of(row.metric, row.verdict, margin),
                    class_=f"verdict {row.verdict.kind}",
                ),
            ],
            Of(load=row.load),
        )
        for row in rows
    ]
    return table(columns, cells, "plain", "Verdicts between deployments")


def _legend() -> Html:
    """What the marks mean."""
    return paragraph(
        "In the baseline's row its values, means over starts; those of the others stand in Values. "
        f"{LEGEND} At a row's name: {CELL_LEGEND}"
    )


# --- chart -----------------------------------------------------------------------------------------


def _charts(run: Run, case: LoadCase, number: int) -> Iterator[Chart]:
    """Of each metric, the deployments' ratios with their intervals."""
    for name in run.record.compare.metrics:
        pairs = [(group, verdict_of(run, case, group, name)) for group in case.groups]
        drawn = [(group, found) for group, found in pairs if found and found.kind != "none" and found.ratio]
        if drawn:
            yield _chart(run, case, name, drawn, f"verdicts-{name}-{number}".replace(".", "-"))


def _chart(
    run: Run, case: LoadCase, name: str, drawn: Sequence[tuple[Group, Verdict]], chart_id: str
) -> Chart:
    assert case.baseline is not None
    margin, metric, is_log = run.record.compare.margin_share, metric_of(name), drawn[0][1].is_log
    scale = 1.0 if is_log else metric.shown_scale
    rows = [_row(run, case, name, group, verdict, scale) for group, verdict in drawn]
    if is_log:
        layout = forest.ratio_layout(rows, "ratio, log scale", margin)
    else:
        layout = forest.difference_layout(rows, f"difference, {metric.shown_unit}")
    subject = capital(title_of(name))
    finding = _finding(name, case.baseline, drawn, margin)
    columns = ["deployment", "ratio" if is_log else "difference", "interval at", "blocks", "verdict"]
    return Chart(
        chart_id,
        f"{subject}: {finding}" if finding else f"{subject} at {case.load}",
        forest.traces(rows),
        layout,
        columns,
        _told(name, drawn, margin),
        _chart_note(case, name, drawn, margin),
        forest.height_px(rows),
        quantity=f"{subject} at {case.load}" if finding else "",
        of=Of(load=case.load),
        has_baseline=True,
    )


def _chart_note(case: LoadCase, name: str, drawn: Sequence[tuple[Group, Verdict]], margin: float) -> str:
    """What the axis has no room for on a narrow screen, and who is missing."""
    assert case.baseline is not None
    side = {"higher": "right", "lower": "left"}.get(metric_of(name).better)
    better = f"; better to the {side}" if side else ""
    if drawn[0][1].is_log:
        note = f"Ratio to {case.baseline.deployment}{better}. Band: the same, within {margin_text(margin)}."
    else:
        note = f"Difference from {case.baseline.deployment}{better}. No margin counts as the same."
    left_out = [group.deployment for group in case.groups if group is not case.baseline]
    missing = [label for label in left_out if label not in {group.deployment for group, _ in drawn}]
    return f"{note} No verdict: {', '.join(missing)}." if missing else note


def _finding(name: str, baseline: Group, drawn: Sequence[tuple[Group, Verdict]], margin: float) -> str:
    """`sglang awq faster than vllm fp16; 2 slower; vllm awq the same within 5 %`; empty where nothing is
    decided."""
    by_kind: dict[str, list[str]] = {"better": [], "worse": [], "same": [], "unknown": []}
    for group, verdict in drawn:
        by_kind[verdict.kind].append(group.deployment)
    better, worse = metric_of(name).words
    words = {"better": better, "worse": worse, "same": f"the same within {margin_text(margin)}"}
    said = [f"{_names(labels)} {words[kind]}" for kind, labels in by_kind.items() if labels and kind in words]
    if not said:
        return ""
    first, *rest = said
    is_same = not (by_kind["better"] or by_kind["worse"])
    against = f" {'as' if is_same else 'than'} {baseline.deployment}"
    unclear = [f"{_names(labels)} not told apart"] if (labels := by_kind["unknown"]) else []
    return "; ".join([first + against, *rest, *unclear])


def _names(labels: Sequence[str]) -> str:
    """Two by their names; of more only how many."""
    return " and ".join(labels) if len(labels) <= NAMED_IN_TITLE else str(len(labels))


def _told(name: str, drawn: Sequence[tuple[Group, Verdict]], margin: float) -> list[Row]:
    """What the chart draws, as a table."""
    return [
        Row(
            [
                group.deployment,
                ratio_text(name, each),
                f"{100 * each.confidence:.4g} %",
                str(each.k),
                word_of(name, each, margin),
            ],
            Of(group.deployment, group.load),
        )
        for group, each in drawn
    ]


def _row(run: Run, case: LoadCase, name: str, group: Group, verdict: Verdict, scale: float) -> forest.Row:
    assert verdict.ratio is not None
    assert verdict.low is not None
    assert verdict.high is not None
    assert case.baseline is not None
    word = word_of(name, verdict, run.record.compare.margin_share)
    ends = (verdict.ratio, verdict.low, verdict.high)
    # A log axis has no 0, which an end far below any sense is rounded to.
    at, low, high = (significant(max(value, 1e-9) if verdict.is_log else value * scale) for value in ends)
    look, said = looks(run)[group.deployment], f"{ratio_text(name, verdict)}, {word}"
    marks = mark_text(marks_between(run, group, case.baseline, name))
    of = Of(group.deployment, group.load)
    return forest.Row(look, f"{group.deployment}: {word} {marks}".rstrip(), at, low, high, said, of=of)
