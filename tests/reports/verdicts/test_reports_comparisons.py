"""Which deployments of a run are compared and what is said, from results directories with known values."""

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest
from make_run import deployment
from repeated_run import LOADS, Made, repeated_run
from scipy.special import stdtrit

from serving_bench.harness.contracts import CompareTerms, Load
from serving_bench.reports.data.run import open_run
from serving_bench.reports.verdicts.comparisons import comparisons_of

FP16, Q8 = deployment("llama_cpp", "fp16"), deployment("llama_cpp", "gguf-q8_0")
VLLM = deployment("vllm", "fp16")
ONE = (Load(concurrency=4),)
TTFT = CompareTerms(metrics=("ttft_s.p50",))
NOISE = (1.01, 1.0, 0.99, 1.0, 1.01)
BASE, FASTER = Made(FP16), Made(Q8, 0.8, per_repeat=NOISE)
THREE = [BASE, Made(Q8, 0.8, 0.5, NOISE), Made(VLLM, 1.3, 1.0, NOISE)]


def verdicts(path, made, **given):
    return comparisons_of(open_run(repeated_run(path, made, **{"loads": ONE, "compare": TTFT, **given})))


def of(found, metric="ttft_s.p50", a="llama_cpp gguf-q8_0", b="llama_cpp fp16"):
    return found.of("chat_multi_turn", "4 users", metric, a, b)


def test_a_ratio_is_the_mean_log_ratio_of_the_blocks_pairs_with_its_t_interval(tmp_path):
    # All starts of a block share its factor, which a ratio of pairs is free of: only NOISE is left.
    found = verdicts(tmp_path, [BASE, FASTER])
    logs = [math.log(0.8 * noise) for noise in NOISE]
    half = stdtrit(4, 0.98) * stdev(logs) / math.sqrt(5)
    verdict, back = of(found), of(found, a="llama_cpp fp16", b="llama_cpp gguf-q8_0")
    assert (verdict.kind, verdict.k, verdict.confidence) == ("better", 5, 0.96)
    expected = [math.exp(mean(logs) + side) for side in (0, -half, half)]
    assert (verdict.ratio, verdict.low, verdict.high) == pytest.approx(expected, rel=1e-6)
    assert back.kind == "worse"
    assert (back.ratio, back.high, back.low) == pytest.approx([1 / each for each in expected])


def test_within_the_margin_it_is_the_same_and_a_wide_interval_tells_nothing(tmp_path):
    wild = (1.3, 0.8, 1.2, 0.75, 1.0)
    found = verdicts(tmp_path, [BASE, Made(Q8, 1.01, per_repeat=NOISE), Made(VLLM, per_repeat=wild)])
    assert of(found).kind == "same"
    assert of(found, a="vllm fp16").kind == "unknown"


def test_each_metric_at_each_load_is_a_family_of_all_pairs(tmp_path):
    found = verdicts(tmp_path, THREE, loads=LOADS, compare=CompareTerms())
    # Two deployments against the leader, at two loads, on four metrics; three pairs of each.
    assert len(found.rows) == 2 * 2 * 4
    assert found.family == 3
    assert {row.verdict.confidence for row in found.rows} == {1 - 0.04 / 3}
    assert {row.b for row in found.rows if row.metric == "output_tokens_per_s"} == {"llama_cpp gguf-q8_0"}


def test_beside_a_baseline_that_was_asked_for_only_its_pairs_are_a_family(tmp_path):
    found = verdicts(tmp_path, THREE, compare=CompareTerms(baseline="llama_cpp fp16"))
    assert {row.b for row in found.rows} == {"llama_cpp fp16"}
    assert (found.family, {row.verdict.confidence for row in found.rows}) == (2, {1 - 0.04 / 2})


def test_the_baseline_is_the_asked_label_or_the_first_of_each_model(tmp_path):
    other, also = (deployment("vllm", each, model="other-lm") for each in ("fp16", "awq"))
    made = [Made(each) for each in (FP16, Q8, replace(other, label="vllm other"), also)]
    found = verdicts(tmp_path, made, repeats=3, compare=replace(TTFT, baseline="llama_cpp gguf-q8_0"))
    assert found.baselines == {"tiny-lm": "llama_cpp gguf-q8_0", "other-lm": "vllm other"}
    # Deployments of different models are in no comparison.
    assert {(row.a, row.b) for row in found.rows} == {
        ("llama_cpp fp16", "llama_cpp gguf-q8_0"),
        ("vllm awq", "vllm other"),
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [({"start_changes": lambda start: {"attached": True}}, "blocks on one start"),
     ({"repeats": 2}, "a verdict needs 3 starts of each deployment or more, here 2")],
)  # fmt: skip
def test_a_run_without_starts_enough_gives_no_verdict_and_the_reason(tmp_path, given, why):
    found = verdicts(tmp_path, [BASE, FASTER], **given)
    assert why in str(found.why_none)
    assert ({row.verdict.kind for row in found.rows}, found.family) == ({"none"}, 0)


def failed(*lost):
    """The cells of these repeats and deployments failed."""
    return lambda cell, start: (
        {"status": "failed", "error": "died"} if (start.repeat, start.deployment) in lost else {}
    )


def test_a_failed_cell_leaves_its_block_out(tmp_path):
    verdict = of(verdicts(tmp_path, [BASE, FASTER], cell_changes=failed((1, Q8))))
    logs = [math.log(0.8 * noise) for repeat, noise in enumerate(NOISE) if repeat != 1]
    assert (verdict.kind, verdict.k) == ("better", 4)
    assert verdict.ratio == pytest.approx(math.exp(mean(logs)), rel=1e-6)


def test_fewer_whole_blocks_than_three_give_no_verdict(tmp_path):
    """The two failed in different repeats: two blocks of four are left."""
    found = verdicts(tmp_path, [BASE, FASTER], repeats=4, cell_changes=failed((0, FP16), (1, Q8)))
    assert (of(found).kind, str(of(found).why)) == (
        "none",
        "a verdict needs 3 starts of each or more, here 2",
    )
    assert found.why_none is None


def test_an_invalid_cell_does_not_count_and_a_suspect_one_does(tmp_path):
    def judge(cell, start):
        judged = {0: "invalid", 1: "suspect"} if start.deployment == Q8 else {}
        return {"validity": judged.get(start.repeat, "valid")}

    assert of(verdicts(tmp_path, [BASE, FASTER], cell_changes=judge)).k == 4


def of_q8(**changes):
    return lambda start: changes if start.deployment == Q8 else {}


SHORT, SHORTER, LONGER = {"output_tokens": 9}, {"output_tokens": 1}, {"input_tokens": 80}
FEW = Made(Q8, 0.8, changes=lambda number: {"outcome": "http_error"} if number > 2 else {})


@pytest.mark.parametrize(
    ("second", "start_changes", "metric", "why"),
    [(FEW, {}, "ttft_s.p50", "llama_cpp gguf-q8_0: p50 needs n of 11 or more, here n = 3"),
     (Made(Q8, memory=0.0), {}, "memory_peak_bytes", "a value is 0, which has no ratio"),
     (Made(Q8, changes=lambda number: SHORT), {}, "e2e_s.p50", "9.0 tokens where 10.0 were asked for"),
     (Made(Q8, changes=lambda number: SHORTER), {}, "output_tokens_per_s",
      "their answers have different numbers of tokens: 10 (llama_cpp fp16) and 1 (llama_cpp gguf-q8_0)"),
     (Made(Q8, changes=lambda number: LONGER), {}, "ttft_s.p50", "their prompts are not the same"),
     (FASTER, {"resolved": {"kernel_stand_in": "pure Python"}}, "ttft_s.p50", "gguf-q8_0: pure Python"),
     (FASTER, {"memory_kind": "device"}, "memory_peak_bytes", "one is measured on a device, the other on")],
    ids=["few requests", "zero", "other answers", "far other answers", "other prompts", "kernels", "places"],
)  # fmt: skip
def test_what_is_not_alike_gets_no_verdict_and_leaves_the_others_theirs(
    tmp_path, second, start_changes, metric, why
):
    terms = CompareTerms(metrics=(metric,))
    made = [BASE, second, Made(VLLM, 0.8, 2.0)]
    found = verdicts(tmp_path, made, compare=terms, start_changes=of_q8(**start_changes))
    verdict = of(found, metric)
    assert verdict.kind == "none"
    assert why in str(verdict.why)
    assert of(found, metric, a="vllm fp16").kind in ("better", "worse")


def test_an_additive_metric_may_be_zero_and_is_a_difference(tmp_path):
    made = [BASE, Made(Q8, changes=lambda number: {"outcome": "timeout"} if number % 2 else {})]
    verdict = of(verdicts(tmp_path, made, compare=replace(TTFT, metrics=("success_share",))), "success_share")
    assert (verdict.kind, verdict.is_log) == ("worse", False)
    assert verdict.ratio == pytest.approx(-0.5, abs=0.02)  # every other request failed


def test_a_single_deployment_is_compared_to_nothing(tmp_path):
    found = verdicts(tmp_path, [BASE])
    assert (found.rows, found.family) == ((), 0)
