"""Quality: how near answers are to the reference's, and whether a server answers the same when asked again.

The front of speed, quality and memory has a mark for each deployment at the load shown first.
"""

from serving_bench.reports.checks.unequal_work import BECAME
from serving_bench.reports.data import Run
from serving_bench.reports.measures.quality import asked_again, fidelities, task_scores
from serving_bench.reports.page.cells import aggregate_cell, fidelity_cells
from serving_bench.reports.page.drawing.kinds import Point, plane
from serving_bench.reports.page.drawing.more_kinds import still_same
from serving_bench.reports.page.looks import Of, Row, looks, named, prose
from serving_bench.reports.page.parts import Chart, Notes, Table, Topic, below, of_group
from serving_bench.reports.verdicts import SPEED, Stand, front_of
from serving_bench.reports.words import quality as words
from serving_bench.reports.words.claims import gib


def fidelity(run: Run) -> Topic:
    rows = [Row(fidelity_cells(run, *each), Of(each[0].label)) for each in fidelities(run)]
    same = {each[0].label: each[1].same for each in fidelities(run) if each[1] and each[1].same}
    identical = Chart(
        "answers-same",
        "Answers still identical to the reference's",
        *still_same(looks(run), same),
        [row for row, (_, by_way) in zip(rows, fidelities(run), strict=True) if by_way and by_way.same],
        "Kaplan-Meier estimate over greedy answers; one that is cut off counts up to its end.",
    )
    return Topic(
        "fidelity",
        "Quality",
        [
            Table("Fidelity", rows, is_bare=True),
            identical,
            *([front(run)] if front_of(run) else []),
            prompts_again(run),
            tasks(run),
            Notes(words.notes(run)),
        ],
        words.claim(run),
        prose("fidelity", run),
    )


def front(run: Run) -> Chart:
    """Return the chart of speed, quality and memory of deployments that have all three."""
    stands = front_of(run)
    rows = [
        Row(
            {
                "deployment": each.group.deployment,
                "KL nats": below(words.nats(each.kl_nats), words.ends(each.kl_interval)),
                "output tokens/s": aggregate_cell(SPEED, each.speed),
                "peak memory GiB": gib(each.memory_bytes),
            },
            of_group(each.group),
        )
        for each in stands
    ]
    sizes = {each.group.deployment: each.memory_bytes for each in stands}
    return Chart(
        "speed-quality-memory",
        f"Output tokens/s against KL at {stands[0].group.load}",
        *plane(looks(run), list(map(_point, stands)), sizes, "KL nats, lower is better"),
        rows,
        words.front(stands),
        names_ends=True,
        is_wide=True,
    )


def _point(stand: Stand) -> Point:
    at = f"KL {words.nats(stand.kl_nats)}, {gib(stand.memory_bytes)} GiB"
    if stand.kl_nats < words.LEAST_NATS:
        return Point(SPEED, of_group(stand.group), at, 0.0, stand.speed, {})
    return Point(SPEED, of_group(stand.group), at, stand.kl_nats, stand.speed, {}, stand.kl_interval)


def prompts_again(run: Run) -> Table:
    rows = [
        Row(
            {
                "deployment": named(looks(run)[label]),
                "in flight": str(at_once),
                **{head: str(counts.get(each) or "") for each, head in BECAME.items()},
            },
            Of(label),
        )
        for label, _, at_once, counts in asked_again(run)
    ]
    return Table("The same prompts again", rows, note=prose("again", run))


def tasks(run: Run) -> Table:
    rows = [
        Row(
            {
                "deployment": named(looks(run)[each.label]),
                "task": each.task,
                "score %": below(*words.score(each)),
                **words.task_texts(each),
            },
            Of(each.label),
        )
        for each in task_scores(run)
    ]
    return Table("Tasks", rows, note=prose("tasks", run))
