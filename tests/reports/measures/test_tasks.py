"""Scores of tasks by deployment, and which items a deployment answers otherwise than its reference."""

from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from make_quality import Voice, ask
from make_tasks import FP16, Q4, answered, answers
from repeated_run import sentences

from serving_bench.harness.contracts import QualityTerms
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import TASKS_FILE
from serving_bench.harness.store.quality_table import write_items
from serving_bench.reports import open_run
from serving_bench.reports.measures.quality import beyond_limit, task_scores


def test_a_score_is_the_share_of_right_items_with_wilsons_interval(tmp_path: Path) -> None:
    (found,) = task_scores(answered(tmp_path, {Q4.label: answers("r" * 45 + "w" * 15 + "-" * 5)}))
    assert (found.label, found.task, found.items, found.scored) == (Q4.label, "bench-basics", 65, 60)
    assert found.score == 0.75
    z, n = 1.959964, 60
    middle, half = 0.75 + z * z / 2 / n, z * sqrt(0.75 * 0.25 / n + (z / 2 / n) ** 2)
    by_hand = [(middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert found.interval == pytest.approx(by_hand, abs=1e-6)


def test_a_flip_is_an_item_that_its_reference_answers_otherwise(tmp_path: Path) -> None:
    before = "r" * 8 + "w" + "rrr" + "ww" + "-r"
    after = "w" * 8 + "r" + "rrr" + "ww" + "r-"
    run = answered(tmp_path, {FP16.label: answers(before), Q4.label: answers(after)})
    flips = {each.label: each.flips for each in task_scores(run)}
    assert flips[FP16.label] is None
    assert (flips[Q4.label].against, flips[Q4.label].items) == (FP16.label, 14)
    assert (flips[Q4.label].broken, flips[Q4.label].mended) == (8, 1)
    # Of nine coins at most one falls the other way, in either direction: 2 (1 + 9) / 2^9.
    assert flips[Q4.label].p == pytest.approx(20 / 512)


def test_no_flip_is_no_evidence(tmp_path: Path) -> None:
    run = answered(tmp_path, dict.fromkeys((FP16.label, Q4.label), answers("rrww")))
    assert [each.flips.p for each in task_scores(run) if each.flips] == [1.0]


def test_an_item_that_was_asked_in_other_words_is_no_flip(tmp_path: Path) -> None:
    run = answered(tmp_path, {FP16.label: answers("rr"), Q4.label: answers("ww", prompt="b")})
    (flips,) = (each.flips for each in task_scores(run) if each.flips)
    assert (flips.items, flips.broken) == (0, 0)


def test_a_score_between_right_and_wrong_has_a_mean_and_no_flips(tmp_path: Path) -> None:
    items = {FP16.label: answers("hhrw", "f1"), Q4.label: answers("hhrr", "f1")}
    found = {each.label: each for each in task_scores(answered(tmp_path, items))}
    assert found[Q4.label].score == 0.75
    # Mean 0.75, standard error 0.1443, 3 degrees of freedom: t = 3.1824.
    assert found[Q4.label].interval == pytest.approx((0.2906, 1.2094), abs=1e-3)
    assert (found[Q4.label].flips.items, found[Q4.label].flips.mended) == (2, 1)


def test_the_reference_of_its_probabilities_is_that_of_its_items(tmp_path: Path) -> None:
    items = dict.fromkeys((FP16.label, Q4.label), answers("rw"))
    found = task_scores(answered(tmp_path, items, Voice()))
    assert [each.flips.against for each in found if each.flips] == [FP16.label]


def test_items_of_an_earlier_run_may_be_the_reference(tmp_path: Path) -> None:
    terms = QualityTerms(against="results/before")
    run = answered(tmp_path, {Q4.label: answers("wr")}, Voice(), quality=terms)
    kept = tmp_path / store.REFERENCE
    store.write_record(kept / "start.json", replace(run.start_records[0], deployment=FP16))
    ask(kept, Voice())
    write_items(kept / TASKS_FILE, answers("rr"))
    (flips,) = (each.flips for each in task_scores(open_run(tmp_path)))
    assert flips is not None
    assert (flips.against, flips.broken) == ("llama_cpp fp16 of an earlier run", 1)


def test_without_answers_there_is_no_score(tmp_path: Path) -> None:
    assert task_scores(answered(tmp_path, {})) == []
    (found,) = task_scores(answered(tmp_path / "more", {Q4.label: answers("--")}))
    assert (found.scored, found.score, found.interval) == (0, None, None)


def test_who_is_not_known_to_score_enough_cannot_win(tmp_path: Path) -> None:
    items = {FP16.label: answers("r" * 90 + "w" * 10), Q4.label: answers("r" * 80 + "w" * 20)}
    run = answered(tmp_path, items, quality=QualityTerms(least_score_share=0.8))
    # Of 90 in 100 Wilson's lower end is 0.826, of 80 it is 0.711.
    why = "80.0 % of bench-basics right, at least 71.1 %: not known to reach quality.least_score=0.8"
    assert sentences(beyond_limit(run)) == {Q4.label: why}
    assert beyond_limit(answered(tmp_path / "any", items)) == {}
