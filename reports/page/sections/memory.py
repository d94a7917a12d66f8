"""Memory: what each server held and needed of it, as predicted and as measured, and over time."""

from functools import partial

from reports.measures.anatomy import PARTS, mean_parts
from reports.measures.held import Course, Held, courses_of, expected_of, held_of, pools_of, unread_of
from reports.measures.written import NOTHING, number, several
from reports.page.declared import Chart, Section, Shown, Table, Topic, below
from reports.page.drawing.kinds import Bar, stacked
from reports.page.drawing.more_kinds import of_start, over_time
from reports.page.looks import MEMORY, Of, looks, macro
from reports.words import claims as words


def _bar(held: Held) -> Bar:
    return Bar(
        Of(held.label),
        words.held_words(held),
        {name: size * words.GIB for name, size in held.pieces.items()},
        [
            (each.total_bytes * words.GIB, Of(held.label, start=each.record.repeat + 1))
            for each in held.starts
        ],
    )


def _part(name: str, held: Held) -> Shown:
    part = mean_parts(held.starts).get(name)
    return below(words.gib(part.size_bytes), *part.sources) if part else NOTHING


_PARTS = Chart[Held](
    "memory-parts",
    "Memory at its highest, by what it is for, GiB",
    held_of,
    lambda _, rows: stacked(list(map(_bar, rows)), MEMORY, "GiB", "GiB"),
    lambda _: {
        "deployment": lambda held: held.label,
        **{words.part_name(name): partial(_part, name) for name in PARTS},
        "total GiB": lambda held: below(words.gib(held.total_bytes), words.held_range(held)),
        "needed GiB": lambda held: words.gib(held.needed_bytes),
    },
    lambda held: Of(held.label),
    finding=words.held_finding,
    note="A tick is one start; the table says where each part is known from.",
    is_wide=True,
)
_PREDICTED = Table[tuple[str, str, float, float]](
    "Predicted by bench fit",
    expected_of,
    lambda run: {
        "deployment": lambda row: macro("dep", looks(run)[row[0]]),
        "part": lambda row: words.part_name(row[1]),
        "predicted": lambda row: words.gib(row[2]),
        "measured": lambda row: words.gib(row[3]),
        "error": lambda row: f"{round(100 * (row[2] / row[3] - 1.0), 1) + 0.0:+.1f} %",  # no -0.0
    },
    lambda row: Of(row[0]),
    "plain expected",
    words.PREDICTED,
)
_KV_CACHE = Table[Held](
    "KV cache: reserved and needed",
    pools_of,
    lambda run: {
        "deployment": lambda held: macro("dep", looks(run)[held.label]),
        "reserved GiB": lambda held: below(words.gib(held.kv.size_bytes), words.tokens(held.kv.tokens)),
        "needed GiB": lambda held: below(words.gib(held.kv.needed_bytes), words.tokens(held.kv.peak_tokens)),
        "users that fit": lambda held: number(held.kv.users, 0),
    },
    lambda held: Of(held.label),
    "plain anatomy",
    words.KV_CACHE,
)
_COURSES = Chart[Course](
    "memory",
    "",
    courses_of,
    lambda run, rows: over_time(
        looks(run)[rows[0].label], rows, "GiB", words.GIB, max(each.peak_bytes for each in courses_of(run))
    ),
    lambda _: {
        "deployment": lambda course: course.label,
        "start": lambda course: course.title,
        "peak GiB": lambda course: words.gib(course.peak_bytes, 2),
        "end GiB": lambda course: words.gib(float(course.size_bytes[-1]), 2),
    },
    of_start,
    each=lambda course: course.label,
)
_UNREAD = Table[tuple[str, list[str]]](
    "What could not be read",
    unread_of,
    lambda _: {"what": lambda pair: pair[0], "starts": lambda pair: several(pair[1])},
    look="words",
)
HELD = Topic(
    "memory-held",
    words.held_title,
    [_PARTS, _PREDICTED, _KV_CACHE],
    words.held_claim,
    words.SOURCES,
)
OVER_TIME = Topic(
    "memory-over-time",
    "Over time",
    [_COURSES, _UNREAD],
    words.course_claim,
    lambda run: words.OVER_TIME if courses_of(run) else "",
)
SECTION = Section("memory", "Memory", [HELD, OVER_TIME])
