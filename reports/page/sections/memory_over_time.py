"""Memory over time: a line per start of each deployment, and what could not be read."""

from reports.measures.held import Course, courses_of, unread_of
from reports.measures.written import several
from reports.page.declared import Chart, Table, Topic
from reports.page.drawing.more_kinds import of_start, over_time
from reports.page.looks import looks
from reports.words import claims

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
    lambda run: "Shaded: the windows of the first start, with their loads." if courses_of(run) else "",
)
