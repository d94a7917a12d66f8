"""Which deployments of a run are compared and what is said, from results directories with known values."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest
from make_run import deployment
from repeated_run import LOADS, Made, repeated_run
from scipy.special import stdtrit

from harness.contracts import CompareTerms, Load
from reports.data.run import open_run
from reports.verdicts.comparisons import comparisons_of

FP16, Q8 = deployment("llama_cpp", "fp16"), deployment("llama_cpp", "gguf-q8_0")
VLLM = deployment("vllm", "fp16")
ONE = (Load(concurrency=4),)
TTFT = CompareTerms(metrics=("ttft_s.p50",))
NOISE = (1.01, 1.0, 0.99, 1.0, 1.01)


def verdicts(path, made, **given):
    return comparisons_of(open_run(repeated_run(path, made, **{"loads": ONE, "compare": TTFT, **given})))


def of(found, a, b, metric="ttft_s.p50", load="4 users"):
    return found.of("chat_multi_turn", load, metric, a, b)


def test_a_ratio_is_the_mean_log_ratio_of_the_blocks_pairs_with_its_t_interval(tmp_path):
    # All starts of a block share its factor, which a ratio of pairs is free of: only NOISE is left.
    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8, per_repeat=NOISE)])
    logs = [math.log(0.8 * noise) for noise in NOISE]
    half = stdtrit(4, 0.975) * stdev(logs) / math.sqrt(5)
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16")
    assert (verdict.kind, verdict.k, verdict.confidence) == ("better", 5, 0.95)
    assert verdict.ratio == pytest.approx(math.exp(mean(logs)), rel=1e-6)
    assert (verdict.low, verdict.high) == pytest.approx(
        (math.exp(mean(logs) - half), math.exp(mean(logs) + half)), rel=1e-6
    )


def test_the_other_way_round_the_ratio_is_inverse_and_the_word_opposite(tmp_path):
    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8, per_repeat=NOISE)])
    there = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16")
    back = of(found, "llama_cpp fp16", "llama_cpp gguf-q8_0")
    assert back.kind == "worse"
    assert (back.ratio, back.low, back.high) == pytest.approx(
        (1 / there.ratio, 1 / there.high, 1 / there.low)
    )


def test_within_the_margin_it_is_the_same_and_a_wide_interval_tells_nothing(tmp_path):
    wild = (1.3, 0.8, 1.2, 0.75, 1.0)
    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 1.01, per_repeat=NOISE), Made(VLLM, per_repeat=wild)])
    assert of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16").kind == "same"
    assert of(found, "vllm fp16", "llama_cpp fp16").kind == "unknown"


def test_each_metric_at_each_load_is_a_family_of_all_pairs(tmp_path):
    made = [Made(FP16), Made(Q8, 0.8, 0.5, NOISE), Made(VLLM, 1.3, 1.0, NOISE)]
    found = verdicts(tmp_path, made, loads=LOADS, compare=CompareTerms())
    # Two deployments against the leader, at two loads, on four metrics; three pairs of each.
    assert len(found.rows) == 2 * 2 * 4
    assert found.family == 3
    assert {row.verdict.confidence for row in found.rows} == {1 - 0.05 / 3}
    speed = [(row.a, row.b) for row in found.rows if row.metric == "output_tokens_per_s"]
    assert {b for _, b in speed} == {"llama_cpp gguf-q8_0"}


def test_beside_a_baseline_that_was_asked_for_only_its_pairs_are_a_family(tmp_path):
    made = [Made(FP16), Made(Q8, 0.8, 0.5, NOISE), Made(VLLM, 1.3, 1.0, NOISE)]
    found = verdicts(tmp_path, made, compare=CompareTerms(baseline="llama_cpp fp16"))
    assert {row.b for row in found.rows} == {"llama_cpp fp16"}
    assert (found.family, {row.verdict.confidence for row in found.rows}) == (2, {1 - 0.05 / 2})


def test_the_baseline_is_the_asked_label_or_the_first_of_each_model(tmp_path):
    other = deployment("vllm", "fp16", model="other-lm")
    also = replace(deployment("vllm", "awq", model="other-lm"))
    made = [Made(each) for each in (FP16, Q8, replace(other, label="vllm other"), also)]
    asked = replace(TTFT, baseline="llama_cpp gguf-q8_0")
    found = verdicts(tmp_path, made, repeats=3, compare=asked)
    assert found.baselines == {"tiny-lm": "llama_cpp gguf-q8_0", "other-lm": "vllm other"}
    # Deployments of different models are in no comparison.
    assert {(row.a, row.b) for row in found.rows} == {
        ("llama_cpp fp16", "llama_cpp gguf-q8_0"),
        ("vllm awq", "vllm other"),
    }


def test_a_server_that_was_running_gets_no_verdict(tmp_path):
    made = [Made(FP16), Made(Q8, 0.8)]
    found = verdicts(tmp_path, made, start_changes=lambda start: {"attached": True})
    assert "was not restarted" in found.why_none
    assert {row.verdict.kind for row in found.rows} == {"none"}
    assert found.family == 0
    assert {row.verdict.ratio for row in found.rows} == {None}


def test_two_starts_give_no_verdict_and_the_reason(tmp_path):
    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8)], repeats=2)
    assert found.why_none == "a verdict needs 3 starts of each deployment or more, here 2"
    assert {row.verdict.kind for row in found.rows} == {"none"}


def test_a_failed_cell_leaves_its_block_out(tmp_path):
    def fail(cell, start):
        is_it = start.repeat == 1 and start.deployment == Q8
        return {"status": "failed", "error": "died"} if is_it else {}

    verdict = of(
        verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8, per_repeat=NOISE)], cell_changes=fail),
        "llama_cpp gguf-q8_0",
        "llama_cpp fp16",
    )
    logs = [math.log(0.8 * noise) for repeat, noise in enumerate(NOISE) if repeat != 1]
    assert (verdict.kind, verdict.k) == ("better", 4)
    assert verdict.ratio == pytest.approx(math.exp(mean(logs)), rel=1e-6)


def test_fewer_whole_blocks_than_three_give_no_verdict(tmp_path):
    def fail(cell, start):
        # the two deployments in different repeats: two blocks of four are left
        is_it = (start.repeat, start.deployment) in ((0, FP16), (1, Q8))
        return {"status": "failed", "error": "died"} if is_it else {}

    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8)], repeats=4, cell_changes=fail)
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16")
    assert verdict.kind == "none"
    assert verdict.why == "a verdict needs 3 starts of each or more, here 2"
    assert found.why_none is None


def test_an_invalid_cell_does_not_count_and_a_suspect_one_does(tmp_path):
    def judge(cell, start):
        judged = {0: "invalid", 1: "suspect"} if start.deployment == Q8 else {}
        return {"validity": judged.get(start.repeat, "valid")}

    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8, per_repeat=NOISE)], cell_changes=judge)
    assert of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16").k == 4


def test_a_percentile_that_a_block_does_not_support_has_no_verdict(tmp_path):
    few = Made(Q8, 0.8, changes=lambda number: {"outcome": "http_error"} if number > 2 else {})
    found = verdicts(tmp_path, [Made(FP16), few])
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16")
    why = "llama_cpp gguf-q8_0: p50 needs n of 11 or more, here n = 3"
    assert (verdict.kind, verdict.why) == ("none", why)


def test_a_value_of_zero_has_no_ratio(tmp_path):
    terms = replace(TTFT, metrics=("memory_peak_bytes",))
    found = verdicts(tmp_path, [Made(FP16), Made(Q8, memory=0.0)], compare=terms)
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16", "memory_peak_bytes")
    assert (verdict.kind, verdict.why, verdict.ratio) == ("none", "a value is 0, which has no ratio", None)


def test_an_additive_metric_may_be_zero_and_is_a_difference(tmp_path):
    terms = replace(TTFT, metrics=("success_share",))
    made = [Made(FP16), Made(Q8, changes=lambda number: {"outcome": "timeout"} if number % 2 else {})]
    verdict = of(
        verdicts(tmp_path, made, compare=terms), "llama_cpp gguf-q8_0", "llama_cpp fp16", "success_share"
    )
    assert (verdict.kind, verdict.is_log) == ("worse", False)
    assert verdict.ratio == pytest.approx(-0.5, abs=0.02)  # every other request failed


def test_lengths_that_differ_leave_no_verdict_on_e2e(tmp_path):
    terms = replace(TTFT, metrics=("e2e_s.p50", "ttft_s.p50"))
    short = Made(Q8, changes=lambda number: {"output_tokens": 7})
    found = verdicts(tmp_path, [Made(FP16), short], compare=terms)
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16", "e2e_s.p50")
    assert verdict.kind == "none"
    assert "7.0 tokens where 10.0 were asked for" in verdict.why
    assert of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16").kind != "none"


def test_other_prompts_leave_no_verdict(tmp_path):
    longer = Made(Q8, 0.8, changes=lambda number: {"input_tokens": 80})
    verdict = of(verdicts(tmp_path, [Made(FP16), longer]), "llama_cpp gguf-q8_0", "llama_cpp fp16")
    assert (verdict.kind, verdict.why) == ("none", "their prompts are not the same")


def test_stand_in_kernels_leave_no_verdict_on_speed(tmp_path):
    def replaced(start):
        return {"resolved": {"kernel_stand_in": "pure Python"}} if start.deployment == Q8 else {}

    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8), Made(VLLM, 0.8)], start_changes=replaced)
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16")
    assert (verdict.kind, verdict.why) == ("none", "llama_cpp gguf-q8_0: pure Python")
    assert of(found, "vllm fp16", "llama_cpp fp16").kind == "better"
    assert found.family == 1


def test_memory_of_a_card_and_of_a_host_are_not_compared(tmp_path):
    def placed(start):
        return {"memory_kind": "device"} if start.deployment == Q8 else {}

    terms = replace(TTFT, metrics=("memory_peak_bytes", "ttft_s.p50"))
    found = verdicts(tmp_path, [Made(FP16), Made(Q8, 0.8)], compare=terms, start_changes=placed)
    verdict = of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16", "memory_peak_bytes")
    assert (verdict.kind, verdict.why) == ("none", "one is measured on a device, the other on the host")
    assert of(found, "llama_cpp gguf-q8_0", "llama_cpp fp16").kind == "better"


def test_a_single_deployment_is_compared_to_nothing(tmp_path):
    found = comparisons_of(open_run(repeated_run(tmp_path, [Made(FP16)], loads=ONE)))
    assert (found.rows, found.family) == ((), 0)
