"""Quality: how near answers are to the reference's, and whether a server answers the same when asked again.

The front of speed, quality and memory has a mark for each deployment at the load shown first.
"""

from functools import partial

from serving_bench.reports.checks.unequal_work import BECAME
from serving_bench.reports.measures.quality import asked_again, fidelities, task_scores
from serving_bench.reports.page.cells import aggregate_cell, fidelity_columns
from serving_bench.reports.page.declared import Chart, Notes, Table, Topic, below, of_group
from serving_bench.reports.page.drawing.kinds import Point, plane
from serving_bench.reports.page.drawing.more_kinds import still_same
from serving_bench.reports.page.looks import Of, looks, named, prose
from serving_bench.reports.verdicts import SPEED, Stand, front_of
from serving_bench.reports.words import quality as words
from serving_bench.reports.words.claims import gib


def _point(stand: Stand) -> Point:
    at = f"KL {words.nats(stand.kl_nats)}, {gib(stand.memory_bytes)} GiB"
    if stand.kl_nats < words.LEAST_NATS:
        return Point(SPEED, of_group(stand.group), at, 0.0, stand.speed, {})
    return Point(SPEED, of_group(stand.group), at, stand.kl_nats, stand.speed, {}, stand.kl_interval)


FRONT = Chart[Stand](
    "speed-quality-memory",
    lambda run: f"Output tokens/s against KL at {front_of(run)[0].group.load}",
    front_of,
    lambda run, stands: plane(
        looks(run),
        list(map(_point, stands)),
        {each.group.deployment: each.memory_bytes for each in stands},
        "KL nats, lower is better",
    ),
    lambda _: {
        "deployment": lambda each: each.group.deployment,
        "KL nats": lambda each: below(words.nats(each.kl_nats), words.ends(each.kl_interval)),
        "output tokens/s": lambda each: aggregate_cell(SPEED, each.speed),
        "peak memory GiB": lambda each: gib(each.memory_bytes),
    },
    lambda each: of_group(each.group),
    note=words.front,
    names_ends=True,
    is_wide=True,
)


FIDELITY = Topic(
    "fidelity",
    "Quality",
    [
        Table("Fidelity", fidelities, fidelity_columns, lambda row: Of(row[0].label), is_bare=True),
        Chart(
            "answers-same",
            "Answers still identical to the reference's",
            lambda run: [row for row in fidelities(run) if row[1] and row[1].same],
            lambda run, rows: still_same(looks(run), {row[0].label: row[1].same for row in rows if row[1]}),
            fidelity_columns,
            lambda row: Of(row[0].label),
            note="Kaplan-Meier estimate over greedy answers; one that is cut off counts up to its end.",
        ),
        FRONT,
        Table(
            "The same prompts again",
            asked_again,
            lambda run: {
                "deployment": lambda row: named(looks(run)[row[0]]),
                "in flight": lambda row: str(row[2]),
                **{
                    head: partial(lambda each, row: str(row[3].get(each) or ""), each)
                    for each, head in BECAME.items()
                },
            },
            lambda row: Of(row[0]),
            note=prose("again"),
        ),
        Table(
            "Tasks",
            task_scores,
            lambda run: {
                "deployment": lambda row: named(looks(run)[row.label]),
                "task": lambda row: row.task,
                "score %": lambda row: below(*words.score(row)),
                **words.TASK,
            },
            lambda row: Of(row.label),
            note=prose("tasks"),
        ),
        Notes(words.notes),
    ],
    words.claim,
    prose("fidelity"),
)
