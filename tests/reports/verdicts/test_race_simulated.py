"""How often a race names the right one, a wrong one, and how many starts it takes: METHODOLOGY.md's table.

Made-up runs whose looks go through the code that looks at a real one. Repeats have a drift of 5 % in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from drawn_run import planned_run, with_values
from make_run import deployment

from serving_bench.harness.contracts import CompareTerms, Race
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures.equal_work import work_of
from serving_bench.reports.verdicts.decisions import Decision, decisions_of
from serving_bench.reports.verdicts.race import race_after

pytestmark = pytest.mark.long
RUNS = 400
LEAST, MOST = 3, 12
SPEED = "output_tokens_per_s"
REST = (SPEED, "ttft_s.p50", "tpot_s.p50", "memory_peak_bytes")
# Claimed are 4 %. The looks depend on each other and a race may end with all the same, so fewer are wrong.
WRONG_AT_MOST, SHORT_AT_MOST = 0.04, 0.06


@dataclass(frozen=True)
class Raced:
    """What came of a race: its last decision, who left it, and how many starts it took."""

    decision: Decision
    race: Race
    starts: int

    @property
    def served(self) -> str | None:
        return self.decision.leader.deployment if self.decision.leader else None


class Races:
    """Races of deployments whose true speeds and noises are given, one after the other."""

    def __init__(self, truths: Sequence[float], noises: Sequence[float], *, has_tails: bool = False) -> None:
        self.truths, self.noises, self.has_tails = truths, noises, has_tails
        self.rng = np.random.default_rng(20261204)
        made = [replace(deployment("llama_cpp", "fp16", "m"), label=f"{k}") for k in range(len(truths))]
        self.base = planned_run(
            made, MOST, compare=CompareTerms(metrics=(SPEED,)), settings={"compare.metric": (SPEED,)}
        )

    def raced(self) -> Raced:
        size = (len(self.truths), MOST)
        z = self.rng.standard_t(3, size) / np.sqrt(3) if self.has_tails else self.rng.normal(size=size)
        logs = np.log(self.truths)[:, None] + z * np.asarray(self.noises)[:, None]
        values = 100 * np.exp(logs + self.rng.normal(0, 0.05, MOST))
        drawn = {f"{k}": own for k, own in enumerate(values.tolist())}
        race, starts = Race.of(LEAST, MOST, list(drawn)), 0
        until = dict.fromkeys(drawn, 0)
        while race.may_go_on:
            repeats = race.looked + 1
            until |= dict.fromkeys(race.going, repeats)
            starts += len(race.going)
            race = race_after(self._run(drawn, until, replace(race, looks=(*race.looks, repeats))))
        [decision] = decisions_of(self._run(drawn, until, race))
        return Raced(decision, race, starts)

    def _run(self, drawn: dict[str, list[float]], until: dict[str, int], race: Race) -> Run:
        cells = tuple(c for c in self.base.planned_cells if c.planned.repeat < until[c.label])
        plan = replace(self.base.record.plan, race=race)
        run = replace(self.base, record=replace(self.base.record, plan=plan), planned_cells=cells)
        known = {(work_of.__wrapped__,): work_of(self.base)}
        run.__dict__.update(requests=self.base.requests, found_once=known)
        rest = {label: [1.0] * MOST for label in drawn}
        return with_values(run, dict.fromkeys(REST, rest) | {SPEED: drawn})


def found(races: Races) -> tuple[float, float, float]:
    """Return the shares of races that name the first one and another one, and the mean number of starts."""
    results = [races.raced() for _ in range(RUNS)]
    is_alone = races.truths[0] > max(races.truths[1:])
    right = sum(each.served == "0" and is_alone for each in results)
    named = sum(each.served is not None for each in results)
    return right / RUNS, (named - right) / RUNS, sum(each.starts for each in results) / RUNS


# Truths, the share that names the best one, and the starts that it takes, at a noise of 4 %.
POWER = {
    "3 in steps of 10 %": ([1.21, 1.1, 1.0], 0.98, 19.3),
    "3, one leads by 10 %": ([1.1, 1.0, 1.0], 0.98, 22.7),
    "6, one leads by 10 %": ([1.1, *[1.0] * 5], 0.93, 46.9),
    "12 in steps of 5 %": ([1.05**-k for k in range(12)], 0.45, 66.8),
}


@pytest.mark.parametrize(("truths", "share", "expected"), POWER.values(), ids=POWER)
def test_a_race_names_the_best_as_often_and_with_as_few_starts_as_the_table_says(truths, share, expected):
    right, wrong, starts = found(Races(truths, [0.04] * len(truths)))
    assert right >= share - SHORT_AT_MOST
    assert wrong <= WRONG_AT_MOST
    assert starts == pytest.approx(expected, rel=0.06)


# Truths, noises and tails with which a wrong name is most likely. Of those that are alike any name is wrong.
TRAPS = {
    "two alike": Races([1.0] * 2, [0.04] * 2),
    "three alike": Races([1.0] * 3, [0.04] * 3),
    "six alike": Races([1.0] * 6, [0.04] * 6),
    "twelve alike": Races([1.0] * 12, [0.04] * 12),
    "a noisy one among three alike": Races([1.0] * 3, [0.12, 0.02, 0.02]),
    "two alike, heavy tails": Races([1.0] * 2, [0.04] * 2, has_tails=True),
    "six alike, heavy tails": Races([1.0] * 6, [0.04] * 6, has_tails=True),
}


@pytest.mark.parametrize("races", TRAPS.values(), ids=TRAPS)
def test_a_race_hardly_ever_names_a_wrong_one(races: Races) -> None:
    _, wrong, _ = found(races)
    assert wrong <= WRONG_AT_MOST


@pytest.mark.parametrize(("noise", "share"), [(0.02, 0.95), (0.03, 0.68), (0.04, 0.25)])
def test_two_that_are_alike_are_told_so_as_often_as_the_table_says(noise: float, share: float) -> None:
    races = Races([1.0] * 2, [noise] * 2)
    same = sum(races.raced().decision.kind == "same" for _ in range(RUNS)) / RUNS
    assert same >= share


def test_the_intervals_of_those_that_left_cover_their_true_ratio() -> None:
    truths = [1.03, *[1.0] * 5]
    races, covered = Races(truths, [0.04] * 6), list[bool]()
    for _ in range(RUNS):
        best = races.raced().decision.best
        assert best
        for label, alpha in best.left.items():
            low, high = best.over[label].interval(1 - alpha)
            covered.append(low <= truths[int(best.leader)] / truths[int(label)] <= high)
    assert len(covered) > RUNS / 4
    assert sum(covered) / len(covered) >= 0.95
