"""What is decided of a run: who is named, who is a contender, by which values, at which level."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import deployment
from repeated_run import Made, repeated_run, sentences

from serving_bench.harness.contracts import (
    CompareTerms,
    Deployment,
    EngineTerms,
    GuardFinding,
    Load,
    Objective,
    because,
    quoted,
)
from serving_bench.harness.errors import StoreError
from serving_bench.reports import open_run
from serving_bench.reports.stats.intervals import level_of_look, repeats_to_tell
from serving_bench.reports.verdicts.comparisons import comparisons_of
from serving_bench.reports.verdicts.decisions import Decision, decisions_of, primary_metric
from serving_bench.reports.words.answer import answers_of

FOUR = (Load(concurrency=4),)
Q8, Q4, VLLM = (
    deployment("llama_cpp", "gguf-q8_0"),
    deployment("llama_cpp", "gguf-q4_0"),
    deployment("vllm", "bf16"),
)
FAST, MIDDLE, SLOW = Made(Q8, 0.8, 0.6), Made(Q4, 0.9, 0.5), Made(VLLM, 1.0, 3.0)
UNSTEADY = (1.0, 1.1, 0.95, 1.06, 0.97)


def decided(path: Path, made: Sequence[Made], loads: Sequence[Load] = FOUR, **given: Any) -> Decision:
    [found] = decisions_of(open_run(repeated_run(path, made, loads, **given)))
    return found


def labels(made: Decision) -> list[str]:
    return [group.deployment for group in made.groups]


@pytest.mark.parametrize("names", [("tokens",), ("ttft_s.p42",), ()])
def test_a_record_that_compares_by_no_metric_is_damaged(tmp_path, names):
    path = repeated_run(tmp_path / "run", [FAST, MIDDLE], FOUR, compare=CompareTerms(metrics=names))
    with pytest.raises(StoreError, match=r"run.json: damaged \(compare.metrics: no metric "):
        comparisons_of(open_run(path))


def test_the_leader_that_beats_each_other_one_is_named_with_leaders_of_other_metrics(tmp_path):
    made = decided(tmp_path, [SLOW, FAST, MIDDLE], (Load(concurrency=1), *FOUR))
    assert made.kind == "named"
    assert (made.metric, made.case.load, made.repeats) == ("output_tokens_per_s", "4 users", 5)
    assert labels(made) == ["llama_cpp gguf-q8_0", "llama_cpp gguf-q4_0", "vllm bf16"]
    assert made.best.alpha == 0.04
    assert made.best.over["vllm bf16"].shown == pytest.approx(1.25, abs=0.02)
    assert made.leaders["memory_peak_bytes"] == "llama_cpp gguf-q4_0"
    assert made.leaders["ttft_s.p50"] == "llama_cpp gguf-q8_0"


def test_a_ratio_to_the_leader_has_the_interval_of_its_test(tmp_path):
    made = decided(tmp_path, [FAST, MIDDLE, replace(SLOW, per_repeat=UNSTEADY)])
    value, low, high = made.ratio_to_leader("vllm bf16")
    tested = made.best.lead_over("vllm bf16")
    assert (low, high) == pytest.approx((1 / tested[1], 1 / tested[0]))
    assert low < value < high < 1
    assert made.ratio_to_leader("llama_cpp gguf-q8_0") is None


def test_two_that_no_test_tells_apart_are_too_close_with_the_repeats_that_would_tell(tmp_path):
    made = decided(tmp_path, [replace(FAST, slow=0.85, per_repeat=UNSTEADY), MIDDLE, SLOW])
    assert (made.kind, made.leader) == ("open", None)
    assert made.best.nearest == "llama_cpp gguf-q4_0"
    assert made.advised > 5


def test_a_lead_within_the_margin_is_said_to_be_slight(tmp_path):
    made = decided(tmp_path, [replace(FAST, slow=0.88), MIDDLE])
    assert made.kind == "slight"
    assert 1 < made.best.lead_over(made.best.nearest)[0] <= 1.05


def test_those_within_the_margin_of_the_leader_are_the_same(tmp_path):
    steady = (1.0, 1.004, 0.998, 1.001, 0.997)
    assert decided(tmp_path, [replace(FAST, slow=0.9, per_repeat=steady), MIDDLE]).kind == "same"


@pytest.mark.parametrize(("repeats", "kind"), [(1, "values"), (2, "values"), (3, "named")])
def test_three_repeats_are_the_fewest_that_name_one(tmp_path, repeats, kind):
    assert decided(tmp_path, [FAST, SLOW], repeats=repeats).kind == kind


def died(
    lost: Deployment, repeats: Sequence[int], status: str = "failed", error: str = "it died"
) -> dict[str, Any]:
    """The starts of one deployment died in these repeats."""
    return {
        "cell_changes": lambda cell, start: (
            {"status": status, "error": error} if start.deployment == lost and start.repeat in repeats else {}
        )
    }


STAND_IN = {
    "start_changes": lambda start: {"resolved": {"kernel_stand_in": "x"}} if start.deployment == Q4 else {}
}


@pytest.mark.parametrize(
    ("given", "repeats", "why"),
    [(died(Q4, range(5)), 5, "it failed: it died"),
     (died(Q4, range(5), "interrupted", "interrupted"), 5, "interrupted"),
     (died(Q4, range(1, 5)), 5, "only 1 of its starts have a value"),
     (died(Q4, [1]), 4, None),
     (STAND_IN, 5, "its kernels are stand-ins, so its speed is not the engine's: x")],
)  # fmt: skip
def test_contenders_have_values_and_kernels_of_their_own_and_repeats_count_that_all_have(
    tmp_path, given, repeats, why
):
    made = decided(tmp_path, [FAST, MIDDLE, SLOW], **given)
    assert (made.kind, made.repeats) == ("named", repeats)
    assert sentences(made.left_out) == ({"llama_cpp gguf-q4_0": why} if why else {})


SEEN = GuardFinding("foreign_load", quoted("other programs used 60 % of the cores"), "during", "suspect")


@pytest.mark.parametrize(("disturbed", "kind"), [({1}, "named"), ({0, 1, 2}, "values")])
def test_a_repeat_that_was_disturbed_is_left_out(tmp_path, disturbed, kind):

    def changes(cell, start):
        return {"guard": (SEEN,)} if start.repeat in disturbed else {}

    made = decided(tmp_path, [FAST, MIDDLE], cell_changes=changes)
    assert (made.kind, made.repeats, made.disturbed) == (kind, 5 - len(disturbed), len(disturbed))
    if kind == "values":
        assert str(made.why) == (
            "the machine was busy or not fit in 3 of 5 repeats, and a verdict needs 3 that were not"
        )


def longer(tokens: int) -> Any:
    return lambda number: {"input_tokens": tokens}


def test_prompts_that_differ_half_and_half_give_no_verdict_and_the_reason_whatever_the_order(tmp_path):
    made = [replace(each, changes=longer(80)) for each in (FAST, MIDDLE)]
    other = Made(deployment("vllm", "awq"), 1.2)
    for at, order in enumerate(([*made, SLOW, other], [SLOW, other, *made])):
        found = decided(tmp_path / str(at), order)
        assert (found.kind, found.served, len(found.groups)) == ("values", None, 4)
        assert str(found.why).startswith("their prompts are not the same: at 4 users, turn 1")
    # One beside two is the odd one.
    found = decided(tmp_path / "odd", [made[0], replace(MIDDLE, deployment=other.deployment), SLOW])
    assert (found.kind, list(found.left_out)) == ("named", ["llama_cpp gguf-q8_0"])


def test_answers_of_a_tenth_of_the_length_and_another_context_give_no_verdict(tmp_path):
    short = replace(FAST, changes=lambda number: {"output_tokens": 1})
    found = decided(tmp_path / "short", [short, SLOW])
    assert (found.kind, str(found.why)) == (
        "values",
        "their answers have different numbers of tokens: 1 (llama_cpp gguf-q8_0) and 10 (vllm bf16)",
    )
    small, large = (
        replace(each, deployment=replace(each.deployment, terms=EngineTerms(context_length=n)))
        for each, n in ((FAST, 2048), (SLOW, 8192))
    )
    found = decided(tmp_path / "context", [small, large])
    assert found.kind == "values"
    assert "their contexts have different numbers of tokens: 2,048" in str(found.why)


def test_values_that_never_vary_are_the_same_within_the_margin_and_told_beyond_it(tmp_path):
    asked = {
        "compare": CompareTerms(metrics=("memory_peak_bytes",)),
        "settings": {"compare.metric": ["memory_peak_bytes"]},
    }
    near, far = replace(FAST, memory=1.0), replace(SLOW, memory=1.03)
    assert decided(tmp_path / "near", [near, far], **asked).kind == "same"
    assert decided(tmp_path / "far", [near, replace(far, memory=1.5)], **asked).kind == "named"


def test_one_that_is_even_with_the_leader_keeps_it_from_being_named(tmp_path):
    """The values never vary: two lie 0.3 % apart, the third far off."""
    asked = {
        "compare": CompareTerms(metrics=("memory_peak_bytes",)),
        "settings": {"compare.metric": ["memory_peak_bytes"]},
    }
    made = [replace(FAST, memory=1.0), replace(MIDDLE, memory=1.003), replace(SLOW, memory=2.0)]
    found = decided(tmp_path / "primary", made, **asked)
    assert (found.kind, found.best.even) == ("open", ["llama_cpp gguf-q4_0"])
    assert "memory_peak_bytes" not in decided(tmp_path / "other", made).leaders
    far = [made[0], replace(made[1], memory=1.5), made[2]]
    assert decided(tmp_path / "far", far).leaders["memory_peak_bytes"] == "llama_cpp gguf-q8_0"


def test_of_several_the_pair_that_is_hardest_to_tell_apart_is_shown_with_its_advice(tmp_path):
    """The noisy one has the least lower bound, the near one the largest p."""
    near = replace(MIDDLE, slow=0.81, per_repeat=(1.0, 1.02, 0.985, 1.015, 0.98))
    noisy = replace(SLOW, slow=1.3, per_repeat=(1.0, 2.2, 0.7, 1.3, 0.8))
    run = open_run(repeated_run(tmp_path, [FAST, near, noisy], FOUR))
    [made], [said] = decisions_of(run), answers_of(run)
    assert (made.kind, made.best.nearest, made.best.even[0]) == ("open", "vllm bf16", "llama_cpp gguf-q4_0")
    assert f"The first has {made.best.over['llama_cpp gguf-q4_0'].shown:.2f}" in said.text
    assert said.lead.startswith("Too close to call: llama_cpp gguf-q8_0 or llama_cpp gguf-q4_0")


def test_a_server_that_ran_already_gives_values_only(tmp_path):
    made = decided(tmp_path, [FAST, SLOW], start_changes=lambda start: {"attached": True})
    assert made.kind == "values"
    assert made.why == because("not_restarted")


def test_with_an_slo_those_known_to_keep_it_are_the_contenders(tmp_path):
    # TTFT is 80 to 88 ms of the fast one, 90 to 99 and 100 to 110 of the others.
    slo = (Objective("ttft_s", 0.9, 0.089),)
    made = decided(tmp_path, [FAST, MIDDLE, SLOW], slo=slo)
    assert (made.kind, made.leader.deployment) == ("only", "llama_cpp gguf-q8_0")
    assert sentences(made.left_out) == {
        "llama_cpp gguf-q4_0": "whether it keeps the SLO is not clear",
        "vllm bf16": "it misses the SLO",
    }


def test_a_further_look_is_held_to_what_is_left_of_the_5_percent(tmp_path):
    first = decided(tmp_path / "a", [FAST, SLOW])
    second = decided(tmp_path / "b", [FAST, SLOW], looks=(6,))
    again = decided(tmp_path / "c", [FAST, SLOW], looks=(10,))
    early = decided(tmp_path / "d", [FAST, SLOW], looks=(4, 5))
    assert [each.best.alpha for each in (first, second, again, early)] == pytest.approx(
        [0.04, 0.005, 0.04, 0.04]
    )


def test_the_advice_is_for_the_next_look_and_counts_repeats_that_are_left_out(tmp_path):
    near = [replace(FAST, slow=0.85, per_repeat=UNSTEADY), MIDDLE]

    def changes(cell, start):
        return {"guard": (SEEN,)} if start.repeat == 3 else {}

    first, later = decided(tmp_path / "a", near), decided(tmp_path / "b", near, looks=(6,))
    assert first.advised == repeats_to_tell(first.best, level_of_look(1))
    assert later.advised == repeats_to_tell(later.best, level_of_look(2)) > first.advised
    cut = decided(tmp_path / "c", near, cell_changes=changes)
    assert (cut.kind, cut.repeats) == ("open", 4)
    assert cut.advised == repeats_to_tell(cut.best, level_of_look(1)) + 1


def test_leaders_of_other_metrics_are_named_without_disturbed_repeats(tmp_path):
    """In its last repeat the fast one was slower than the other."""
    made = [replace(FAST, per_repeat=(1.0, 1.01, 0.99, 1.0, 1.5)), MIDDLE]

    def changes(cell, start):
        return {"guard": (SEEN,)} if start.repeat == 4 else {}

    calm = decided(tmp_path / "calm", made)
    cut = decided(tmp_path / "cut", made, cell_changes=changes)
    assert (calm.kind, calm.leaders.get("ttft_s.p50")) == ("open", None)
    assert (cut.kind, cut.leaders.get("ttft_s.p50")) == ("named", "llama_cpp gguf-q8_0")


def test_several_models_are_a_family_of_answers(tmp_path):
    other = (
        replace(FAST, deployment=deployment("llama_cpp", "fp16", model="other")),
        replace(SLOW, deployment=deployment("vllm", "fp16", model="other"), per_repeat=UNSTEADY),
    )
    run = open_run(repeated_run(tmp_path, [FAST, SLOW, *other], FOUR))
    made = decisions_of(run)
    assert len(made) == 2
    assert {each.kind for each in made} == {"named"}
    assert [each.best.alpha for each in made] == [0.02, 0.02]


def test_the_metric_that_was_asked_for_decides(tmp_path):
    terms = CompareTerms(metrics=("memory_peak_bytes", "output_tokens_per_s"))
    given = {"compare": terms, "settings": {"compare.metric": ["memory_peak_bytes"]}}
    made = decided(tmp_path, [FAST, MIDDLE, SLOW], **given)
    assert (made.metric, made.leader.deployment) == ("memory_peak_bytes", "llama_cpp gguf-q4_0")


@pytest.mark.parametrize(
    ("load", "metric"),
    [
        (Load(1, rate_per_s=2.0), "ttft_s.p50"),
        (Load(concurrency=None, arrival="batch", conversations=9), "output_tokens_per_s"),
    ],
)
def test_an_open_loop_is_decided_by_the_time_to_first_token_and_a_batch_by_its_rate(tmp_path, load, metric):
    run = open_run(repeated_run(tmp_path, [FAST, SLOW], (load,)))
    [made] = decisions_of(run)
    assert primary_metric(run, made.case) == metric


def test_a_deployment_whose_slow_starts_lack_requests_for_a_percentile_is_no_contender(tmp_path):
    given = {"compare": CompareTerms(metrics=("ttft_s.p50",)), "settings": {"compare.metric": ["ttft_s.p50"]}}
    # Three times as slow on two starts, on which fewer than eleven requests fit into the window.
    now_and_then = Made(Q8, 0.5, per_repeat=(1.0, 1.0, 1.0, 8.0, 8.0))
    made = decided(tmp_path, [now_and_then, SLOW], **given)
    assert labels(made) == ["vllm bf16"]
    assert made.left_out.keys() == {"llama_cpp gguf-q8_0"}


def test_the_only_one_that_is_left_needs_repeats_as_well(tmp_path):
    made = decided(tmp_path, [FAST, SLOW], repeats=1, slo=(Objective("ttft_s", 0.5, 0.089),))
    assert (made.kind, made.leader) == ("values", None)


def test_several_that_lost_their_starts_keep_nobody_from_being_named(tmp_path):
    lost = {**died(Q4, range(1, 5))}
    both = {
        "cell_changes": lambda cell, start: (
            {"status": "failed", "error": "it died"}
            if start.deployment in (Q4, VLLM) and start.repeat
            else {}
        )
    }
    other = Made(deployment("vllm", "awq"), 1.2)
    assert decided(tmp_path / "a", [FAST, MIDDLE, SLOW], **lost).kind == "named"
    made = decided(tmp_path / "b", [FAST, MIDDLE, SLOW, other], **both)
    assert (made.kind, labels(made)) == ("named", ["llama_cpp gguf-q8_0", "vllm awq"])


def test_a_load_at_which_one_start_survived_does_not_decide(tmp_path):
    def changes(cell, start):
        is_lost = start.deployment == VLLM and start.repeat and cell.load.concurrency == 4
        return {"status": "failed", "error": "it died"} if is_lost else {}

    loads = (Load(concurrency=1), *FOUR)
    [made] = decisions_of(open_run(repeated_run(tmp_path, [FAST, SLOW], loads, cell_changes=changes)))
    assert (made.case.load, made.kind) == ("1 user", "named")


def test_disturbances_of_who_is_no_contender_count_for_nothing(tmp_path):
    given = {
        **STAND_IN,
        "cell_changes": lambda cell, start: {"guard": (SEEN,)} if start.deployment == Q4 else {},
    }
    made = decided(tmp_path, [FAST, MIDDLE, SLOW], **given)
    assert (made.kind, made.disturbed) == ("named", 0)


def test_memory_of_a_card_and_of_a_host_have_no_leader(tmp_path):
    def changes(start):
        return {"memory_kind": "device", "devices": (0,)} if start.deployment == VLLM else {}

    assert "memory_peak_bytes" not in decided(tmp_path, [FAST, SLOW], start_changes=changes).leaders
