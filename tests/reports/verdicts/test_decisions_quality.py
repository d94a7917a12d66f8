"""Who may win for the quality of its answers, and what the answer says of that of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_quality import Voice, ask, with_quality
from make_run import deployment
from repeated_run import Made, repeated_run, sentences

from serving_bench.harness.contracts import CompareTerms, Load, Objective, QualityTerms
from serving_bench.harness.store import store
from serving_bench.reports import Run, open_run
from serving_bench.reports.verdicts.decisions import decisions_of
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.quality import claim, columns
from serving_bench.reports.words.verdict_words import title_at

FP16, Q8, Q4 = (deployment("llama_cpp", name) for name in ("fp16", "gguf-q8_0", "gguf-q4_0"))
SLOW, MIDDLE, FAST = Made(FP16, 1.3, 2.0), Made(Q8, 1.0), Made(Q4, 0.7, 0.5)
REFERENCE, NEAR, FAR = FP16.label, Q8.label, Q4.label
USUAL = {REFERENCE: Voice(), NEAR: Voice(0.1), FAR: Voice(0.9)}
SMALLEST = CompareTerms(metrics=("memory_peak_bytes",))
TOO_FAR = {FAR: "KL 0.26 nats against llama_cpp fp16: beyond quality.limit=0.1"}


def measured(
    path: Path, voices: Mapping[str, Voice] = USUAL, made: Sequence[Made] = (SLOW, MIDDLE, FAST), **given: Any
) -> Run:
    repeated_run(path, made, (Load(concurrency=4),), **given)
    return open_run(with_quality(path, voices))


def answer(run: Run) -> str:
    [said] = answers_of(run)
    return said.plain


def test_the_fastest_within_the_limit_wins_and_what_a_faster_one_costs_is_said(tmp_path):
    run = measured(tmp_path)
    [made] = decisions_of(run)
    assert (made.kind, made.served, sentences(made.left_out), made.beyond) == ("named", NEAR, TOO_FAR, [FAR])
    assert answer(run) == (
        "Serve llama_cpp gguf-q8_0. It has 1.30x the output tokens/s of llama_cpp fp16 at 4 users (at least "
        "1.29x, 96 % confidence), with 0.50x the memory; quality against llama_cpp fp16: KL 0.0032, the same "
        "token at 95 of 100 positions. Left out for quality: llama_cpp gguf-q4_0. If worse answers are "
        "acceptable: llama_cpp gguf-q4_0 is 1.4x as fast, but picks another token at 35 of 100 positions "
        "(KL 0.26)."
    )
    assert title_at(run, "output_tokens_per_s", run.groups) == (
        "llama_cpp gguf-q8_0 gives the most output tokens/s within the quality limit at 4 users"
    )


def test_what_a_smaller_one_beyond_the_limit_saves_is_said_where_memory_decides(tmp_path):
    run = measured(tmp_path, compare=SMALLEST, settings={"compare.metric": SMALLEST.metrics})
    assert "llama_cpp gguf-q4_0 has 0.5x the peak memory, but picks another token" in answer(run)


def test_a_slower_one_beyond_the_limit_is_no_reason_for_an_unless(tmp_path):
    said = answer(measured(tmp_path, made=[SLOW, MIDDLE, replace(FAST, slow=1.1)]))
    assert "Left out for quality: llama_cpp gguf-q4_0." in said
    assert "If worse answers" not in said


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (0.01, "If quality matters most: llama_cpp gguf-q4_0 (KL 0.000034 against 0.0032)."),
        (0.099, ""),
        (0.2, ""),
    ],
)
def test_one_that_is_surely_nearer_to_the_reference_is_named(tmp_path, noise, said):
    made = [SLOW, MIDDLE, replace(FAST, slow=1.15, memory=MIDDLE.memory)]
    found = answer(measured(tmp_path, {**USUAL, FAR: Voice(noise)}, made))
    assert found.startswith("Serve llama_cpp gguf-q8_0.")
    assert said in found
    assert ("quality matters" in found) is bool(said)


def test_without_a_limit_the_fastest_wins_and_its_quality_is_said(tmp_path):
    run = measured(tmp_path, quality=QualityTerms(limit_nats=None))
    assert decisions_of(run)[0].served == FAR
    assert "KL 0.26, the same token at 65 of 100 positions." in answer(run)


def test_one_whose_quality_is_not_known_may_win_and_the_answer_says_so(tmp_path):
    silent = Voice(ways=(), missing={"chat": "its API gives no probabilities of its tokens"})
    run = measured(tmp_path, {**USUAL, FAR: silent})
    assert decisions_of(run)[0].served == FAR
    assert "; its quality is not known (its API gives no probabilities of its tokens)." in answer(run)
    few = measured(tmp_path / "few", {**USUAL, FAR: Voice(0.9, k=5)})
    assert "not known (only the 5 likeliest tokens were compared, not 20)." in answer(few)


def test_the_reference_may_win(tmp_path):
    run = measured(tmp_path, made=[replace(SLOW, slow=0.8), MIDDLE, FAST])
    assert "; llama_cpp fp16 is the quality reference. Left out" in answer(run)


def test_one_that_nobody_is_held_against_is_called_no_reference(tmp_path):
    said = answer(measured(tmp_path, {REFERENCE: Voice()}, [SLOW]))
    assert said.startswith("llama_cpp fp16. It is the only one measured at 4 users: ")
    assert "reference" not in said


def test_of_a_run_that_was_not_asked_nothing_is_said_of_quality(tmp_path):
    run = measured(tmp_path, {})
    assert decisions_of(run)[0].served == FAR
    assert "quality" not in answer(run)


def test_one_that_reads_other_tokens_cannot_win(tmp_path):
    def cut(row):
        return replace(row, tokens=row.tokens[1:]) if row.way == "prompt" else row

    run = measured(tmp_path, {**USUAL, FAR: Voice(changes=cut)})
    why = "not comparable: token 1 of its prompt 1 is 1, but 0 at llama_cpp fp16"
    [made] = decisions_of(run)
    assert (made.served, sentences(made.left_out)) == (NEAR, {FAR: why})
    assert "If worse answers" not in answer(run)
    two = measured(tmp_path / "two", {REFERENCE: Voice(), FAR: Voice(changes=cut)}, [SLOW, FAST])
    [made] = decisions_of(two)
    other = "not comparable: token 1 of its prompt 1 is 0, but 1 at llama_cpp gguf-q4_0"
    assert (made.served, sentences(made.left_out)) == (None, {REFERENCE: other, FAR: why})
    assert answer(two).startswith("No ")


@pytest.mark.parametrize(
    ("slo", "said"),
    [
        ((), "It is the only one within"),
        ((Objective("ttft_s", 0.5, 0.5),), "It is the only one known to keep the SLO and within"),
    ],
)
def test_the_only_one_within_the_limit_is_served_without_a_test(tmp_path, slo, said):
    voices = {REFERENCE: Voice(), NEAR: Voice(0.8), FAR: Voice(0.9)}
    run = measured(tmp_path, voices, slo=slo)
    [made] = decisions_of(run)
    assert (made.kind, made.served, made.beyond) == ("only", REFERENCE, [NEAR, FAR])
    assert f"{said} the quality limit at 4 users" in answer(run)
    assert "If worse answers are acceptable: llama_cpp gguf-q4_0 is " in answer(run)


def test_the_only_one_left_whose_quality_is_not_known_is_not_called_within_the_limit(tmp_path):
    silent = Voice(ways=(), missing={"chat": "its API names no probabilities"})
    against = QualityTerms(against="results/before")
    run = measured(tmp_path, {NEAR: silent, FAR: Voice(0.9)}, [MIDDLE, FAST], quality=against)
    kept = tmp_path / store.REFERENCE
    store.write_record(kept / "start.json", replace(run.start_records[0], deployment=FP16))
    ask(kept, Voice())
    said = answer(open_run(tmp_path))
    assert said.startswith(
        f"Serve {NEAR}. It is the only one not known to be beyond the quality limit at 4 users: "
    )
    assert "its quality is not known" in said


def test_fewer_tokens_than_twenty_are_said_beside_the_divergence(tmp_path):
    run = measured(tmp_path, {**USUAL, FAR: Voice(0.9, k=5)})
    assert columns(run, FAR)["KL nats"].plain.endswith("] k 5")
    assert re.search(r"llama_cpp gguf-q4_0 KL 0\.\d+ k 5", claim(run))
    assert columns(measured(tmp_path / "usual"), FAR)["KL nats"].plain.endswith("]")
