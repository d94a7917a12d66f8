"""Quality of two runs: each deployment against its reference, B against A, and the gate's objectives."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import log
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bench_command import printed
from make_quality import Voice, with_quality
from make_run import HOSTILE, deployment
from make_sides import sides_run
from make_tasks import answers
from typer.testing import CliRunner

from serving_bench.harness.cli.app import app
from serving_bench.harness.cli.compare_text import print_comparison, print_gate
from serving_bench.harness.contracts import Asked, CompareTerms, EngineTerms, GateTerms, Token, sentence
from serving_bench.harness.errors import UserError
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import TASKS_FILE
from serving_bench.harness.store.quality_table import write_items
from serving_bench.reports import Gate, compare_runs, gate_runs, gate_to_builtins
from serving_bench.reports.outputs.gate_files import junit_text, markdown_text
from serving_bench.reports.page.several_runs import comparison_page
from serving_bench.reports.two_runs.answers import Answers

FP16, Q4 = "llama_cpp fp16", "llama_cpp gguf-q4_0"
STEADY = (100.0, 100.5, 101.0)
TTFT = CompareTerms(metrics=("ttft_s.p50",))
KL = "slo.kl_nats.mean"
SCORE = "slo.tasks.score"


def leaning(*shares: float, k: int = 20, **more: Any) -> Voice:
    """A server that knows twenty tokens and names k: at each place of text n the first has share n (over and
    over), and the others the rest alike."""

    def changed(row: Asked) -> Asked:
        if row.way != "text":
            return row
        share = shares[row.item % len(shares)]
        top = {"0": log(share)} | {str(name): log((1 - share) / 19) for name in range(1, k)}
        return replace(row, tokens=(row.tokens[0], *[Token("0", log(share), top)] * 4))

    return Voice(k=k, changes=changed, **more)


def kl(p: float, q: float) -> float:
    """The divergence of two that lean: of two shares, since the others differ by one factor."""
    return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))


def made(folder: Path, voices: Mapping[str, Voice | None], items: Mapping[str, str] = {}) -> Path:
    """A run of these deployments, asked for their tokens if they have a voice, and for items."""
    sides_run(folder, dict.fromkeys(voices, STEADY))
    with_quality(
        folder, {label: voice or Voice(k=0, ways=()) for label, voice in voices.items() if voice or items}
    )
    for record in store.read_starts(folder):
        if record.quality and record.deployment.label in items:
            write_items(folder / "starts" / record.name / TASKS_FILE, answers(items[record.deployment.label]))
    return folder


def compared(tmp_path: Path, a: Any, b: Any, items: Any = ({}, {})) -> dict[str, Answers]:
    sides = [made(tmp_path / name, each, own) for name, each, own in zip("ab", (a, b), items, strict=True)]
    return {each.deployment: each for each in compare_runs(*sides, TTFT).answers}


def gated(tmp_path: Path, base: Any, new: Any, items: Any = ({}, {}), **limits: float) -> Gate:
    sides = [
        made(tmp_path / name, each, own) for name, each, own in zip("ab", (base, new), items, strict=True)
    ]
    keys = {"kl": KL, "score": SCORE}
    return gate_runs(
        *sides, GateTerms("ttft_s.p50", 0.05, {keys[key]: limit for key, limit in limits.items()})
    )


def of_quality(gate: Gate) -> dict[str, tuple[str, str | None]]:
    cases = [each for each in gate.cases if each.rule.name in (KL, SCORE)]
    return {each.case.name: (each.outcome, each.why and str(each.why)) for each in cases}


MUTE = Voice(k=0, ways=(), missing={"chat": "its API names none"})
NOT_ASKED = "was not asked in NEW: run it with quality=fidelity,tasks"
NOT_MEASURED = "quality was not measured in"
USUAL = {FP16: leaning(0.5), Q4: leaning(0.25)}


# --- B against A -----------------------------------------------------------------------------------


def test_each_is_held_against_its_own_reference_and_b_against_a(tmp_path):
    found = compared(tmp_path, USUAL, {FP16: leaning(0.5), Q4: leaning(0.125)})
    four = found[Q4]
    assert four.a.told.kl_nats == pytest.approx(kl(0.5, 0.25)) == pytest.approx(0.1438, abs=1e-4)
    assert four.b.told.kl_nats == pytest.approx(kl(0.5, 0.125)) == pytest.approx(0.4133, abs=1e-4)
    assert four.b_to_a.told.kl_nats == pytest.approx(kl(0.25, 0.125)) == pytest.approx(0.0577, abs=1e-4)
    assert four.figures == {
        "KL nats": ("0.14 [0.14, 0.14]", "0.41 [0.41, 0.41]", "0.058 [0.058, 0.058]"),
        "same token %": ("100", "100", "100"),
    }
    assert found[FP16].figures["KL nats"] == ("reference", "reference", "0.00 [0.00, 0.00]")
    assert list(four.notes) == [
        f"A: over 12 texts, against {FP16}",
        f"B: over 12 texts, against {FP16}",
        f"B against A: over 12 texts, against {Q4} of A",
    ]


def test_another_likeliest_token_is_not_the_same(tmp_path):
    """Of a twentieth or less the first of twenty is not the likeliest: here at every other text."""
    found = compared(tmp_path, {FP16: leaning(0.5)}, {FP16: leaning(0.5, 0.01)})
    assert found[FP16].figures["same token %"] == ("–", "–", "50")


def shifted(row):
    return replace(row, tokens=(Token(HOSTILE), *row.tokens[1:])) if row.way == "prompt" else row


UNLIKE = f"not comparable: token 1 of its prompt 1 is {HOSTILE}, but 0 at {FP16} of A"


@pytest.mark.parametrize(
    ("a", "b", "note"),
    [
        (leaning(0.5), None, "quality was not measured in B: run it with quality=fidelity"),
        (None, leaning(0.5), "quality was not measured in A: run it with quality=fidelity"),
        (
            leaning(0.5),
            leaning(0.5, sha256="0"),
            f"B against A: {FP16} of A was asked other prompts and texts",
        ),
        (leaning(0.5), Voice(changes=shifted), f"B against A: {UNLIKE}"),
        (leaning(0.5), MUTE, "B: its API names none"),
    ],
)
def test_what_one_side_does_not_tell_is_said(tmp_path, a, b, note):
    [found] = compared(tmp_path, {FP16: a}, {FP16: b}).values()
    assert note in found.notes
    assert found.figures["KL nats"][2] == "–"


def test_runs_that_were_not_asked_have_no_part_on_quality(tmp_path):
    assert compared(tmp_path, {FP16: None}, {FP16: None}) == {}


def test_scores_have_flips_and_mcnemars_p_on_the_same_items(tmp_path):
    before, after = "r" * 8 + "w" + "rrr" + "ww" + "-r", "w" * 8 + "r" + "rrr" + "ww" + "r-"
    [found] = compared(tmp_path, {Q4: None}, {Q4: None}, ({Q4: before}, {Q4: after})).values()
    # Of nine coins at most one falls the other way, in either direction: 2 (1 + 9) / 2^9.
    assert found.scores["bench-basics"][1].flips.p == pytest.approx(20 / 512)
    a, b, flips = found.figures["bench-basics"]
    assert (a.partition(" ")[0], b.partition(" ")[0]) == ("80.0", "33.3")
    assert flips == "of 14 items 8 right to wrong, 1 wrong to right, p 0.039"
    assert list(found.figures) == ["bench-basics"]


def test_a_task_of_one_side_is_said_to_be_of_one_side(tmp_path):
    [found] = compared(tmp_path, {Q4: None}, {Q4: None}, ({Q4: "rrww"}, {})).values()
    assert found.figures["bench-basics"][1:] == ("–", "–")
    assert list(found.notes) == ["bench-basics was not asked in B: run it with quality=fidelity,tasks"]


def test_quantizations_with_known_answers_are_not_distrusted_for_their_quality(tmp_path):
    for b, is_doubted in ((leaning(0.25), False), (None, True)):
        sides = (
            made(tmp_path / f"a{is_doubted}", {FP16: leaning(0.5)}),
            made(tmp_path / f"b{is_doubted}", {Q4: b}),
        )
        found = compare_runs(f"{sides[0]}:{FP16}", f"{sides[1]}:{Q4}", TTFT)
        assert ("quality_not_measured" in [each.check for each in found.distrust]) == is_doubted
        [answers] = found.answers
        assert answers.deployment == f"{Q4} against {FP16}"


@pytest.mark.parametrize("terms", [EngineTerms(kv_cache_type="q8_0"), EngineTerms(speculation="ngram")])
def test_other_terms_that_bear_on_answers_are_distrusted_where_these_are_not_known(tmp_path, terms):
    other = {FP16: replace(deployment("llama_cpp", "fp16"), terms=terms)}
    a, alike = (made(tmp_path / name, {FP16: None}) for name in ("a", "alike"))
    b = sides_run(tmp_path / "b", {FP16: STEADY}, made=other)
    doubts = [[each.check for each in compare_runs(a, side, TTFT).distrust] for side in (b, alike)]
    assert ["quality_not_measured" in each for each in doubts] == [True, False]


# --- the gate --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "outcome", "code"), [(0.2, "pass", 0), (0.02, "fail", 1), (0.07, "inconclusive", 3)]
)
def test_the_interval_of_the_divergence_decides(tmp_path, limit, outcome, code):
    """Six of twelve texts differ by 0.1438, six by 0: 0.0719. The error relative to that is
    sqrt(12 x 12 / 11) / 12 = 0.3015, t(11) = 2.201, the factor e^0.6636 = 1.942: 0.0370 to 0.1397."""
    gate = gated(tmp_path, USUAL, {FP16: leaning(0.5), Q4: leaning(0.5, 0.25)}, kl=limit)
    found = of_quality(gate)
    assert found[FP16] == ("pass", None)
    assert (found[Q4][0], gate.outcome, gate.exit_code) == (outcome, outcome, code)
    assert ("the limit is within its interval" in (found[Q4][1] or "")) == (outcome == "inconclusive")
    [four] = [each for each in gate.cases if each.rule.name == KL and each.case.name == Q4]
    assert four.case.notes == (f"held against {FP16}", f"held against {Q4} of BASE")
    assert four.cells[1] == "0.072 [0.037, 0.14]"


def test_a_reference_that_answers_otherwise_than_in_base_is_caught(tmp_path):
    gate = gated(tmp_path, {FP16: leaning(0.5)}, {FP16: leaning(0.25), Q4: leaning(0.25)}, kl=0.1)
    assert of_quality(gate) == {FP16: ("fail", None), Q4: ("pass", None)}
    [first] = [each for each in gate.cases if each.outcome == "fail"]
    assert first.cells == ("reference", "reference", "0.14 [0.14, 0.14]")
    assert first.case.notes == (f"held against {FP16} of BASE",)
    assert gate.summary == (
        "FAIL: ttft_s.p50 is not worse by more than 5 % in 1 case (95 % confidence, one comparison); "
        "slo.kl_nats.mean is above 0.1 in 1 of 2 cases (95 % each)"
    )


@pytest.mark.parametrize(
    ("base", "own", "outcome"), [(0.5, 0.25, "fail"), (0.25, 0.25, "pass"), (0.5, 0.5, "fail")]
)
def test_the_worse_of_its_reference_and_of_base_counts(tmp_path, base, own, outcome):
    """The first is broken as its reference in NEW is, so that within NEW nothing differs. The last is as in
    BASE, but not as its reference."""
    sides = ({FP16: leaning(0.5), Q4: leaning(base)}, {FP16: leaning(0.25), Q4: leaning(own)})
    assert of_quality(gated(tmp_path, *sides, kl=0.1))[Q4] == (outcome, None)


@pytest.mark.parametrize(
    ("base", "new", "why"),
    [
        (leaning(0.5), None, f"{NOT_MEASURED} NEW: run it with quality=fidelity"),
        (None, None, f"{NOT_MEASURED} NEW: run it with quality=fidelity"),
        (None, leaning(0.5), f"{NOT_MEASURED} BASE: run it with quality=fidelity"),
        (leaning(0.5), leaning(0.5, k=12), "only the 12 likeliest tokens were compared, not 20"),
        (leaning(0.5), MUTE, "its API names none"),
    ],
)
def test_what_was_not_measured_is_inconclusive_and_says_what_would_measure_it(tmp_path, base, new, why):
    gate = gated(tmp_path, {FP16: base}, {FP16: new}, kl=0.1)
    assert (gate.exit_code, of_quality(gate)) == (3, {FP16: ("inconclusive", why)})


@pytest.mark.parametrize(("least", "outcome"), [(0.8, "pass"), (0.96, "fail"), (0.9, "inconclusive")])
def test_wilsons_interval_of_a_score_decides(tmp_path, least, outcome):
    """Of 90 in 100 it is 0.826 to 0.945."""
    items = ({FP16: "r" * 80 + "w" * 20}, {FP16: "r" * 90 + "w" * 10})
    gate = gated(tmp_path, {FP16: None}, {FP16: None}, items, score=least)
    assert (of_quality(gate)[f"{FP16}, bench-basics"][0], gate.outcome) == (outcome, outcome)
    turned = "of 100 items 0 right to wrong, 10 wrong to right, p 0.0020"
    assert gate.cases[-1].cells == ("80.0 [71.1, 86.7]", "90.0 [82.6, 94.5]", turned)


@pytest.mark.parametrize(
    ("items", "why"),
    [
        (({FP16: "rrww"}, {}), f"bench-basics {NOT_ASKED}"),
        (({}, {FP16: "r--"}), "1 item with a score is too few"),
    ],
)
def test_a_score_that_is_not_known_is_inconclusive(tmp_path, items, why):
    gate = gated(tmp_path, {FP16: None}, {FP16: None}, items, score=0.5)
    assert of_quality(gate) == {f"{FP16}, bench-basics": ("inconclusive", why)}


def test_a_task_that_new_was_not_asked_is_named_beside_another_one(tmp_path):
    base, new = (made(tmp_path / name, {FP16: None}, {FP16: "rrww"}) for name in "ab")
    [start] = [each for each in store.read_starts(new) if each.quality]
    write_items(new / "starts" / start.name / TASKS_FILE, answers("r" * 40, "gsm8k"))
    gate = gate_runs(base, new, GateTerms("ttft_s.p50", 0.05, {SCORE: 0.5}))
    assert of_quality(gate) == {
        f"{FP16}, bench-basics": ("inconclusive", f"bench-basics {NOT_ASKED}"),
        f"{FP16}, gsm8k": ("pass", None),
    }


def test_a_gate_of_scores_without_any_task_is_inconclusive(tmp_path):
    gate = gated(tmp_path, {FP16: None}, {FP16: None}, score=0.5)
    assert of_quality(gate) == {
        FP16: ("inconclusive", "no task was asked in NEW: run it with quality=fidelity,tasks")
    }


def test_one_deployment_of_each_side_is_gated_alone(tmp_path):
    base, new = (made(tmp_path / name, USUAL) for name in "ab")
    gate = gate_runs(f"{base}:{FP16}", f"{new}:{Q4}", GateTerms("ttft_s.p50", 0.05, {KL: 0.1}))
    assert of_quality(gate) == {f"{Q4} against {FP16}": ("fail", None)}
    assert gate.cases[-1].cells == ("reference", "0.14 [0.14, 0.14]", "0.14 [0.14, 0.14]")


def test_a_deployment_of_new_alone_is_held_against_its_own_reference(tmp_path):
    gate = gated(tmp_path, {FP16: leaning(0.5)}, USUAL, kl=0.2)
    assert of_quality(gate) == {FP16: ("pass", None), Q4: ("pass", None)}


# --- what is written -------------------------------------------------------------------------------


def test_every_form_of_the_comparison_has_its_quality(tmp_path):
    items = ({FP16: "rrrw"}, {FP16: "rrww"})
    a, b = (
        made(tmp_path / name, {FP16: voice}, own)
        for name, voice, own in zip("ab", (leaning(0.5), Voice(changes=shifted)), items, strict=True)
    )
    found = compare_runs(a, b, TTFT)
    terminal, page = " ".join(printed(300, print_comparison, found).split()), comparison_page(found)
    assert "llama_cpp fp16, quality: B against A: not comparable: token 1" in terminal
    assert "bench-basics 75.0 [30.1, 95.4] 50.0 [15.0, 85.0] of 4 items 1 right to wrong" in terminal
    assert "Quality, llama_cpp fp16" in page
    assert "of 4 items 1 right to wrong, 0 wrong to right, p 1.000" in page
    assert "<img src=x" not in page
    [told] = json.loads(json.dumps(asdict(found), default=sentence))["answers"]
    assert told["b_to_a"]["unlike"].startswith("token 1 of its prompt 1 is")
    assert [each["score"] for each in told["scores"]["bench-basics"]] == [0.75, 0.5]


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """A gate whose speed passes, one objective of which fails and one is not decided."""
    return gated(tmp_path_factory.mktemp("gate"), USUAL, USUAL, kl=0.1, score=0.5)


def test_every_form_of_the_gate_has_the_cases_of_quality(gate):
    [suite] = ElementTree.fromstring(junit_text(gate))
    counts = [suite.get(name) for name in ("tests", "failures", "skipped")]
    assert counts == ["6", "1", "2"]
    [failed] = [each for each in suite.findall("testcase") if each.find("failure") is not None]
    assert (failed.get("name"), failed.get("classname")) == (Q4, f"bench.gate.{KL}")
    assert failed[0].get("message") == (
        "slo.kl_nats.mean=0.1, in nats; BASE 0.14 [0.14, 0.14], NEW 0.14 [0.14, 0.14]; "
        "NEW against BASE: 0.00 [0.00, 0.00]"
    )
    markdown = markdown_text(gate)
    assert "\nslo.kl_nats.mean=0.1, in nats:\n" in markdown
    assert "| `llama_cpp gguf-q4_0` | `–` | `–` | 0.14 \\[0.14, 0.14\\] |" in markdown
    assert f"\n- {Q4}: held against {FP16}\n" in markdown
    assert printed(300, print_gate, gate).splitlines()[-1] == gate.summary
    assert "slo.tasks.score is not decided in 2 of 2 cases" in gate.summary
    made = json.loads(json.dumps(gate_to_builtins(gate), default=sentence))
    assert made["limits"] == {KL: 0.1, SCORE: 0.5}
    assert [each["outcome"] for each in made["cases"] if each["rule"]["name"] == KL] == ["pass", "fail"]


def test_without_objectives_of_quality_the_gate_is_of_speed_alone(tmp_path):
    gate = gated(tmp_path, USUAL, {FP16: leaning(0.5), Q4: None})
    assert (gate.outcome, len(gate.cases), gate.compared.answers) == ("pass", 2, ())


def test_the_command_takes_objectives_of_quality_and_refuses_those_of_requests(tmp_path):
    sides = [str(made(tmp_path / name, USUAL)) for name in "ab"]
    keys = ["gate.metric=ttft_s.p50", f"{KL}=0.2"]
    done = CliRunner().invoke(app, ["gate", *sides, *keys])
    assert (done.exit_code, "slo.kl_nats.mean is not above 0.2 in 2 cases" in done.output) == (0, True)
    assert CliRunner().invoke(app, ["gate", *sides, keys[0], f"{KL}=0.1"]).exit_code == 1


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (
            "slo.ttft_s.p95=500ms",
            "no such key here; choose from gate.metric, gate.max_regression, slo.kl_nats.mean, ",
        ),
        ("slo.kl_nats.p95=1", "no such key here; did you mean slo.kl_nats.mean?"),
        ("slo.kl_nats.mean=off", "must be a number of nats, such as 0.1"),
        ("slo.kl_nats.mean=-1", "must be 0 or more"),
        ("slo.tasks.score=120%", "must be 100% or less"),
    ],
)
def test_objectives_that_the_gate_cannot_judge_are_refused_in_one_line(key, why):
    done = CliRunner().invoke(app, ["gate", ".", ".", key])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"{key}: {why}")
    assert "\n" not in str(done.exception)
