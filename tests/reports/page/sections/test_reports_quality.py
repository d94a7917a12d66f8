"""The page and other outputs of a run whose deployments were asked for their quality."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import pytest
from browser import browser, draw_all, open_all, problems, show  # noqa: F401
from make_quality import Voice, with_quality
from make_run import HOSTILE, deployment
from page_data import charts_in, plain, section_of
from repeated_run import Made, repeated_run

from serving_bench.harness.cli.ending import tell
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import Load, Token, because
from serving_bench.harness.store import store
from serving_bench.reports import open_run, tables_of, write_report
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.outputs.as_json import json_text, to_builtins
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.page.document import page
from serving_bench.reports.page.sections.quality import fidelity
from serving_bench.reports.verdicts.decisions import front_of
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.quality import front, nats, notes, origins

FP16, Q8, Q4, VLLM = (
    deployment(*each.split())
    for each in ("llama_cpp fp16", "llama_cpp gguf-q8_0", "llama_cpp gguf-q4_0", "vllm bf16")
)
NOTE = "made from the Q4_1 file"
NOT_MEASURED = "One that answers worse may be faster, so speed and memory alone do not decide"


def under_load(row):
    """Under load two answers break off, one is another, one parts from the first one's at a near tie."""
    if row.way == "load" and row.item < 2:
        return replace(row, tokens=row.tokens[:5])
    token = row.tokens[4] if row.way in ("chat", "load") and row.item in (2, 3) else None
    if token is None:
        return row
    if row.item == 3:
        token = replace(token, top={**token.top, "near": token.top[token.name] - 0.2})
    name = {2: HOSTILE, 3: "near"}[row.item] if row.way == "load" else token.name
    return replace(row, tokens=(*row.tokens[:4], replace(token, name=name), *row.tokens[5:]))


def unsteady(row):
    """Asked again it answers with another first token."""
    return replace(row, tokens=(Token("?"), *row.tokens[1:])) if row.way == "again" else row


def hostile(row):
    return replace(row, tokens=(Token(HOSTILE), *row.tokens[1:])) if row.way == "prompt" else row


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = [Made(FP16, 1.3), Made(Q8), Made(Q4, 0.7), Made(VLLM, 1.4)]
    notes = {"start_changes": lambda start: {"weights": {"note": NOTE}} if start.deployment == FP16 else {}}
    folder = repeated_run(tmp_path_factory.mktemp("asked"), made, (Load(concurrency=4),), 3, **notes)
    voices = [Voice(), Voice(0.1, changes=under_load), Voice(0.9, changes=unsteady), Voice(changes=hostile)]
    return with_quality(folder, {each.deployment.label: voices[at] for at, each in enumerate(made)})


@pytest.fixture(scope="module")
def run(path):
    return open_run(path)


@pytest.fixture(scope="module")
def html(path, run):
    return write_report(path, run=run).read_text(encoding="utf-8")


section = partial(section_of, name="quality")
HEADS = ("KL p99", "same token %", "perplexity", "perplexity ratio", "the same", "near ties", "cut off")


def test_the_section_has_each_way_and_what_became_of_prompts_asked_again(run, html):
    claim, [against] = fidelity(run).claim.strip(), origins(run)
    assert [text for text in (claim, against) if text not in section(html)] == []
    assert [words for words in HEADS if f">{words}</th>" not in section(html)] == []


def test_the_claim_is_how_far_each_is_from_the_reference_and_the_curve_how_long_answers_agree(run):
    claim = fidelity(run).claim
    assert claim == "Against llama_cpp fp16: llama_cpp gguf-q8_0 KL 0.0032, llama_cpp gguf-q4_0 KL 0.26. "
    assert origins(run) == ["KL is against llama_cpp fp16 (made from the Q4_1 file)."]
    chart = charts_in(run)["answers-same"]
    assert [trace["name"] for trace in chart.traces] == ["llama_cpp gguf-q8_0", "llama_cpp gguf-q4_0"]
    assert all(trace["y"][0] == 100 and trace["y"] == sorted(trace["y"])[::-1] for trace in chart.traces)


def test_a_chart_has_speed_quality_and_memory_of_those_that_have_all_three(run):
    chart = charts_in(run)["speed-quality-memory"]
    fp16, q8, q4 = chart.traces
    names = ["llama_cpp fp16", "llama_cpp gguf-q8_0", "llama_cpp gguf-q4_0"]
    assert [trace["name"] for trace in (fp16, q8, q4)] == names, "vllm's text is another one"
    axis = chart.layout["xaxis"]
    assert dict(zip(axis["tickvals"], axis["ticktext"], strict=True))[fp16["x"][0]] == "0"
    known = tables_of(run)["quality"].query("way == 'text'").set_index("deployment")["kl_nats"].dropna()
    assert [q8["x"][0], q4["x"][0]] == pytest.approx([known[names[1]], known[names[2]]], rel=1e-4)
    assert 10 ** axis["range"][0] < fp16["x"][0] < q8["x"][0] < q4["x"][0] < 10 ** axis["range"][1]


@pytest.mark.parametrize(
    ("noise", "said", "is_at_zero"), [(1e-3, "<0.00001", True), (1e-2, "0.000034", False)]
)
def test_a_divergence_that_is_rounding_has_no_digits_and_no_place_of_its_own(
    tmp_path, noise, said, is_at_zero
):
    repeated_run(tmp_path, [Made(FP16), Made(Q8, 0.8)], (Load(concurrency=4),), 3)
    run = open_run(with_quality(tmp_path, {FP16.label: Voice(), Q8.label: Voice(noise)}))
    [near] = [each for each in front_of(run) if each.group.deployment == Q8.label]
    assert nats(near.kl_nats).startswith(said)
    (zero,), (at,) = (trace["x"] for trace in charts_in(run)["speed-quality-memory"].traces)
    assert (at == zero) == is_at_zero


def test_who_is_beaten_in_all_three_is_named_in_its_caption(run):
    (first, second, third) = front_of(run)
    even = replace(second, kl_nats=first.kl_nats, memory_bytes=first.memory_bytes, speed=first.speed)
    worse = replace(third, kl_nats=0.9, memory_bytes=first.memory_bytes + 1, speed=first.speed)
    said = "Beaten in speed, quality and memory at once, by their means: llama_cpp gguf-q4_0 (by "
    assert front([first, even, worse]).startswith(said)
    smaller = replace(worse, memory_bytes=first.memory_bytes - 1)
    assert front([first, even, smaller]).startswith(
        "Beaten in speed, quality and memory at once, by their means: no deployment."
    )


def test_the_first_screen_has_divergence_and_agreement_of_each(run, html):
    first = html.partition('id="answer"')[2].partition("<section")[0]
    near, of_base, *_ = (row["quality"]["cells"]["KL nats"] for row in to_builtins(run)["answers"][0]["rows"])
    assert ">KL nats</th>" in first
    assert [cell for cell in (near, of_base, "beyond quality.limit=") if cell not in plain(first)] == []
    assert 'href="#distrust-answers_change_under_load"' in first.partition("doubts")[0]


def test_answers_under_load_and_other_tokens_mark_the_speed(run):
    tables = tables_of(run)
    found = tables["findings"].set_index("check")
    changed = found.loc["answers_change_under_load"]
    assert "llama_cpp gguf-q8_0: 1 of 10 different, 2 of 10 cut off" in changed["text"]
    assert changed["marks"]
    assert "vllm bf16: token 1 of its prompt 1 is " in found.loc["text_not_comparable", "text"]
    # vllm's answers are of another text, so its quality is not known.
    not_measured = found.loc["quality_not_measured", "text"]
    assert not_measured.startswith(f"{NOT_MEASURED}: vllm bf16: not comparable: token 1 of ")
    again = found.loc["not_repeatable"]
    assert again["text"].startswith(
        "The same prompts were asked twice without load, so what differs from the reference may be chance: "
        "llama_cpp gguf-q4_0: 2 of 2 different"
    )
    assert not again["marks"]
    values = tables["values"].query("metric == 'output_tokens_per_s'").set_index("deployment")["marks"]
    assert values["llama_cpp gguf-q8_0"] == "answers_change_under_load"
    assert values["vllm bf16"] == "text_not_comparable"


def test_all_outputs_have_the_same_values(run):
    table = tables_of(run)["quality"]
    near = table.query("deployment == 'llama_cpp gguf-q8_0' and way == 'text'").iloc[0]
    rows = {row["deployment"]: row["quality"] for row in to_builtins(run)["answers"][0]["rows"]}
    assert rows["llama_cpp gguf-q8_0"]["kl_nats"] == near["kl_nats"]
    assert tuple(rows["llama_cpp gguf-q8_0"]["interval"]) == (near["low"], near["high"])
    assert rows["llama_cpp fp16"]["cells"] == {"KL nats": "reference", "same token %": "–"}
    assert rows["vllm bf16"]["why"].startswith("not comparable: ")
    cells = {"KL nats": "0.0032 [0.0031, 0.0033]", "same token %": "95"}
    assert rows["llama_cpp gguf-q8_0"]["cells"] == cells
    listed = json.loads(json_text(run))["tables"]["quality"]
    assert near["kl_nats"] in [row["kl_nats"] for row in listed]
    again = tables_of(run)["asked_again"].query("deployment == 'llama_cpp gguf-q8_0' and way == 'load'")
    columns = ["at_once", "same", "tie", "other", "empty", "cut", "failed"]
    assert again[columns].values.tolist() == [[4, 6, 1, 1, 0, 2, 0]]


def test_markdown_has_the_cells_of_quality(run):
    cells = [row["quality"]["cells"].values() for row in to_builtins(run)["answers"][0]["rows"]]
    escaped = [" | ".join(each).replace("[", "\\[").replace("]", "\\]") for each in cells]
    assert all(f"| {each} |" in markdown_text(run) for each in escaped)


def one_answer(row):
    """One answer of one token is all that it says."""
    return replace(row, tokens=row.tokens[:1] if (row.way, row.item) == ("chat", 0) else ())


LONGER = "bench run quality=fidelity quality.budget=60s"
LATE = because("asked_too_late", budget="12 s")


@pytest.mark.parametrize(
    ("voices", "settings", "said"),
    [
        # The reference was not asked yet, or nobody: what goes on with the run asks it.
        ({Q8.label: Voice(0.1)}, {}, "bench run --resume {}"),
        ({}, {}, "bench run --resume {}"),
        ({}, {"quality": ["off"]}, "bench run quality=fidelity"),
        ({FP16.label: Voice(), Q8.label: Voice(changes=one_answer)}, {}, LONGER),
        ({FP16.label: Voice(), Q8.label: Voice(ways=(), missing={"text": LATE})}, {}, LONGER),
        # A server that names no probabilities names none later, either.
        ({FP16.label: Voice(), Q8.label: Voice(ways=(), missing={"text": "it tells none"})}, {}, ""),
        ({FP16.label: Voice(), Q8.label: Voice(0.1)}, {}, None),
    ],
)
def test_where_quality_is_not_known_a_command_says_how_to_know_it(tmp_path, voices, settings, said):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8, 0.5)], (Load(concurrency=4),), 3)
    record = store.read_run(path)
    asked = replace(record.quality, asked=()) if settings else record.quality
    store.write_record(path / "run.json", replace(record, settings=settings, quality=asked))
    run = open_run(with_quality(path, voices) if voices else path)
    found = [each.command for each in findings_of(run) if each.check == "quality_not_measured"]
    assert found == ([] if said is None else [said.format(path)])
    doubts = write_report(path, run=run).read_text().partition('<div class="why-box doubts">')[2]
    reason = doubts.partition('<a href="#distrust-quality_not_measured">')[2].partition("</li>")[0]
    assert bool(reason) is (said is not None)
    if said:
        assert said.format(path) in re.sub("<[^>]+>", "", reason)
    else:
        assert '<code class="command">' not in reason


@pytest.mark.parametrize(("budget_s", "longer"), [(30.0, "60s"), (45.5, "91s"), (600.0, "1200s")])
def test_more_time_for_quality_is_at_least_twice_what_did_not_suffice(tmp_path, budget_s, longer):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8, 0.5)], (Load(concurrency=4),), 3)
    record = store.read_run(path)
    terms = replace(record.quality, budget_s=budget_s)
    store.write_record(path / "run.json", replace(record, settings={}, quality=terms))
    voices = {FP16.label: Voice(), Q8.label: Voice(ways=(), missing={"text": LATE})}
    run = open_run(with_quality(path, voices))
    (found,) = (each for each in findings_of(run) if each.check == "quality_not_measured")
    assert found.command == f"bench run quality=fidelity quality.budget={longer}"


def test_a_divergence_of_too_few_is_not_known_in_all_outputs(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8), Made(Q4, 0.5)], (Load(concurrency=4),), 3, 60)
    voices = {FP16.label: Voice(), Q8.label: Voice(0.1), Q4.label: Voice(0.9, changes=one_answer)}
    run, why = open_run(with_quality(path, voices)), "only 1 answer, 1 token"
    (row,) = tables_of(run)["quality"].query("deployment == 'llama_cpp gguf-q4_0'").to_dict("records")
    assert (row["tokens"], row["why"], math.isnan(row["kl_nats"])) == (1, why, True)
    (listed,) = (each for each in to_builtins(run)["answers"][0]["rows"] if each["deployment"] == Q4.label)
    assert (listed["quality"]["kl_nats"], listed["quality"]["why"]) == (None, why)
    assert listed["quality"]["cells"] == {"KL nats": f"– ({why})", "same token %": "–"}
    assert f"| – ({why}) | – |" in markdown_text(run)
    (said,) = answers_of(run)
    assert f"; its quality is not known ({why})." in said.text
    made, charts = fidelity(run), charts_in(run)
    assert f"llama_cpp gguf-q8_0 KL 0.0032. Not known: llama_cpp gguf-q4_0 ({why}). " in made.claim
    assert f'<span class="range">{why}</span>' in made.body
    assert [trace["name"] for trace in charts["answers-same"].traces] == [Q8.label]
    assert Q4.label not in [trace["name"] for trace in charts["speed-quality-memory"].traces]
    text = tables_of(run)["findings"].set_index("check").loc["quality_not_measured", "text"]
    assert text == f"{NOT_MEASURED}: llama_cpp gguf-q4_0: {why}."


def test_what_was_not_measured_is_told_with_what_the_server_sent_and_the_answer_quotes_nothing(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8, 0.5)], (Load(concurrency=4),), 3, 60)
    sent = 'POST /v1/chat/completions answered 500: {"error": "no NaN"}'
    what, colon, rest = sent.partition(":")
    why = because("answered_wrongly", what=what, sent=colon + rest)
    silent = Voice(ways=(), missing={"chat": why, "load": why, "text": "got no answer in time"})
    run = open_run(with_quality(path, {FP16.label: Voice(), Q8.label: silent}))
    assert notes(run) == [
        f"Not measured, or not all: llama_cpp gguf-q8_0 by chat, llama_cpp gguf-q8_0 by load: {sent}.",
        "Not measured, or not all: llama_cpp gguf-q8_0 by text: got no answer in time.",
    ]
    html = page(run)
    assert plain(sent) in plain(section(html))
    (said,) = answers_of(run)
    assert f"; its quality is not known ({what})." in said.text
    assert "NaN" not in html.partition("<section")[0]


def cut_at_one_place(most, row):
    token = replace(row.tokens[1], top=dict([*row.tokens[1].top.items()][:most]))
    return replace(row, tokens=(row.tokens[0], token, *row.tokens[2:])) if row.way == "text" else row


def test_places_without_divergence_are_counted_in_all_outputs(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8), Made(Q4)], (Load(concurrency=4),), 1, 5)
    few, none = (Voice(0.1, changes=partial(cut_at_one_place, most)) for most in (5, 0))
    run = open_run(with_quality(path, {FP16.label: Voice(), Q8.label: few, Q4.label: none}))
    rows = tables_of(run)["quality"].query("way == 'text'").set_index("deployment")
    assert dict(rows["left_out"]) == {Q8.label: 12, Q4.label: 12}
    found = {row["deployment"]: row["quality"]["left_out"] for row in to_builtins(run)["answers"][0]["rows"]}
    assert found == {FP16.label: None, Q8.label: 12, Q4.label: 12}


def test_the_terminal_has_divergence_and_agreement_behind_the_values(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    tell(run, 0, Show(quiet=False), as_json=False)
    said = capsys.readouterr().err
    near = next(line for line in said.splitlines() if line.startswith("llama_cpp gguf-q8_0 "))
    assert near.split()[-4:] == ["0.0032", "[0.0031,", "0.0033]", "95"]
    assert "picks another token at 35 of 100 positions (KL 0.26)" in said


def test_a_run_none_of_whose_cells_counts_has_its_quality(tmp_path):
    spoilt = {"cell_changes": lambda cell, start: {"validity": "invalid", "reasons": ("it swapped",)}}
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8)], (Load(concurrency=4),), 1, 5, **spoilt)
    run = open_run(with_quality(path, {FP16.label: Voice(), Q8.label: Voice(0.1)}))
    assert "Against llama_cpp fp16: llama_cpp gguf-q8_0 KL 0.0032. " in fidelity(run).claim


def test_a_run_that_was_not_asked_says_that_nobody_measured(tmp_path):
    path = repeated_run(tmp_path, [Made(FP16), Made(Q8)], (Load(concurrency=4),), 1, 5)
    html = page(open_run(path))
    assert "Quality was not measured; a smaller quantization may answer worse." in section(html)
    assert "KL nats" not in html


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_drawn_whole_and_fits(browser, path, html, width):  # noqa: F811
    show(browser, path / "report.html", width)
    open_all(browser)
    draw_all(browser)
    assert problems(browser) == []
    assert browser.title != "pwned"
