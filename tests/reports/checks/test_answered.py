"""Reasons to distrust what deployments answered, and that nobody knows how well they do."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from make_quality import Voice, with_quality
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Asked, EngineTerms, Load
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.verdicts.decisions import decisions_of

FP16, VLLM, Q8 = (
    deployment(*each.split()) for each in ("llama_cpp fp16", "vllm fp16", "llama_cpp gguf-q8_0")
)


def found(path: Path, voices: Mapping[str, Voice], *made: Made) -> dict[str, Finding]:
    repeated_run(path, made, (Load(concurrency=4),), 1, 3)
    return {each.check: each for each in findings_of(open_run(with_quality(path, voices)))}


# --- answers that are not there --------------------------------------------------------------------


def empty(row: Asked) -> Asked:
    return replace(row, tokens=(), answer="", finish_reason="stop") if row.way == "chat" else row


def ended_at_once(row: Asked) -> Asked:
    """Leave the token that ends an answer, as a server names it."""
    return replace(row, tokens=row.tokens[:1], answer="", finish_reason="stop") if row.way == "chat" else row


def broken_off(row: Asked) -> Asked:
    return replace(row, tokens=row.tokens[:5]) if row.way == "chat" and row.item < 3 else row


@pytest.mark.parametrize(
    ("changes", "said"),
    [(empty, "10 of 10 empty"), (ended_at_once, "10 of 10 empty"), (broken_off, "3 of 10 cut off")],
)
def test_answers_that_the_reference_has_and_it_has_not_mark_its_speed(tmp_path, changes, said):
    voices = {FP16.label: Voice(), Q8.label: Voice(changes=changes)}
    missing = found(tmp_path, voices, Made(FP16), Made(Q8))["answers_missing"]
    assert f"{Q8.label}: {said}." in missing.text
    assert FP16.label not in missing.text
    assert (missing.marks, "output_tokens_per_s" in missing.metrics) == (True, True)


@pytest.mark.parametrize("reference", [Voice(), Voice(changes=empty)])
def test_answers_are_not_missing_where_they_are_there_or_the_reference_has_none(tmp_path, reference):
    other = Voice(0.1) if reference == Voice() else reference
    voices = {FP16.label: reference, Q8.label: other}
    assert "answers_missing" not in found(tmp_path, voices, Made(FP16), Made(Q8))


# --- the same weights ------------------------------------------------------------------------------


def test_the_same_weights_that_answer_differently_are_both_named_and_may_win(tmp_path):
    voices = {FP16.label: Voice(), VLLM.label: Voice(0.3), Q8.label: Voice(0.3)}
    differ = found(tmp_path, voices, Made(FP16), Made(VLLM, 0.5), Made(Q8))["same_weights_differ"]
    cause = "Their probabilities are further apart than by rounding"
    assert differ.text.startswith(f"{cause}: {VLLM.label} and {FP16.label}: KL at least 0.0")
    assert Q8.label not in differ.text
    assert not differ.marks
    [made] = decisions_of(open_run(tmp_path))
    assert VLLM.label not in made.left_out


def test_the_same_weights_may_differ_by_rounding(tmp_path):
    voices = {FP16.label: Voice(), VLLM.label: Voice(0.05)}
    assert "same_weights_differ" not in found(tmp_path, voices, Made(FP16), Made(VLLM))


# --- speculation -----------------------------------------------------------------------------------

DRAFTED = replace(FP16, terms=EngineTerms(speculation="ngram", speculative_tokens=3), label="llama_cpp ngram")


def other_end(row: Asked) -> Asked:
    """Name another token at the end of the answers to two prompts."""
    ended = replace(row.tokens[-1], name="?") if row.tokens else None
    is_other = row.way == "chat" and row.item < 2
    return replace(row, tokens=(*row.tokens[:-1], ended)) if is_other else row


def unsteady(row: Asked) -> Asked:
    return replace(other_end(replace(row, way="chat")), way="again") if row.way == "again" else row


@pytest.mark.parametrize(
    ("off", "drafted", "said"),
    [
        (Voice(), Voice(changes=other_end), f"{DRAFTED.label}: 2 of 10 different."),
        (Voice(), Voice(), None),
        (Voice(changes=unsteady), Voice(changes=other_end), None),
    ],
)
def test_answers_that_speculation_changes_mark_its_speed_unless_they_change_without(
    tmp_path, off, drafted, said
):
    voices = {FP16.label: off, DRAFTED.label: drafted}
    changed = found(tmp_path, voices, Made(FP16), Made(DRAFTED)).get("speculation_changes_answers")
    assert (changed and changed.text.rpartition("speculation: ")[2]) == said
    assert changed is None or changed.marks


# --- quality that nobody knows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "is_doubted"),
    [
        (EngineTerms(kv_cache_type="q8_0"), True),
        (EngineTerms(speculation="ngram"), True),
        (EngineTerms(speculation="off"), False),
        (EngineTerms(prefix_cache=False), False),
    ],
)
def test_terms_that_bear_on_answers_make_an_unasked_quality_a_reason(tmp_path, terms, is_doubted):
    other = replace(FP16, terms=terms, label="other")
    assert ("quality_not_measured" in found(tmp_path, {}, Made(FP16), Made(other))) == is_doubted
