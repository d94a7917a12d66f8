"""Scores of tasks on the page, in the tables and in the answer."""

import pytest
from make_tasks import FP16, Q4, answered, answers
from page_data import plain, rows_of, section_of

from serving_bench.harness.cli.ending import tell
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import QualityTerms
from serving_bench.reports import tables_of
from serving_bench.reports.outputs.as_json import to_builtins
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.page.document import page
from serving_bench.reports.page.sections.quality import fidelity, tasks
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.report import report_of

BEFORE, AFTER = "r" * 60 + "w" * 40, "w" * 20 + "r" * 45 + "w" * 30 + "-" * 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    items = {FP16.label: answers(BEFORE), Q4.label: answers(AFTER)}
    return answered(tmp_path_factory.mktemp("run"), items, quality=QualityTerms(least_score_share=0.5))


def test_the_section_has_scores_with_intervals_and_flips(run):
    claim = fidelity(run).claim
    assert "llama_cpp gguf-q4_0 47.4 % of 95 items of bench-basics right" in claim
    assert "llama_cpp fp16 60.0 % of 100 items of bench-basics right" in claim
    q4, fp16 = ([*row.values()][2:] for row in rows_of(tasks(run)))
    assert q4 == ["47.4 [37.6, 57.3]", "95 of 100", "20", "5", "0.0041"]
    assert fp16 == ["60.0 [50.2, 69.1]", "100 of 100", "", "", ""]


def test_the_page_has_claim_heads_and_cells(run):
    shown = plain(section_of(page(run), "quality"))
    rows = rows_of(tasks(run))
    texts = (fidelity(run).claim.strip(), *rows[0], *(text for row in rows for text in row.values()))
    assert [text for text in texts if text not in shown] == []
    assert "Not measured" not in shown


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
    cells = {row.deployment: row.cells for row in report_of(run).answers[0].rows}
    assert cells[FP16.label] == {"score %": ("60.0", "[50.2, 69.1]")}
    assert cells[Q4.label] == {"score %": ("30.0", "[21.9, 39.6]")}


def test_the_answers_tables_are_in_markdown_and_on_the_first_screen(run):
    text, first = markdown_text(run), plain(page(run).partition('<section id="quality"')[0])
    for row in report_of(run).answers[0].rows:
        [(head, cell)] = row.cells.items()
        assert head in first
        assert " ".join(cell) in first
        assert f"| {head} |" in text
        assert " ".join(cell).replace("[", "\\[").replace("]", "\\]") in text


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
