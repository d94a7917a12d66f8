"""What runs of deployments that are the same say, and what later runs make of it."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from drawn_run import planned_run, with_values
from make_run import deployment

from serving_bench.harness.contracts import AlikeTest, CompareTerms, Figure, StartNoise
from serving_bench.harness.errors import StoreError
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.verdicts.alike import alike_of, alike_run
from serving_bench.reports.verdicts.decisions import decisions_of
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.grounds import client_notes

SPEED = "output_tokens_per_s"
REST = ("ttft_s.p50", "tpot_s.p50", "e2e_s.p50", "memory_peak_bytes")
NONE = Figure(0.0, 0.0, 0.01)


def alike(*, lag=NONE, of_run=NONE, levels=0.0) -> AlikeTest:
    starts = StartNoise(Figure(0.04, 0.03, 0.05), lag, of_run, NONE)
    return AlikeTest(
        "2026-12-05T10:00:00+00:00", "0.1.0", {}, {}, "llama_cpp gguf-q4_0", 200,
        Figure(0.02, 0.01, 0.04), Figure(0.1, 0.05, 0.2), 0.05, {SPEED: starts}, levels,
    )  # fmt: skip


class Runs:
    """Runs of two deployments whose speeds are given, on a machine of which this is known."""

    def __init__(self, known: AlikeTest | None, repeats: int = 5) -> None:
        made = [replace(deployment("llama_cpp", "fp16", "m"), label=label) for label in "ab"]
        facts = {"alike": msgspec.to_builtins(known)} if known else {}
        terms = {"compare": CompareTerms(metrics=(SPEED,)), "settings": {"compare.metric": (SPEED,)}}
        self.base, self.repeats = planned_run(made, repeats, environment=facts, **terms), repeats

    def of(self, a, b):
        rest = dict.fromkeys("ab", [1.0] * self.repeats)
        return with_values(self.base, dict.fromkeys(REST, rest) | {SPEED: {"a": list(a), "b": list(b)}})

    def kind(self, a, b):
        [decision] = decisions_of(self.of(a, b))
        return decision.kind


def dependent(rng, lag: float) -> np.ndarray:
    logs = rng.normal(0, 0.04, (2, 5))
    for place in range(1, 5):
        logs[:, place] = lag * logs[:, place - 1] + math.sqrt(1 - lag**2) * logs[:, place]
    return 100 * np.exp(logs + rng.normal(0, 0.05, 5))


def test_starts_that_depend_on_each_other_name_no_wrong_one_once_it_is_known():
    wrong = {}
    for what, known in {"not": None, "known": alike(lag=Figure(0.5, 0.4, 0.6))}.items():
        rng, runs = np.random.default_rng(4), Runs(known)
        wrong[what] = np.mean([runs.kind(*dependent(rng, 0.5)) in ("named", "slight") for _ in range(500)])
    assert wrong["not"] > 0.12
    assert wrong["known"] <= 0.05


A, B = [110, 112, 109, 111, 110], [100, 101, 99, 100, 100]


def test_a_lead_that_a_run_explains_is_not_named():
    assert Runs(alike()).kind(A, B) == "named"
    assert Runs(alike(of_run=Figure(0.05, 0.04, 0.06))).kind(A, B) == "open"
    # What may be 0 widens nothing.
    assert Runs(alike(of_run=Figure(0.05, 0.0, 0.06))).kind(A, B) == "named"


def test_beside_two_levels_of_starts_no_smaller_lead_is_named_and_both_are_said():
    slow = [100, 75, 101, 99, 100, 76, 99], [91, 90, 69, 92, 90, 91, 68]
    run = Runs(None, 7).of(*slow)
    [decision], [answer] = decisions_of(run), answers_of(run)
    assert decision.kind == "open"
    assert decision.advised is None
    assert "Starts here have two levels, 3" in answer.rest
    assert "more of them would not settle it" in answer.advice
    [finding] = [each for each in findings_of(run) if each.title == "Starts have two levels"]
    assert "output tokens/s are 3" in finding.text
    assert Runs(None, 7).kind([3 * value for value in slow[0]], slow[1]) == "named"


def test_levels_that_are_known_of_the_machine_count_where_a_run_shows_none():
    assert Runs(alike(levels=0.3)).kind(A, B) == "open"
    assert Runs(alike(levels=0.05)).kind(A, B) == "named"


def test_the_page_quotes_what_was_measured():
    notes = " ".join(client_notes(Runs(alike(lag=Figure(0.5, 0.4, 0.6))).base))
    assert "in 200 short runs of llama_cpp gguf-q4_0 on this machine (2026-12-05)" in notes
    assert "2.0 % [1.0, 4.0] (at most 5.0 % are claimed)" in notes
    assert "correlate with the next start's by 0.50 [0.40, 0.60]" in notes
    assert not any("the same" in note for note in client_notes(Runs(None).base))


def test_a_damaged_result_is_said():
    run = Runs(None).base
    environment = {"alike": {"runs": "many"}}
    with pytest.raises(StoreError, match=r"damaged \(environment.alike"):
        client_notes(replace(run, record=replace(run.record, environment=environment)))


def test_runs_that_are_the_same_are_counted_with_their_names_and_noise():
    rng, runs = np.random.default_rng(6), Runs(None)
    found = [alike_run(runs.of(*(100 * np.exp(rng.normal(0, 0.04, (2, 5)))))) for _ in range(60)]
    wrong = alike_run(runs.of(A, B))
    assert (wrong.kind, wrong.wrong) == ("named", 0.04)
    together = alike_of([*found, wrong])
    names = sum(each.kind in ("named", "slight") for each in found) + 1
    assert (together.runs, together.named.value) == (61, names / 61)
    assert together.by_metric[SPEED].noise.low < 0.04 < together.by_metric[SPEED].noise.high
    assert together.levels == 0
    assert alike_run(Runs(None, 2).of([100, 101], [99, 100])) is None
