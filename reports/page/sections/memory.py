"""Memory: each server's peak by what it was used for, as predicted and as needed; and memory over time."""

from functools import partial

from serving_bench.reports.measures import number, several
from serving_bench.reports.measures.anatomy import PARTS
from serving_bench.reports.measures.memory_parts import (
    Course,
    Held,
    courses_of,
    expectations,
    held_of,
    unread_of,
)
from serving_bench.reports.page.cells import part_cell
from serving_bench.reports.page.declared import Chart, Table, Topic, below
from serving_bench.reports.page.drawing.more_kinds import memory_bars, of_start, over_time
from serving_bench.reports.page.looks import Of, looks, macro, prose
from serving_bench.reports.words import claims

PIECES = Chart[Held](
    "memory-parts",
    "Peak memory by use, GiB",
    held_of,
    lambda _, rows: memory_bars(rows),
    lambda _: {
        "deployment": lambda memory: memory.label,
        **{claims.part_name(name): partial(part_cell, name) for name in PARTS},
        "total GiB": lambda memory: below(claims.gib(memory.total_bytes), claims.held_range(memory)),
        "needed GiB": lambda memory: claims.gib(memory.needed_bytes),
    },
    lambda memory: Of(memory.label),
    finding=claims.held_finding,
    note="A tick is one start. The table says how each part is known.",
    is_wide=True,
)
PREDICTED = Table[tuple[str, str, float, float]](
    "Predicted by bench fit",
    lambda run: [
        (memory.label, part, *ends)
        for memory in held_of(run)
        for part, ends in expectations(memory.starts).items()
    ],
    lambda run: {
        "deployment": lambda row: macro("dep", looks(run)[row[0]]),
        "part": lambda row: claims.part_name(row[1]),
        "predicted": lambda row: claims.gib(row[2]),
        "measured": lambda row: claims.gib(row[3]),
        "error": lambda row: f"{round(100 * (row[2] / row[3] - 1.0), 1) + 0.0:+.1f} %",  # no -0.0
    },
    lambda row: Of(row[0]),
    "plain expected",
    prose("predicted"),
)
KV_CACHE = Table[Held](
    "KV cache: reserved and needed",
    lambda run: [
        memory for memory in held_of(run) if (memory.kv.tokens, memory.kv.size_bytes) != (None, None)
    ],
    lambda run: {
        "deployment": lambda memory: macro("dep", looks(run)[memory.label]),
        "reserved GiB": lambda memory: below(
            claims.gib(memory.kv.size_bytes), claims.tokens(memory.kv.tokens)
        ),
        "needed GiB": lambda memory: below(
            claims.gib(memory.kv.needed_bytes), claims.tokens(memory.kv.peak_tokens)
        ),
        "users that fit": lambda memory: number(memory.kv.users, 0),
    },
    lambda memory: Of(memory.label),
    "plain anatomy",
    prose("kv_cache"),
)
HELD = Topic(
    "memory-held", claims.held_title, [PIECES, PREDICTED, KV_CACHE], claims.held_claim, prose("held")
)


# --- over time --------------------------------------------------------------------------------------


OVER_TIME = Topic(
    "memory-over-time",
    "Over time",
    [
        Chart[Course](
            "memory",
            "",
            courses_of,
            lambda run, rows: over_time(looks(run), rows, max(each.peak_bytes for each in courses_of(run))),
            lambda _: {
                "deployment": lambda course: course.label,
                "start": lambda course: course.title,
                "peak GiB": lambda course: claims.gib(course.peak_bytes, 2),
                "end GiB": lambda course: claims.gib(float(course.size_bytes[-1]), 2),
            },
            of_start,
            each=lambda course: course.label,
        ),
        Table[tuple[str, list[str]]](
            "What could not be read",
            unread_of,
            lambda _: {"what": lambda pair: pair[0], "starts": lambda pair: several(pair[1])},
            look="words",
        ),
    ],
    claims.course_claim,
    lambda run: "Shaded: the windows of the first start and their loads." if courses_of(run) else "",
)
