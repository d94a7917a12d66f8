"""What a look decides: who leaves a race, when an answer is decided, and what the report then says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from drawn_run import planned_run, with_values
from make_run import deployment

from serving_bench.harness.contracts import (
    CompareTerms,
    Departure,
    GuardFinding,
    PlannedStart,
    Race,
    because,
    quoted,
)
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures.equal_work import work_of
from serving_bench.reports.verdicts import comparisons_of
from serving_bench.reports.verdicts.decisions import Decision, decisions_of
from serving_bench.reports.verdicts.race import courses_of, race_after
from serving_bench.reports.words.answer import answers_of

SPEED, ANSWER = "output_tokens_per_s", ("chat_multi_turn", "m", "")
FAST, NEXT, SLOW = [120.0, 121.0, 119.5, 120.5], [100.0, 101.0, 100.5, 99.5], [60.0, 61.0, 60.5, 59.5]
SEEN = GuardFinding("foreign_load", quoted("others used 60 %"), "during", "suspect")
REFUSED = {"status": "failed", "error": because("not_fit", facts=())}
DIED = {"status": "failed", "error": quoted("it died")}


def race_of(values: Mapping[str, Sequence[float]], looks: int, **changes: Any) -> Run:
    """A run of which the looks before this one decided nothing, with the values of a label by repeat."""
    cells = changes.pop("cells", lambda start: {})
    made = [replace(deployment("llama_cpp", "fp16", "m"), label=label) for label in values]
    blocks = max(map(len, values.values()))
    run = planned_run(
        made, blocks, cells, compare=CompareTerms(metrics=(SPEED,)), settings={"compare.metric": (SPEED,)}
    )
    race = replace(Race.of(3, 12, list(values)), looks=tuple(range(1, looks + 1)), **changes)
    had = tuple(c for c in run.planned_cells if c.planned.repeat < len(values[c.label]))
    run = replace(
        run, record=replace(run.record, plan=replace(run.record.plan, race=race)), planned_cells=had
    )
    run.__dict__.update(requests=planned_run(made, 1).requests, found_once={})
    run.found_once[work_of.__wrapped__,] = work_of(run)
    padded = {label: [*own, *[1.0] * (blocks - len(own))] for label, own in values.items()}
    rest = dict.fromkeys(
        ("ttft_s.p50", "tpot_s.p50", "memory_peak_bytes"), dict.fromkeys(values, [1.0] * blocks)
    )
    return with_values(run, {**rest, SPEED: padded})


def decision_of(run: Run) -> Decision:
    [decision] = decisions_of(run)
    return decision


def again(run: Run, race: Race) -> Run:
    """The same run with what a look decided."""
    made = replace(run, record=replace(run.record, plan=replace(run.record.plan, race=race)))
    kept = {key: found for key, found in run.found_once.items() if len(key) == 1 and key[0] is not None}
    known = ("values_of", "work_of")
    made.__dict__.update(
        run.__dict__, found_once={k: v for k, v in kept.items() if k[0].__name__ in known}, record=made.record
    )
    return made


def test_those_that_the_leader_beats_leave_and_the_last_one_is_named() -> None:
    run = race_of({"fast": FAST[:3], "next": NEXT[:3], "slow": SLOW[:3]}, 3)
    race = race_after(run)
    assert [(each.label, each.behind, each.after) for each in race.left] == [
        ("next", "fast", 3),
        ("slow", "fast", 3),
    ]
    assert str(race.left[0].why) == "behind fast after 3 repeats"
    assert (race.going, race.ended) == ((), ((ANSWER, 3),))
    decision = decision_of(again(run, race))
    assert (decision.kind, decision.served) == ("named", "fast")
    assert decision.best
    assert decision.best.wrong == pytest.approx(0.04)
    level = race.levels[2]
    assert decision.best.left == pytest.approx({"next": level / 3, "slow": level / 3})


def test_nobody_is_beaten_before_the_third_repeat_and_a_part_of_a_repeat_is_not_looked_at() -> None:
    run = race_of({"fast": FAST[:2], "next": NEXT[:2]}, 2)
    assert race_after(run).going == ("fast", "next")
    assert str(decision_of(run).why) == "a race decides after 3 repeats at the earliest, here 2"
    cut = race_of({"fast": [*FAST[:3], 1.0], "next": NEXT[:3]}, 3)
    whole = race_of({"fast": FAST[:3], "next": NEXT[:3]}, 3)
    assert decision_of(cut).best == decision_of(whole).best


def test_a_pair_uses_the_repeats_that_both_have_and_a_departure_costs_nobody_else() -> None:
    left = (Departure("slow", ANSWER, 3, because("beaten", behind="next", repeats=3), "next"),)
    run = race_of({"fast": FAST, "next": NEXT, "slow": SLOW[:3]}, 4, left=left)
    best = decision_of(run).best
    assert best
    assert {label: each.k for label, each in best.over.items()} == {"next": 4, "slow": 3}
    rows = comparisons_of(run).by_key
    both = rows["chat_multi_turn", "4 users", SPEED, "slow", "fast"]
    race = run.record.plan.race
    assert race
    assert (both.k, both.confidence) == (3, pytest.approx(1 - race.levels[2] / 3))
    other = rows["chat_multi_turn", "4 users", SPEED, "next", "fast"]
    assert other.confidence == pytest.approx(1 - race.levels[3] / 3)
    assert [(each.group.deployment, len(each.looks)) for each in courses_of(run, decision_of(run))] == [
        ("next", 2), ("slow", 1),
    ]  # fmt: skip


def test_a_disturbed_repeat_drops_only_pairs_with_it() -> None:
    def seen(start: PlannedStart) -> dict[str, Any]:
        return {"guard": (SEEN,)} if (start.deployment.label, start.repeat) == ("slow", 1) else {}

    best = decision_of(race_of({"fast": FAST, "next": NEXT, "slow": SLOW}, 4, cells=seen)).best
    assert best
    assert {label: each.k for label, each in best.over.items()} == {"next": 4, "slow": 3}


@pytest.mark.parametrize(("died", "leaves"), [(DIED, True), (REFUSED, False)])
def test_a_second_failed_start_ends_a_deployment_unless_the_machine_was_refused(
    died: dict[str, Any], leaves: bool
) -> None:
    cells = {"cells": lambda start: died if start.deployment.label == "next" else {}}
    assert race_after(race_of({"fast": FAST[:1], "next": NEXT[:1]}, 1, **cells)).left == ()
    race = race_after(race_of({"fast": FAST[:2], "next": NEXT[:2]}, 2, **cells))
    assert [str(each.why) for each in race.left] == ["it failed in 2 of 2 starts"] * leaves
    # The other one is measured as often as the least, so that its own values have an interval.
    assert race.going == (("fast",) if leaves else ("fast", "next"))


def test_one_that_is_kept_stays_to_the_end_and_is_in_nobodys_way() -> None:
    noisy = [110.0, 130.0, 100.0, 125.0]
    values = {"fast": FAST, "noisy": noisy, "slow": SLOW}
    race = race_after(race_of({label: own[:3] for label, own in values.items()}, 3, kept=("slow",)))
    assert race.left == ()
    assert race.going == ("fast", "noisy", "slow")
    alone = race_after(race_of({"fast": FAST[:3], "slow": SLOW[:3]}, 3, kept=("slow",)))
    assert (alone.left, alone.going) == ((), ())


def test_all_that_are_left_may_be_the_same() -> None:
    alike = [100.1, 100.9, 100.6, 99.4]
    run = race_of({"fast": NEXT, "alike": alike, "slow": SLOW[:3]}, 4)
    left = (Departure("slow", ANSWER, 3, because("beaten", behind="fast", repeats=3), "fast"),)
    race = run.record.plan.race
    assert race
    run = again(run, replace(race, left=left))
    assert decision_of(run).kind == "same"
    assert answers_of(run)[0].lead in ("Serve fast or alike", "Serve alike or fast")
    assert race_after(run).going == ()


def test_a_race_says_the_bound_first_and_when_a_lead_is_not_certain() -> None:
    run = race_of({"fast": FAST[:3], "next": NEXT[:3]}, 3)
    said = answers_of(again(run, race_after(run)))[0]
    assert said.lead == "Serve fast"
    assert "It has at least 1." in said.gist
    assert "as measured, 96 % confidence" in said.rest
    far = [118.0, 70.0, 90.0, 40.0]
    run = race_of({"fast": FAST, "far": far, "slow": SLOW}, 4)
    why = because("beaten", behind="fast", repeats=4)
    left = tuple(Departure(label, ANSWER, 4, why, "fast") for label in ("far", "slow"))
    race = run.record.plan.race
    assert race
    said = answers_of(again(run, replace(race, left=left, ended=((ANSWER, 4),), going=())))[0]
    assert "it left behind another, by an uncertain lead" in said.rest


def test_each_pair_leaves_out_the_repeats_that_are_disturbed_in_it() -> None:
    hit = {("slow", 1), ("next", 2)}

    def seen(start: PlannedStart) -> dict[str, Any]:
        return {"guard": (SEEN,)} if (start.deployment.label, start.repeat) in hit else {}

    run = race_of({"fast": FAST, "next": NEXT, "slow": SLOW}, 4, cells=seen)
    best = decision_of(run).best
    assert best
    assert {label: each.k for label, each in best.over.items()} == {"next": 3, "slow": 3}
    logs = [math.log(SLOW[k] / FAST[k]) for k in (0, 2, 3)]
    assert abs(best.over["slow"].mean) == pytest.approx(abs(sum(logs)) / 3)


def test_one_that_cannot_win_leaves_at_the_second_look_that_finds_it_so() -> None:
    values = {"fast": FAST[:3], "next": NEXT[:3], "unknown": [None] * 3}
    race = race_after(race_of(values, 3))  # type: ignore[arg-type]
    assert [each.label for each in race.left] == ["next"]
    assert race.doubted == (("unknown", ANSWER),)
    again_doubted = race_of(values, 3, doubted=race.doubted)  # type: ignore[arg-type]
    whys = {each.label: each.why.kind for each in race_after(again_doubted).left}
    assert whys == {"next": "beaten", "unknown": "left_out_twice"}
