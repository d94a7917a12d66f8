"""Scores of tasks on the page, in the tables and in the answer."""

import pytest
from make_tasks import FP16, Q4, answered, answers

from serving_bench.harness.cli.ending import tell
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import QualityTerms
from serving_bench.reports import tables_of, write_report
from serving_bench.reports.outputs.as_json import to_builtins
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.words.answer import answers_of

BEFORE, AFTER = "r" * 60 + "w" * 40, "w" * 20 + "r" * 45 + "w" * 30 + "-" * 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    items = {FP16.label: answers(BEFORE), Q4.label: answers(AFTER)}
    return answered(tmp_path_factory.mktemp("run"), items, quality=QualityTerms(least_score_share=0.5))


def test_the_section_has_scores_with_intervals_and_flips(run):
    html = write_report(run.path, run=run).read_text(encoding="utf-8")
    found = html.partition('<section id="quality">')[2].partition("</section>")[0]
    assert "llama_cpp gguf-q4_0 47.4 % of 95 items of bench-basics right" in found
    assert "llama_cpp fp16 60.0 % of 100 items of bench-basics right" in found
    assert "Not measured" not in found
    for words in ("score %", "right to wrong", "wrong to right", "95 of 100", "[50.2, 69.1]"):
        assert words in found, words


def test_the_tables_have_the_same_values(run):
    found = tables_of(run)["tasks"].set_index("deployment")
    assert found.loc[Q4.label, ["items", "scored", "both", "broken", "mended"]].tolist() == [
        100,
        95,
        95,
        20,
        5,
    ]
    assert found.loc[Q4.label, "score"] == pytest.approx(45 / 95)
    assert found.loc[Q4.label, "against"] == FP16.label
    assert found.loc[FP16.label, ["against", "p"]].isna().all()


def test_the_answer_says_what_the_winner_gets_right_and_what_a_faster_one_costs(tmp_path):
    items = {FP16.label: answers(BEFORE), Q4.label: answers("r" * 30 + "w" * 70)}
    terms = QualityTerms(least_score_share=0.5)
    run = answered(tmp_path, items, repeats=5, requests=20, quality=terms)
    (said,) = answers_of(run)
    assert said.plain.startswith("Serve llama_cpp fp16.")
    assert "; 60.0 % of 100 items of bench-basics right" in said.plain
    assert "If worse answers are acceptable: llama_cpp gguf-q4_0 is 1.1x as fast" in said.plain
    assert said.plain.endswith("as fast, but gets 30.0 % of 100 items of bench-basics right.")
    assert "quality_not_measured" not in set(tables_of(run)["findings"]["check"])


def test_the_answers_tables_have_a_column_of_scores(tmp_path):
    items = {FP16.label: answers(BEFORE), Q4.label: answers("r" * 30 + "w" * 70)}
    run = answered(tmp_path, items, repeats=5, requests=20)
    (answer,) = to_builtins(run)["answers"]
    rows = {row["deployment"]: row["quality"] for row in answer["rows"]}
    assert rows[FP16.label]["scores"]["bench-basics"] == {
        "score": 0.6, "interval": pytest.approx((0.502, 0.691), abs=5e-4), "scored": 100, "items": 100,
    }  # fmt: skip
    assert rows[FP16.label]["cells"] == {"score %": "60.0"}
    assert rows[Q4.label]["cells"] == {"score %": "30.0"}
    text = markdown_text(run)
    assert "| score % |" in text
    assert "| 60.0 \\[50.2, 69.1\\] |" in text
    html = write_report(run.path, run=run).read_text(encoding="utf-8")
    found = html.partition('<section id="quality">')[0]
    assert "score %" in found
    assert "[50.2, 69.1]" in found


def test_each_of_several_tasks_has_its_column_and_one_that_was_not_asked_a_dash(tmp_path):
    items = {FP16.label: answers(BEFORE) + answers("rw", "gsm8k"), Q4.label: answers(BEFORE)}
    (answer,) = to_builtins(answered(tmp_path, items))["answers"]
    rows = {row["deployment"]: row["quality"]["cells"] for row in answer["rows"]}
    assert set(rows[FP16.label]) == {"score % (bench-basics)", "score % (gsm8k)"}
    assert rows[Q4.label] == {"score % (bench-basics)": "60.0", "score % (gsm8k)": "–"}


def test_the_terminal_has_names_and_scores_in_90_columns(tmp_path, capsys, monkeypatch):
    items = {FP16.label: answers(BEFORE), Q4.label: answers("r" * 30 + "w" * 70)}
    run = answered(tmp_path, items, repeats=5, requests=20)
    monkeypatch.setenv("COLUMNS", "90")
    tell(run, 0, Show(quiet=False), as_json=False)
    lines = capsys.readouterr().err.splitlines()
    (row,) = [line for line in lines if line.split()[-1:] == ["60.0"]]
    assert row.startswith("llama_cpp")
