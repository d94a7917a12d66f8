"""Quality: how near answers are to the reference's, and whether a server answers the same again."""

from functools import partial

from reports.checks.unequal_work import BECAME
from reports.measures.quality import asked_again, fidelities, task_scores
from reports.page.cells import fidelity_columns
from reports.page.declared import Chart, Notes, Table, Topic, below
from reports.page.drawing.more_kinds import still_same
from reports.page.looks import Of, looks, named, prose
from reports.page.sections.front import FRONT
from reports.words import quality as words

FIDELITY = Topic(
    "fidelity",
    "Quality",
    [
        Table("Fidelity", fidelities, fidelity_columns, lambda row: Of(row[0].label), is_bare=True),
        Chart(
            "answers-same",
            "Answers that are still the reference's",
            lambda run: [row for row in fidelities(run) if row[1] and row[1].same],
            lambda run, rows: still_same(looks(run), {row[0].label: row[1].same for row in rows if row[1]}),
            fidelity_columns,
            lambda row: Of(row[0].label),
            note="Of greedy answers (Kaplan and Meier); one that is cut counts for as long as it lasts.",
        ),
        FRONT,
        Table(
            "The same prompts again",
            asked_again,
            lambda run: {
                "deployment": lambda row: named(looks(run)[row[0]]),
                "at once": lambda row: str(row[2]),
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
