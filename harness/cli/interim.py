"""What a run asks of its values while it goes on: the Statistics that harness/run cannot import.

pandas is imported when it is first asked.
"""

from collections.abc import Sequence
from pathlib import Path

from serving_bench.harness.contracts import Objective, Precision, Race, Standing
from serving_bench.harness.run.search import Trial


def precisions(directory: Path, metric: str) -> Sequence[Precision]:
    from serving_bench.reports.measures import over_starts

    return over_starts.precisions(directory, metric)


def standings(directory: Path, repeats: int) -> Sequence[Standing]:
    from serving_bench.reports.words import report

    return report.standings(directory, repeats)


def look(directory: Path, repeats: int) -> Race:
    from serving_bench.reports.verdicts import race

    return race.look(directory, repeats)


def trial(directory: Path, load: float, numbers: Sequence[int], slo: Sequence[Objective]) -> Trial:
    from serving_bench.reports.measures import slo as objectives

    outcome = objectives.trial(directory, numbers, slo)
    return Trial(load, outcome.verdict, outcome.meets, len(numbers), outcome.words, outcome.problem)
