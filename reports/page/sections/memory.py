"""Memory: each server's peak by what it was used for, as predicted and as needed; and memory over time."""

from serving_bench.reports.data import Run, grouped
from serving_bench.reports.measures import number, several
from serving_bench.reports.measures.anatomy import PARTS
from serving_bench.reports.measures.memory_parts import courses_of, expectations, held_of, unread_of
from serving_bench.reports.page.cells import part_cell
from serving_bench.reports.page.drawing.more_kinds import memory_bars, of_start, over_time
from serving_bench.reports.page.looks import Of, Row, looks, macro, prose
from serving_bench.reports.page.parts import Chart, Table, Topic, below, shared
from serving_bench.reports.words import claims


def held(run: Run) -> Topic:
    return Topic(
        "memory-held",
        claims.held_title(run),
        [pieces(run), predicted(run), kv_cache(run)],
        claims.held_claim(run),
        prose("held", run),
    )


def pieces(run: Run) -> Chart:
    rows = [
        Row(
            {
                "deployment": memory.label,
                **{claims.part_name(name): part_cell(name, memory) for name in PARTS},
                "total GiB": below(claims.gib(memory.total_bytes), claims.held_range(memory)),
                "needed GiB": claims.gib(memory.needed_bytes),
            },
            Of(memory.label),
        )
        for memory in held_of(run)
    ]
    return Chart(
        "memory-parts",
        "Peak memory by use, GiB",
        *memory_bars(held_of(run)),
        rows,
        "A tick is one start. The table says how each part is known.",
        claims.held_finding(run),
        is_wide=True,
    )


def predicted(run: Run) -> Table:
    rows = [
        Row(
            {
                "deployment": macro("dep", looks(run)[memory.label]),
                "part": claims.part_name(part),
                "predicted": claims.gib(expected),
                "measured": claims.gib(measured),
                "error": f"{round(100 * (expected / measured - 1.0), 1) + 0.0:+.1f} %",  # no -0.0
            },
            Of(memory.label),
        )
        for memory in held_of(run)
        for part, (expected, measured) in expectations(memory.starts).items()
    ]
    return Table("Predicted by bench fit", rows, "plain expected", prose("predicted", run))


def kv_cache(run: Run) -> Table:
    rows = [
        Row(
            {
                "deployment": macro("dep", looks(run)[memory.label]),
                "reserved GiB": below(claims.gib(memory.kv.size_bytes), claims.tokens(memory.kv.tokens)),
                "needed GiB": below(claims.gib(memory.kv.needed_bytes), claims.tokens(memory.kv.peak_tokens)),
                "users that fit": number(memory.kv.users, 0),
            },
            Of(memory.label),
        )
        for memory in held_of(run)
        if (memory.kv.tokens, memory.kv.size_bytes) != (None, None)
    ]
    return Table("KV cache: reserved and needed", rows, "plain anatomy", prose("kv_cache", run))


def course(run: Run) -> Topic:
    """Return memory over time, a chart for each deployment, all with the same scale."""
    courses = courses_of(run)
    highest = max((each.peak_bytes for each in courses), default=0.0)
    charts = []
    for at, (label, of_label) in enumerate(grouped(courses, lambda each: each.label).items()):
        rows = [
            Row(
                {
                    "deployment": label,
                    "start": each.title,
                    "peak GiB": claims.gib(each.peak_bytes, 2),
                    "end GiB": claims.gib(float(each.size_bytes[-1]), 2),
                },
                of_start(each),
            )
            for each in of_label
        ]
        drawn = over_time(looks(run), of_label, highest)
        charts.append(Chart(f"memory-{at}", label, *drawn, rows, of=shared(rows)))
    unread = [Row({"what": what, "starts": several(starts)}) for what, starts in unread_of(run)]
    return Topic(
        "memory-over-time",
        "Over time",
        [*charts, Table("What could not be read", unread, "words")],
        claims.course_claim(run),
        "Shaded: the windows of the first start and their loads." if courses else "",
    )
