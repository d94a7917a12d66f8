"""How well the deployments of two runs answer: each against its own reference, and B against A itself.

Says what only one side was asked, and how to ask the other. Knows no limits and no outcomes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving_bench.harness.contracts import Fact, because
from serving_bench.reports.data import heard_of
from serving_bench.reports.measures import NOTHING
from serving_bench.reports.measures.quality import Quality, TaskScore, nearness, quality_of, scores_of
from serving_bench.reports.two_runs.matching import Side
from serving_bench.reports.verdicts import Names, pair_name
from serving_bench.reports.words.quality import HEADS, against, cells, flips_text, score


@dataclass(frozen=True)
class Answers:
    """How well a deployment answers in A and in B, and how near B is to A itself.

    `deployment`: as in ComparedCase; `names`: as in Pair. `a`, `b` and `b_to_a` are None if its tokens were
    not asked for. `scores`: in A and in B, for each task that either was asked; the flips of B are against A.
    """

    deployment: str
    names: Names
    a: Quality | None
    b: Quality | None
    b_to_a: Quality | None
    scores: Mapping[str, tuple[TaskScore | None, TaskScore | None]]

    @property
    def missing(self) -> list[Fact]:
        """Return which sides were not asked for their tokens."""
        return [
            because("quality_not_asked", side=name)
            for name, answers in zip(self.names, (self.a, self.b), strict=True)
            if answers is None
        ]

    @property
    def figures(self) -> dict[str, tuple[str, ...]]:
        """Return by figure the texts for A, B, and B against A; empty if neither side was asked."""
        columns = [[cell.plain for cell in cells(each)] for each in (self.a, self.b, self.b_to_a)]
        of_tokens = dict(zip(HEADS, zip(*columns, strict=True), strict=True)) if self.a or self.b else {}
        return of_tokens | {
            task: (
                *(score(each).plain if each else NOTHING for each in pair),
                flips_text(pair[1].flips) if pair[1] and pair[1].flips else NOTHING,
            )
            for task, pair in self.scores.items()
        }

    @property
    def rows(self) -> list[dict[str, str]]:
        """Return the figures by column."""
        heads = ("quality", "A", "B", "B against A")
        return [dict(zip(heads, (name, *texts), strict=True)) for name, texts in self.figures.items()]

    @property
    def notes(self) -> list[str]:
        """Return what each side is held against, and why something is not known."""
        a, b = self.names
        qualities = {a: self.a, b: self.b, f"{b} against {a}": self.b_to_a}
        return [
            *(map(str, self.missing) if self.a or self.b else []),
            *(f"{n}: {against(each)}" for n, each in qualities.items() if each and not each.is_reference),
            *(
                str(because("task_not_asked", task=task, side=self.names[pair.index(None)]))
                for task, pair in self.scores.items()
                if None in pair
            ),
        ]


def answers_of(sides: tuple[Side, Side], names: Names) -> list[Answers]:
    """Return how each deployment of the second side answers, with the same one of the first."""
    first, second = sides
    labels = [label for label in second.run.deployments if second.label in (None, label)]
    return [_answers(sides, (first.label or label, label), names) for label in labels]


def _answers(sides: tuple[Side, Side], labels: Names, names: Names) -> Answers:
    heard = [heard_of(side.run).get(label) for side, label in zip(sides, labels, strict=True)]
    a, b = (
        quality_of(side.run)[label] if each and each.is_asked else None
        for side, label, each in zip(sides, labels, heard, strict=True)
    )
    base, heard_one = heard
    base = base and replace(base, name=f"{labels[0]} of {names[0]}")
    b_to_a = nearness(heard_one, base) if base and heard_one and a and b else None
    before, after = scores_of(base), scores_of(heard_one, base)
    scores = {task: (before.get(task), after.get(task)) for task in {**before, **after}}
    return Answers(pair_name(labels), names, a, b, b_to_a, scores)
