"""Side by side: every value and every verdict on two of them. How long servers took to start is folded."""

from serving_bench.reports.data import Run, instants_s, launches_of, stage_titles, start_title
from serving_bench.reports.measures import compared_metrics, number, read_rates, unit_of
from serving_bench.reports.page import cells
from serving_bench.reports.page.by_load import case_block
from serving_bench.reports.page.drawing.more_kinds import start_up_bars
from serving_bench.reports.page.looks import Of, Row, prose
from serving_bench.reports.page.parts import Block, Chart, Notes, Table, Topic, of_group
from serving_bench.reports.verdicts import LoadCase, load_cases_of, ranked_labels, title_of_case
from serving_bench.reports.words import claims
from serving_bench.reports.words.verdict_words import heading_of


def values(run: Run) -> Topic:
    return Topic(
        "values",
        "Side by side",
        [
            Notes([claims.ratios(run)]),
            *(case_block(run, case, [_values(run, case)]) for case in load_cases_of(run)),
            Block("Start-up, step by step", [start_up(run)], is_folded=True),
        ],
        f"{claims.BESIDE[claims.repeat_word(run)]} {cells.LEGEND}",
        prose("side_by_side", run),
    )


def _values(run: Run, case: LoadCase) -> Table:
    slo, metrics = ["goodput_per_s"] * bool(run.record.slo), compared_metrics(run)
    names = dict.fromkeys([*read_rates(run, case.groups), *cells.COMPARED, *slo, *metrics])
    order = ranked_labels(run)
    rows = [
        Row(
            {
                "deployment": cells.name_cell(run, group),
                **{
                    heading_of(name, unit_of(run, name)): cells.compared_cell(run, name, group)
                    for name in names
                },
                "requests ok / failed": cells.requests_cell(run, group),
            },
            of_group(group),
        )
        for group in sorted(case.groups, key=lambda group: order.index(group.deployment))
    ]
    return Table(f"Values, {title_of_case(run, case)}", rows, "summary verdicts", is_bare=True)


def start_up(run: Run) -> Chart:
    """Return the steps of each deployment's first start and of its later ones."""
    titles = stage_titles(run)
    rows = [
        Row(
            {
                "deployment": start.deployment.label,
                "start": start_title(run, start),
                **{f"{title} s": number(instants_s(start).get(stage), 2) for stage, title in titles.items()},
                "launch s": number(start.launch_s, 2),
                "status": start.status,
            },
            Of(start.deployment.label, start=start.repeat + 1),
        )
        for launch in launches_of(run)
        for start in launch.records
    ]
    return Chart(
        "startup",
        "From spawn until the server answers",
        *start_up_bars(launches_of(run), titles),
        rows,
        "A bar is the mean over its starts; a tick is one start. Each step ends with the stage it is named "
        "after. A stage that was not seen is part of the next step. A first start may have to compile, and "
        "to read its files from disk.",
        is_wide=True,
    )
