"""How well deployments answer: against whom, by which way, over which places, and who cannot win for it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from make_quality import Voice, answer, ask, with_quality
from make_run import deployment
from repeated_run import Made, repeated_run, sentences

from serving_bench.harness.contracts import (
    Asked,
    EngineTerms,
    Item,
    Load,
    QualityTerms,
    Token,
    because,
    quoted,
)
from serving_bench.harness.store import store
from serving_bench.harness.store.quality_table import write_items
from serving_bench.reports import Run, open_run, write_report
from serving_bench.reports.data.asked import Heard, heard_of, reference_folders, references_of
from serving_bench.reports.measures.fidelity import fidelity, outcome
from serving_bench.reports.measures.quality import beyond_limit, quality_of
from serving_bench.reports.words.quality import fidelity_texts, notes

FP16, BF16, Q8, Q4 = (deployment("llama_cpp", name) for name in ("fp16", "bf16", "gguf-q8_0", "gguf-q4_0"))
LABELS = {each.label: each for each in (FP16, BF16, Q8, Q4)}
REFERENCE, NEAR, FAR = "llama_cpp fp16", "llama_cpp gguf-q8_0", "llama_cpp gguf-q4_0"
USUAL = {REFERENCE: Voice(), NEAR: Voice(0.1), FAR: Voice(0.9)}


def asked(path: Path, voices: Mapping[str, Voice] = USUAL, **changes: Any) -> Run:
    made = [Made(LABELS[label]) for label in voices]
    repeated_run(path, made, (Load(concurrency=4),), 1, 3, **changes)
    return open_run(with_quality(path, voices))


def limited(**changes: Any) -> QualityTerms:
    return replace(QualityTerms(), **changes)


# --- the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "reference"),
    [
        ([FAR, "llama_cpp bf16", REFERENCE], REFERENCE),
        ([FAR, "llama_cpp bf16"], "llama_cpp bf16"),
        ([FAR, NEAR], NEAR),
    ],
)
def test_most_bits_are_the_reference_fp16_before_bf16(tmp_path, labels, reference):
    found = quality_of(asked(tmp_path, dict.fromkeys(labels, Voice())))
    assert [label for label, each in found.items() if each.is_reference] == [reference]
    assert {each.against for each in found.values()} == {reference}


def test_one_that_speculates_or_names_no_probabilities_is_no_reference_beside_one_that_does_not(tmp_path):
    fast = replace(FP16, terms=EngineTerms(speculative_tokens=4), label="fast")
    mute = replace(FP16, engine="tgi", label="mute")
    repeated_run(tmp_path, [Made(fast), Made(mute), Made(FP16)], repeats=1, requests=3)
    silent = Voice(k=0, ways=(), missing={"chat": "its API names none"})
    run = open_run(with_quality(tmp_path, {"fast": Voice(), "mute": silent, REFERENCE: Voice()}))
    assert references_of(run)["tiny-lm"].name == REFERENCE
    assert quality_of(run)["mute"].why == quoted("its API names none")


@pytest.mark.parametrize("terms", [EngineTerms(kv_cache_type="q4_0"), EngineTerms(dtype="bfloat16")])
def test_fewer_bits_of_the_kv_cache_or_another_half_are_no_reference_beside_fp16(tmp_path, terms):
    other = replace(FP16, terms=terms, label="a")
    repeated_run(tmp_path, [Made(other), Made(FP16)], repeats=1, requests=3)
    run = open_run(with_quality(tmp_path, {"a": Voice(), REFERENCE: Voice(0.1)}))
    assert references_of(run)["tiny-lm"].name == REFERENCE


def test_probabilities_make_no_reference_of_a_kv_cache_of_fewer_bits(tmp_path):
    small = replace(FP16, terms=EngineTerms(kv_cache_type="q4_0"), label="small")
    repeated_run(tmp_path, [Made(small), Made(FP16)], repeats=1, requests=3)
    silent = Voice(k=0, ways=(), missing={"chat": "its API names none"})
    run = open_run(with_quality(tmp_path, {"small": Voice(), REFERENCE: silent}))
    assert quality_of(run)["small"].why == because("reference_missing", label=REFERENCE)


def unheard(path: Path, **changes: Any) -> Run:
    """Those of USUAL, of which the one with most bits was never asked."""
    repeated_run(path, [Made(LABELS[label]) for label in USUAL], repeats=1, requests=3, **changes)
    return open_run(with_quality(path, {NEAR: Voice(0.1), FAR: Voice(0.9)}))


def test_none_of_fewer_bits_takes_the_place_of_one_that_was_not_asked(tmp_path):
    found = quality_of(unheard(tmp_path))
    assert str(found[REFERENCE].why) == "it was not asked"
    assert {(found[label].against, found[label].why) for label in (NEAR, FAR)} == {
        (None, because("reference_missing", label=REFERENCE))
    }


def test_nor_does_most_bits_take_the_place_of_one_that_was_named(tmp_path):
    repeated_run(tmp_path, [Made(FP16), Made(Q8), Made(Q4)], repeats=1, quality=limited(against=NEAR))
    found = quality_of(open_run(with_quality(tmp_path, {REFERENCE: Voice(), FAR: Voice(0.9)})))
    assert found[FAR].why == because("reference_missing", label=NEAR)


def test_a_twin_takes_the_place_of_one_that_was_not_asked(tmp_path):
    repeated_run(tmp_path, [Made(FP16), Made(BF16), Made(Q4)], repeats=1, requests=3)
    run = open_run(with_quality(tmp_path, {BF16.label: Voice(), FAR: Voice(0.9)}))
    assert references_of(run)["tiny-lm"].name == BF16.label


@pytest.mark.parametrize("against", [None, "running"])
def test_beside_one_of_unknown_bits_the_reference_is_to_be_named(tmp_path, against):
    attached = replace(FP16, engine="openai", quantization="-", label="running")
    made, changes = [Made(Q4), Made(attached)], {"quality": limited(against=against)}
    repeated_run(tmp_path, made, repeats=1, requests=3, **changes)
    run = open_run(with_quality(tmp_path, {FAR: Voice(0.9), "running": Voice()}))
    found = quality_of(run)
    if against:
        assert found[FAR].against == "running"
        return
    why = "no reference: the bits of running are not known; give quality.against=LABEL"
    assert {str(each.why) for each in found.values()} == {why}
    assert beyond_limit(run) == {}


def test_a_run_is_held_against_the_reference_that_an_earlier_one_had(tmp_path):
    run = asked(tmp_path / "named", quality=limited(against=NEAR))
    assert reference_folders(run.path) == {"tiny-lm": references_of(run)["tiny-lm"].folder}
    assert "gguf-q8_0" in reference_folders(run.path)["tiny-lm"].name
    assert reference_folders(unheard(tmp_path / "unheard").path) == {}


def test_a_later_start_that_said_nothing_hides_no_answers(tmp_path):
    made = [Made(LABELS[label]) for label in USUAL]
    repeated_run(tmp_path, made, repeats=2, requests=3)
    run = open_run(with_quality(tmp_path, USUAL))
    first, later = run.starts_of(FAR)
    silent = Voice(ways=(), missing={"chat": "POST /v1/x got no answer in time"})
    ask(tmp_path / "starts" / later.name, silent)
    run = open_run(tmp_path)
    assert heard_of(run)[FAR].start.name == first.name
    assert quality_of(run)[FAR].told.kl_nats > 0.2
    ask(tmp_path / "starts" / later.name, Voice(0.1))
    write_items(tmp_path / "starts" / first.name / "tasks.parquet", [Item("own", "0", 1.0, "4", "a")])
    found = heard_of(open_run(tmp_path))[FAR]
    assert (found.start.name, [*found.tasks]) == (later.name, ["own"])


def test_a_label_of_the_run_may_be_the_reference(tmp_path):
    run = asked(tmp_path, quality=limited(against=NEAR))
    assert references_of(run)["tiny-lm"].name == NEAR
    assert quality_of(run)[REFERENCE].told.kl_nats == pytest.approx(0.0035, rel=0.2)


def test_the_reference_may_be_of_an_earlier_run(tmp_path):
    run = asked(tmp_path, {NEAR: Voice(0.1), FAR: Voice(0.9)}, quality=limited(against="results/before"))
    assert {str(each.why) for each in quality_of(run).values()} == {"there is no reference"}
    kept = tmp_path / store.REFERENCE
    before = replace(run.start_records[0], deployment=FP16)
    store.write_record(kept / "start.json", before)
    ask(kept, Voice())
    found = quality_of(open_run(tmp_path))
    assert found[NEAR].against == "llama_cpp fp16 of an earlier run"
    assert [each.is_reference for each in found.values()] == [False, False]
    assert found[FAR].told.kl_nats > 0.2


def test_each_model_has_its_reference_of_an_earlier_run(tmp_path):
    large = replace(Q8, model="large-lm", label="large q8_0")
    repeated_run(tmp_path, [Made(Q8), Made(large)], repeats=1, requests=3, quality=limited(against="before"))
    run = open_run(with_quality(tmp_path, {NEAR: Voice(0.1), large.label: Voice(0.9)}))
    for number, each in enumerate((FP16, replace(FP16, model="large-lm", label="large fp16"))):
        kept = tmp_path / store.REFERENCE / f"{number:02d}-fp16"
        store.write_record(kept / "start.json", replace(run.start_records[0], deployment=each))
        ask(kept, Voice())
    found = quality_of(open_run(tmp_path))
    assert {label: each.against for label, each in found.items()} == {
        NEAR: "llama_cpp fp16 of an earlier run",
        "large q8_0": "large fp16 of an earlier run",
    }
    assert found[NEAR].told.kl_nats < 0.01 < 0.2 < found["large q8_0"].told.kl_nats


# --- fidelity --------------------------------------------------------------------------------------


def test_each_way_is_told_with_its_places_and_interval_texts_first(tmp_path):
    run = asked(tmp_path)
    found = quality_of(run)
    assert list(found) == list(USUAL)
    near, far = found[NEAR], found[FAR]
    assert (near.told.way, near.told.k, near.told.items, near.told.tokens) == ("text", 20, 12, 12 * 59)
    for each, nats in ((near, 0.0033), (far, 0.26)):
        low, high = each.told.interval
        assert low < each.told.kl_nats < high
        assert each.told.kl_nats == pytest.approx(nats, rel=0.15)
        assert each.by_way["chat"].kl_nats == pytest.approx(nats, rel=0.3)
        assert each.told.kl_p99_nats > 2 * each.told.kl_nats
    assert near.told.agreement > 0.9 > 0.7 > far.told.agreement
    assert near.by_way["chat"].median_same > far.by_way["chat"].median_same
    assert found[REFERENCE].told is found[REFERENCE].why is None


def heard(*rows: Asked) -> Heard:
    by_way = {row.way: [each for each in rows if each.way == row.way] for row in rows}
    return Heard(None, None, by_way)


def five(*rows: Asked) -> Heard:
    """One who said the same five times: fewer texts are too few to tell."""
    return heard(*(replace(row, item=row.item + 10 * n) for n in range(5) for row in rows))


def said(name: str, share: float, **others: float) -> Token:
    return Token(name, log(share), {name: log(share), **{each: log(own) for each, own in others.items()}})


def test_answers_are_held_against_each_other_up_to_the_first_token_that_differs():
    a, b, c = said("a", 0.5, b=0.4), said("b", 0.6, a=0.3), said("c", 0.9)
    base = five(Asked("chat", 0, (a, b, c), "length"), Asked("chat", 1, (a,), "stop"))
    own = five(Asked("chat", 0, (a, a, c), "length"), Asked("chat", 1, (a,), "stop"))
    found = fidelity("chat", own, base, 2)
    # Of the first answer two places, the second of which differs; of the other its only one.
    assert (found.items, found.tokens) == (10, 15)
    at_fork = 0.6 * log(0.6 / 0.4) + 0.3 * log(0.3 / 0.5) + 0.1 * log(0.1 / 0.1)
    assert found.kl_nats == pytest.approx(at_fork / 3)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.same == pytest.approx([1, 1, 0.5])
    low, high = found.interval
    assert low < found.kl_nats < high


@pytest.mark.parametrize(("finish", "same", "median"), [("stop", [1, 1, 0], 1), ("length", [1, 1], None)])
def test_an_answer_that_ends_earlier_has_parted_one_that_is_cut_has_not(finish, same, median):
    a = said("a", 0.9)
    base, own = five(Asked("chat", 0, (a, a), "length")), five(Asked("chat", 0, (a,), finish))
    found = fidelity("chat", own, base, 20)
    assert (found.tokens, found.same, found.median_same) == (5, same, median)


def test_given_texts_have_perplexity_and_the_change_of_their_tokens():
    base = five(Asked("text", 0, (Token("7"), said("1", 0.5), said("2", 0.25))))
    own = five(Asked("text", 0, (Token("7"), said("1", 0.25), said("2", 0.25))))
    found = fidelity("text", own, base, 20)
    assert found.tokens == 10
    assert found.perplexity == pytest.approx(4)
    assert found.perplexity_ratio == pytest.approx(4 / exp(0.5 * (log(2) + log(4))))
    assert found.rms_change == pytest.approx((0.25**2 / 2) ** 0.5)


def test_a_token_that_cannot_be_has_a_perplexity():
    base = five(Asked("text", 0, (Token("7"), said("1", 0.5))))
    own = five(Asked("text", 0, (Token("7"), Token("1", -9999.0, {"2": 0.0}))))
    assert fidelity("text", own, base, 20).perplexity == pytest.approx(exp(700))


def test_a_text_with_a_token_of_unknown_probability_is_left_out_of_perplexity_alone():
    whole, unknown = said("1", 0.25), replace(said("1", 0.25), logprob=None)
    base = [Asked("text", item, (Token("7"), said("1", 0.5), said("1", 0.5))) for item in range(6)]
    own = [replace(row, tokens=(row.tokens[0], whole, unknown if row.item == 0 else whole)) for row in base]
    found = fidelity("text", heard(*own), heard(*base), 1)
    assert (found.items, found.perplexity, found.perplexity_ratio) == (6, pytest.approx(4), pytest.approx(2))
    # Of four texts the perplexity is not told.
    assert fidelity("text", heard(*own[:5]), heard(*base), 1).perplexity is None


def test_without_names_there_is_perplexity_alone_and_answers_are_told(tmp_path):
    alone = Voice(0.1, changes=lambda row: unnamed(row) if row.way == "text" else row)
    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: alone}))[NEAR]
    assert found.by_way["text"].kl_nats is None
    assert found.by_way["text"].perplexity_ratio == pytest.approx(1.0, abs=0.05)
    assert found.told.way == "chat"


def unnamed(row: Asked) -> Asked:
    return replace(row, tokens=tuple(replace(token, top={}) for token in row.tokens))


def renamed(row: Asked) -> Asked:
    of_bytes = [{f"<{name}>": value for name, value in token.top.items()} for token in row.tokens]
    return replace(row, tokens=tuple(map(lambda t, top: replace(t, top=top), row.tokens, of_bytes)))


@pytest.mark.parametrize(
    ("voice", "why"),
    [
        (
            Voice(changes=renamed, ways=("prompt", "chat")),
            "too few of its tokens have the same names as those of llama_cpp fp16",
        ),
        (Voice(sha256="0" * 64), "llama_cpp fp16 was asked other prompts and texts"),
        (Voice(ways=(), missing={"chat": "HTTP 500"}), "HTTP 500"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path, voice, why):
    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: voice}))[NEAR]
    assert (found.told, str(found.why), found.why_not_known) == (None, why, found.why)


def first(count: int, row: Asked) -> Asked:
    """Leave so many answers and texts."""
    return replace(row, tokens=row.tokens if row.item < count or row.way == "prompt" else ())


def test_fewer_than_five_texts_or_answers_are_too_few_to_tell(tmp_path):
    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: Voice(0.1, changes=partial(first, 4))}))
    near = found[NEAR]
    assert str(near.why_not_known) == "only 4 texts, 236 tokens"
    assert near.told is near.interval is None
    assert [(each.kl_nats, each.agreement, str(each.few)) for each in near.by_way.values()] == [
        (None, None, "only 4 texts, 236 tokens"),
        (None, None, f"only 4 answers, {near.by_way['chat'].tokens} tokens"),
    ]
    enough = Voice(0.1, changes=partial(first, 5))
    assert quality_of(asked(tmp_path / "5", {REFERENCE: Voice(), NEAR: enough}))[NEAR].told.items == 5


SENT = '{"id": "chat-1"}'


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        (because("answered_wrongly", what="POST /v1/x answered 500", sent=f": {SENT}"),
         because("answered_wrongly", what="POST /v1/x answered 500", sent="")),
        (because(
             "answered_wrongly", what="POST /v1/x answered what bench cannot read",
             sent=f" (JSON is malformed (byte 2)): {SENT}",
         ),
         because("answered_wrongly", what="POST /v1/x answered what bench cannot read", sent="")),
        ("it gives nan as the log-probability of 'a: b'",
         quoted("it gives nan as the log-probability of 'a: b'")),
    ],
)  # fmt: skip
def test_why_it_is_not_known_is_said_without_what_the_server_sent(tmp_path, why, cause):
    voice = Voice(ways=(), missing={"chat": why})
    assert quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: voice}))[NEAR].why_not_known == cause


def damage(run: Run, label: str, name: str) -> str:
    """Cut a file of a start short; return how it is named."""
    [start] = run.starts_of(label)
    path = run.path / "starts" / start.name / name
    path.write_bytes(path.read_bytes()[:-9] if path.is_file() else b"PAR1")
    return f"{start.name}/{name}"


def test_a_damaged_file_of_one_start_is_missing_and_the_others_are_compared(tmp_path):
    run = asked(tmp_path)
    name = damage(run, NEAR, "quality.parquet")
    tasks = damage(run, FAR, "tasks.parquet")
    run = open_run(tmp_path)
    found = quality_of(run)
    assert (found[NEAR].told, found[NEAR].why_not_known) == (None, because("damaged", file=name))
    assert found[FAR].told.kl_nats == pytest.approx(0.26, rel=0.15)
    assert notes(run) == [
        f"Not measured, or not all: {NEAR} by fidelity: {name}: damaged.",
        f"Not measured, or not all: {FAR} by tasks: {tasks}: damaged.",
    ]
    assert f"{NEAR}: {name}: damaged." in write_report(tmp_path, run=run).read_text(encoding="utf-8")


def test_without_the_answers_of_the_one_with_most_bits_there_is_no_reference(tmp_path):
    silent = Voice(ways=(), missing={"chat": "POST /v1/x got no answer in time"})
    found = quality_of(asked(tmp_path, {REFERENCE: silent, NEAR: Voice(0.1), FAR: Voice(0.9)}))
    assert found[REFERENCE].why == quoted("POST /v1/x got no answer in time")
    assert {(found[label].against, found[label].why) for label in (NEAR, FAR)} == {
        (None, because("reference_missing", label=REFERENCE))
    }


def test_a_reference_of_an_earlier_run_that_is_damaged_is_none(tmp_path):
    run = asked(tmp_path, {NEAR: Voice(0.1), FAR: Voice(0.9)}, quality=limited(against="results/before"))
    kept = tmp_path / store.REFERENCE
    store.write_record(kept / "start.json", replace(run.start_records[0], deployment=FP16))
    ask(kept, Voice())
    (kept / "quality.parquet").write_bytes(b"PAR1")
    found = quality_of(open_run(tmp_path))
    why = "no reference: the answers of llama_cpp fp16 of an earlier run are missing"
    assert {str(each.why) for each in found.values()} == {why}


def test_given_texts_whose_likeliest_tokens_are_all_others_are_far_apart(tmp_path):
    run = asked(tmp_path, {REFERENCE: Voice(), NEAR: Voice(changes=renamed)})
    assert quality_of(run)[NEAR].told.kl_nats > 3
    assert NEAR in beyond_limit(run)


def test_all_are_cut_to_as_many_tokens_as_each_names(tmp_path):
    run = asked(tmp_path, {REFERENCE: Voice(), NEAR: Voice(0.1), FAR: Voice(0.9, k=5)})
    found = quality_of(run)
    assert {found[label].told.k for label in (NEAR, FAR)} == {5}
    assert found[FAR].told.kl_nats < 0.26
    assert str(found[FAR].why_not_known) == "only the 5 likeliest tokens were compared, not 20"
    assert beyond_limit(run) == {}


def fewer(places: int, k: int, row: Asked) -> Asked:
    """Leave k names at the first places of one text."""
    if row.way != "text" or row.item != 0:
        return row
    cut = [replace(token, top=dict([*token.top.items()][:k])) for token in row.tokens[1 : 1 + places]]
    return replace(row, tokens=(row.tokens[0], *cut, *row.tokens[1 + places :]))


@pytest.mark.parametrize(("places", "k", "left_out"), [(35, 20, 35), (36, 5, 0)])
def test_fewer_names_at_fewer_than_one_place_in_twenty_leave_out_those(tmp_path, places, k, left_out):
    # Of 708 places 35 are less than 5 %.
    voice = Voice(0.1, changes=partial(fewer, places, 5))
    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: voice}))[NEAR].by_way["text"]
    assert (found.k, found.left_out, found.tokens) == (k, left_out, 708)
    assert ("without KL" in fidelity_texts(found)["tokens"]) == bool(left_out)


def test_a_run_that_was_asked_tasks_alone_has_no_fidelity(tmp_path):
    alone = Voice(ways=(), missing={"tasks": "no items"})
    assert quality_of(asked(tmp_path, {REFERENCE: alone, NEAR: alone})) == {}


def test_a_run_that_was_not_asked_has_no_quality(tmp_path):
    repeated_run(tmp_path, [Made(FP16), Made(Q8)], repeats=1, requests=3)
    run = open_run(tmp_path)
    assert (quality_of(run), beyond_limit(run)) == ({}, {})


# --- equal text ------------------------------------------------------------------------------------


def templated(row: Asked) -> Asked:
    ids = [*row.tokens[:2], Token("42"), *row.tokens[3:]]
    return replace(row, tokens=tuple(ids)) if row.way == "prompt" and row.item == 1 else row


def with_bos(row: Asked) -> Asked:
    return replace(row, tokens=(Token("0"), *row.tokens)) if row.way == "text" else row


def counted(row: Asked) -> Asked:
    return replace(row, prompt_tokens=31) if row.way == "chat" and row.item == 3 else row


def longer(row: Asked) -> Asked:
    return replace(row, tokens=(*row.tokens, Token("9"))) if row.way == "prompt" else row


NO_IDS = ("chat", "text")


@pytest.mark.parametrize(
    ("voice", "unlike"),
    [
        (Voice(changes=templated), "token 3 of its prompt 2 is 42, but 2 at llama_cpp fp16"),
        (Voice(changes=longer), "token 21 of its prompt 1 is 9, but no token at llama_cpp fp16"),
        (Voice(changes=with_bos), "token 1 of its text 1 is 0, but 1 at llama_cpp fp16"),
        (Voice(changes=counted, ways=NO_IDS), "its prompt 4 has 31 tokens, but 23 at llama_cpp fp16"),
        (Voice(ways=NO_IDS), None),
    ],
)
def test_other_tokens_are_named_and_such_a_deployment_cannot_win(tmp_path, voice, unlike):
    run = asked(tmp_path, {REFERENCE: Voice(), BF16.label: Voice(), NEAR: voice})
    assert str(quality_of(run)[NEAR].unlike) == str(unlike)
    assert sentences(beyond_limit(run)) == ({NEAR: f"not comparable: {unlike}"} if unlike else {})


UNLIKE = "not comparable: token 3 of its prompt 2 is 42, but 2 at llama_cpp gguf-q8_0"


def test_one_whose_text_is_not_that_of_most_is_no_reference_but_the_next_is(tmp_path):
    run = asked(tmp_path, {REFERENCE: Voice(changes=templated), NEAR: Voice(), FAR: Voice(0.9)})
    found = quality_of(run)
    assert found[NEAR].is_reference
    assert found[FAR].told.kl_nats == pytest.approx(0.26, rel=0.15)
    assert str(found[REFERENCE].why) == UNLIKE
    assert sentences(beyond_limit(run)) == {
        REFERENCE: UNLIKE,
        FAR: "KL 0.26 nats against llama_cpp gguf-q8_0: beyond quality.limit=0.1",
    }


def test_a_reference_that_was_named_stays_it_though_its_text_is_not_that_of_most(tmp_path):
    voices = {REFERENCE: Voice(changes=templated), NEAR: Voice(), FAR: Voice(0.9)}
    found = quality_of(asked(tmp_path, voices, quality=limited(against=REFERENCE)))
    assert str(found[NEAR].why) == f"llama_cpp fp16 is {UNLIKE}"
    assert found[NEAR].unlike is found[NEAR].told is None


@pytest.mark.parametrize("third", [Voice(ways=(), missing={"chat": "HTTP 500"}), Voice(sha256="0" * 64)])
def test_a_third_that_cannot_be_compared_does_not_say_which_of_two_is_right(tmp_path, third):
    run = asked(tmp_path, {REFERENCE: Voice(changes=templated), NEAR: Voice(), FAR: third})
    assert set(beyond_limit(run)) == {REFERENCE, NEAR}


def test_of_two_whose_texts_are_not_the_same_neither_can_win(tmp_path):
    run = asked(tmp_path, {REFERENCE: Voice(changes=templated), NEAR: Voice()})
    assert sentences(beyond_limit(run)) == {
        REFERENCE: "not comparable: token 3 of its prompt 2 is 42, but 2 at llama_cpp gguf-q8_0",
        NEAR: "not comparable: token 3 of its prompt 2 is 2, but 42 at llama_cpp fp16",
    }


# --- the limit -------------------------------------------------------------------------------------


def test_beyond_the_limit_is_who_is_not_known_to_be_within_it(tmp_path):
    run = asked(tmp_path)
    said = "KL 0.26 nats against llama_cpp fp16: beyond quality.limit=0.1"
    assert sentences(beyond_limit(run)) == {FAR: said}
    run.found_once.clear()
    limit = quality_of(run)[NEAR].told.interval[1] - 1e-5
    asked_as = {**run.record.settings, "slo.kl_nats.mean": (f"{limit:g}",)}
    tight = replace(run, record=replace(run.record, quality=limited(limit_nats=limit), settings=asked_as))
    said = "at most 0.0033: not known to be within slo.kl_nats.mean=0.003"
    assert said in str(beyond_limit(tight)[NEAR])


def test_without_a_limit_another_text_alone_is_left_out(tmp_path):
    voices = {REFERENCE: Voice(), FAR: Voice(0.9), NEAR: Voice(changes=with_bos)}
    run = asked(tmp_path, voices, quality=limited(limit_nats=None))
    unlike = "token 1 of its text 1 is 0, but 1 at llama_cpp fp16"
    assert sentences(beyond_limit(run)) == {NEAR: f"not comparable: {unlike}"}


def test_one_that_is_far_by_chat_alone_is_beyond_the_limit(tmp_path):
    def wrong_decode(row: Asked) -> Asked:
        return answer(Voice(3.0), "chat", row.item) if row.way == "chat" else row

    run = asked(tmp_path, {REFERENCE: Voice(), NEAR: Voice(0.1, changes=wrong_decode)})
    near = quality_of(run)[NEAR]
    assert near.by_way["text"].interval[1] < 0.1 < 1 < near.by_way["chat"].interval[0]
    assert near.told.way == "chat"
    assert near.interval == near.by_way["chat"].interval
    why = str(beyond_limit(run)[NEAR])
    assert re.fullmatch(r"KL \d\.\d+ nats by chat against llama_cpp fp16: beyond quality\.limit=0\.1", why)


def test_the_limit_is_held_against_texts_alone_where_answers_name_fewer_tokens(tmp_path):
    def few(row: Asked) -> Asked:
        tokens = (replace(token, top=dict([*token.top.items()][:5])) for token in row.tokens)
        return replace(row, tokens=tuple(tokens)) if row.way == "chat" else row

    run = asked(tmp_path, {REFERENCE: Voice(), NEAR: Voice(0.1), FAR: Voice(0.9, changes=few)})
    assert quality_of(run)[FAR].by_way["chat"].k == 5
    assert quality_of(run)[FAR].told.way == "text"
    assert set(beyond_limit(run)) == {FAR}


# --- asked again -----------------------------------------------------------------------------------

ALONE = Asked("chat", 0, (said("a", 0.5, b=0.45), said("c", 0.9, d=0.05)), "length")
RARE, TIE = replace(ALONE.tokens[1], name="d"), replace(ALONE.tokens[0], name="b")


@pytest.mark.parametrize(
    ("again", "became"),
    [
        (ALONE, "same"),
        (replace(ALONE, tokens=(TIE, RARE)), "tie"),
        (replace(ALONE, tokens=(ALONE.tokens[0], RARE)), "other"),
        (replace(ALONE, tokens=(ALONE.tokens[0], said("z", 0.9))), "other"),
        (replace(ALONE, tokens=ALONE.tokens[:1]), "cut"),
        (replace(ALONE, tokens=ALONE.tokens[:1], finish_reason="stop"), "other"),
        (replace(ALONE, tokens=(*ALONE.tokens, said("e", 0.9))), "other"),
        (replace(ALONE, tokens=()), "empty"),
        (replace(ALONE, tokens=(), error="HTTP 500"), "failed"),
    ],
)  # fmt: skip
def test_what_became_of_a_prompt_that_is_asked_again(again, became):
    assert outcome(ALONE, again) == became


def test_a_tie_is_known_by_the_answer_that_names_the_likeliest_tokens():
    drafted = replace(ALONE, tokens=(replace(ALONE.tokens[0], top={}), ALONE.tokens[1]))
    chosen = replace(ALONE, tokens=(TIE, RARE))
    assert (outcome(drafted, chosen), outcome(chosen, drafted)) == ("tie", "tie")
    assert outcome(drafted, replace(chosen, tokens=(replace(TIE, top={}), RARE))) == "other"


TEXT = Asked("chat", 0, answer="Because it is", finish_reason="length")


@pytest.mark.parametrize(
    ("again", "became"),
    [
        (TEXT, "same"),
        (replace(TEXT, answer="Because he is"), "other"),
        (replace(TEXT, answer="Because"), "cut"),
        (replace(TEXT, answer="Because", finish_reason="stop"), "other"),
        (replace(TEXT, answer=""), "empty"),
        (replace(TEXT, answer="", error="HTTP 500"), "failed"),
        (replace(ALONE, answer="Because it is"), "same"),
    ],
)
def test_answers_whose_tokens_are_not_told_are_compared_by_their_text(again, became):
    assert outcome(TEXT, again) == became


def mute(row: Asked) -> Asked:
    """Leave the text of an answer alone; under load the first is another."""
    text = "".join(token.name for token in row.tokens) + "?" * (row.way == "load" and row.item == 0)
    return replace(row, tokens=(), answer=text)


def test_a_server_that_names_no_probabilities_is_known_by_the_text_of_its_answers(tmp_path):
    why = "its API gives no probabilities of its tokens"
    mute_one = Voice(0.1, ways=("chat", "again", "load"), missing={"chat": why}, changes=mute)
    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: mute_one, FAR: Voice(0.9)}))
    assert (found[NEAR].told, found[NEAR].why_not_known, found[NEAR].unlike) == (None, quoted(why), None)
    assert found[NEAR].again == {"again": {"same": 2}, "load": {"same": 9, "other": 1}}
    assert found[FAR].told.k == 20


def test_the_prompts_of_a_server_that_names_no_probabilities_are_compared_by_their_length(tmp_path):
    voice = Voice(ways=("chat",), changes=lambda row: mute(replace(row, prompt_tokens=row.prompt_tokens + 1)))
    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), BF16.label: Voice(), NEAR: voice}))
    assert str(found[NEAR].unlike) == "its prompt 1 has 21 tokens, but 20 at llama_cpp fp16"


def test_a_token_that_was_not_among_the_likeliest_is_no_tie():
    # The first answer drew what the second would not: that is chance, not rounding.
    drawn = replace(ALONE, tokens=(replace(ALONE.tokens[0], top={"a": log(0.1), "b": log(0.85)}),))
    assert outcome(drawn, replace(ALONE, tokens=(TIE,))) == "other"
    unseen = replace(ALONE, tokens=(Token("z", log(0.01), ALONE.tokens[0].top),))
    assert outcome(unseen, replace(ALONE, tokens=(TIE,))) == "other"
    assert outcome(replace(ALONE, tokens=(Token("z"),)), replace(ALONE, tokens=(TIE,))) == "other"


def test_prompts_that_were_asked_again_are_counted_by_way(tmp_path):
    def drops(row: Asked) -> Asked:
        return replace(row, tokens=()) if row.way == "load" and row.item < 3 else row

    found = quality_of(asked(tmp_path, {REFERENCE: Voice(), NEAR: Voice(0.1, changes=drops)}))[NEAR].again
    assert found == {"again": {"same": 2}, "load": {"same": 7, "empty": 3}}
