"""The first screen: question, traffic, answer, table, reasons to distrust; and the answer in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from make_run import HOSTILE, all_failed_run, deployment, empty_run, full_run, selftest
from repeated_run import Made, repeated_run, three
from reports.page.standing_table import standing_table
from reports.words.lineups import lineups_of
from reports.words.whole_answer import whole_answer
from test_reports_decision import BROKEN, FAST, MIDDLE, SLOW, run_of, searched, up_to

from harness.contracts import Load, Skip
from harness.store import store
from reports import open_run
from reports.checks.examine import findings_of
from reports.data.run import Run
from reports.page.opening import opening
from reports.words.answer import _why_none
from reports.words.described import what_was_run
from reports.words.headline import headline
from reports.words.said import at, clipped

FOUR = (Load(concurrency=4),)
BASE, OTHER = Made(deployment("llama_cpp", "fp16")), Made(deployment("vllm", "awq"), 0.8)


class Table(HTMLParser):
    """The heads and the rows of a table, as text, and the attributes of its rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.rows: list[list[str]] = []
        self.about: list[dict[str, str | None]] = []
        self.is_head = False
        self.feed(text)
        self.heads = [" ".join(head.split()) for head in self.heads]
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "thead":
            self.is_head = True
        elif tag == "tbody":
            self.is_head = False
        elif tag == "tr" and not self.is_head:
            self.rows.append([])
            self.about.append(dict(attrs))
        elif tag in ("th", "td"):
            (self.heads if self.is_head else self.rows[-1]).append("")

    def handle_data(self, data: str) -> None:
        cells = self.heads if self.is_head else (self.rows[-1] if self.rows else [])
        if cells:
            cells[-1] += f"{data} "

    def column(self, begins: str) -> list[str]:
        at = next(place for place, head in enumerate(self.heads) if head.startswith(begins))
        return [row[at] for row in self.rows]


def table_of(run: Run) -> Table:
    [lineup] = lineups_of(run)
    return Table(standing_table(run, lineup).text)


def plain(run: Run) -> str:
    return unescape(" ".join(re.sub("<[^>]*>", " ", opening(run).text).split()))


def made_run(path: Path, made: Sequence[Made], loads: Sequence[Load] = FOUR, **given: Any) -> Run:
    return open_run(repeated_run(path, made, loads, **given))


# --- the table -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("decided")
    return made_run(path, three(), (Load(concurrency=1), Load(concurrency=4)))


def test_the_table_is_of_the_highest_load_best_first_with_ratio_and_verdict(decided: Run) -> None:
    table = table_of(decided)
    assert [row[0] for row in table.rows] == ["llama_cpp gguf-q8_0", "vllm fp16", "llama_cpp fp16"]
    assert [row["data-deployment"] for row in table.about] == [row[0] for row in table.rows]
    assert table.heads[1] == "output tokens/s at 4 users"
    faster, same, baseline = table.column("verdict")
    assert faster.startswith("faster")
    assert same.startswith("same within 5 %")
    assert baseline == "baseline"
    ratios = [cell for head, cell in zip(table.heads, table.rows[0], strict=True) if "ratio to llama" in head]
    assert re.fullmatch(r"1\.25x \[1\.\d\d, 1\.\d\d\]", ratios[0])
    assert table.column("peak memory GiB")[0].startswith("0.5")


def test_a_ratio_is_drawn_on_one_axis_for_all_and_hidden_from_a_reader_of_text(decided: Run) -> None:
    [lineup] = lineups_of(decided)
    markup = standing_table(decided, lineup).text
    drawn = re.findall(r'<svg class="ratio" .*?</svg>', markup)
    assert len(drawn) == 3
    assert all('aria-hidden="true"' in each for each in drawn)
    assert len({re.search(r'class="one" x1="([\d.]+)"', each)[1] for each in drawn}) == 1  # type: ignore[index]
    dots = [float(re.search(r'cx="([\d.]+)"', each)[1]) for each in drawn]  # type: ignore[index]
    assert dots[0] > max(dots[1:]) > 0


def test_a_percentile_that_a_deployment_lacks_gives_way_to_the_median(decided: Run, tmp_path: Path) -> None:
    assert "TTFT p50 ms" in table_of(decided).heads
    many = run_of(tmp_path, {"vllm awq": FAST, "vllm fp16": SLOW}, slo=())
    assert "TTFT p95 ms" not in table_of(many).heads
    long = run_of(tmp_path / "long", {"vllm awq": replace(FAST, counts=(140,) * 3)}, slo=())
    assert "TTFT p95 ms" in table_of(long).heads


def test_without_verdicts_rows_stay_as_planned_and_no_ratio_is_shown(tmp_path: Path) -> None:
    table = table_of(made_run(tmp_path, [BASE, OTHER], repeats=2))
    assert [row[0].split()[0] for row in table.rows] == ["llama_cpp", "vllm"]
    assert not any("ratio" in head or head == "verdict" for head in table.heads)


def test_the_load_is_the_highest_that_all_have_been_measured_at(tmp_path: Path) -> None:
    def changes(cell: Any, start: Any) -> dict[str, Any]:
        is_dead = start.deployment.engine == "vllm" and cell.load.concurrency == 4
        return {"status": "failed", "error": "it died"} if is_dead else {}

    loads = (Load(concurrency=1), Load(concurrency=4))
    run = made_run(tmp_path, [BASE, OTHER], loads, repeats=3, cell_changes=changes)
    [lineup] = lineups_of(run)
    assert lineup.load == "1 user"
    assert plain(run).count("vllm awq. At 1 user it gives 1.25x [") == 1


def test_a_deployment_that_was_never_measured_has_a_row_of_dashes_with_the_reason(tmp_path: Path) -> None:
    def changes(cell: Any, start: Any) -> dict[str, Any]:
        return {"status": "failed", "error": "it died"} if start.deployment.engine == "vllm" else {}

    run = made_run(tmp_path, [BASE, replace(OTHER, slow=1.0), three()[1]], repeats=3, cell_changes=changes)
    table = table_of(run)
    row = next(row for row in table.rows if row[0].startswith("vllm awq"))
    assert table.rows[-1] == row
    assert "✕ starts 1, 2, 3 failed" in row[0]
    assert row[1] == "–"
    assert table.column("verdict")[-1] == "no verdict"


def test_with_an_slo_those_that_miss_it_stand_last_and_say_so(tmp_path: Path) -> None:
    does = {"tgi fp16": BROKEN, "vllm fp16": MIDDLE, "vllm awq": FAST}
    table = table_of(run_of(tmp_path, does))
    assert [row[0].split(" ✕")[0] for row in table.rows] == ["vllm awq", "vllm fp16", "tgi fp16"]
    assert "✕ misses the SLO here" in table.rows[-1][0]
    assert table.column("users within SLO") == ["4", "4", "none"]


def test_a_search_has_a_row_per_deployment_at_its_own_highest_load(tmp_path: Path) -> None:
    does = {"vllm awq": up_to(16, FAST), "vllm fp16": up_to(2, MIDDLE)}
    table = table_of(searched(tmp_path, does, (1, 2, 3, 16, 17)))
    assert table.column("users within SLO")[0].startswith("16 [15.3, 17.8]")
    assert table.column("output tokens/s at its own highest load")[0].startswith("166.7")
    assert table.column("verdict") == ["baseline", "less load"]


def test_several_models_have_a_table_each(tmp_path: Path) -> None:
    other = replace(deployment("vllm", "fp16", model="other-lm"), label="vllm other")
    text = opening(made_run(tmp_path, [BASE, Made(other)], repeats=3)).text
    assert text.count('<table class="standing">') == 2
    assert re.findall('<h2 class="case">(.*?)</h2>', text) == ["tiny-lm", "other-lm"]


def test_with_an_slo_each_family_of_loads_has_a_table(tmp_path: Path) -> None:
    rate = Load(concurrency=None, rate_per_s=2.0, arrival="constant")
    run = run_of(tmp_path, {"vllm awq": FAST, "tgi fp16": MIDDLE}, (Load(concurrency=1), rate))
    text = opening(run).text
    assert re.findall('<h2 class="case">(.*?)</h2>', text) == ["closed loop", "open loop, constant"]
    assert "conversations/s within SLO" in text


# --- around it -------------------------------------------------------------------------------------


def test_the_winner_stands_out_with_the_rule_below(decided: Run) -> None:
    box = opening(decided).text.partition('class="answer"')[2].partition("</p>")[0]
    assert box.startswith("><b>llama_cpp gguf-q8_0.</b> At 4 users it gives 1.25x [")
    assert "<small>95 %, corrected for 16 comparisons, after Holm" in box


def test_the_traffic_is_one_line_with_what_matters_of_the_scenario(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"vllm awq": FAST})
    assert what_was_run(run) == (
        "chat_multi_turn: 2 turns, the model's own history · 4 users · 3 starts each, interleaved · windows "
        "of 8 s · SLO: p95 TTFT 300 ms, 98 % success · 2026-01-02"
    )


def test_reasons_beyond_the_first_are_named_only(tmp_path: Path) -> None:
    run = open_run(full_run(tmp_path))
    box = opening(run).text.partition('class="why-box doubts"')[2].partition("</div>")[0]
    assert len(findings_of(run)) > 5
    assert box.count("<li") == 5
    assert f"{len(findings_of(run)) - 4} more: " in box
    assert len(re.findall('href="#distrust-', box)) == len(findings_of(run))


def test_what_was_not_run_and_benchs_own_error_are_said_below(tmp_path: Path) -> None:
    environment = {"machine": {"cpu_model": "Test CPU"}, "selftest": msgspec.to_builtins(selftest())}
    path = repeated_run(tmp_path, [BASE, OTHER], FOUR, repeats=3, environment=environment)
    record = store.read_run(path)
    skips = (*(Skip(f"tgi {q}", "no program here serves it.") for q in "abcd"), Skip("x", f"y {HOSTILE}"))
    store.write_record(path / "run.json", replace(record, plan=replace(record.plan, skips=skips)))
    text = plain(open_run(path))
    assert "Not run : tgi a, tgi b, tgi c and 1 more (no program here serves it); x (y " in text
    assert "bench's own error at this load: TTFT p50 0.03 ms, p99 0.1 ms" in text


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty_run, "No answer. The only cell has no value that counts"),
        (all_failed_run, "No answer. None of the 2 cells has a value that counts: llama_cpp fp16: exited"),
        (full_run, "No winner. A verdict needs 3 starts of each deployment or more, here 2."),
    ],
)
def test_a_run_without_an_answer_says_why(tmp_path: Path, make: Any, said: str) -> None:
    run = open_run(make(tmp_path))
    assert said in plain(run)
    assert "<script>" not in opening(run).text
    assert "<img" not in opening(run).text
    has_values = any(cell.counts for cell in run.planned_cells)
    assert ('<table class="standing">' in opening(run).text) == has_values


def test_a_winner_by_memory_alone_is_said(tmp_path: Path) -> None:
    half = replace(three()[2], memory=0.5)
    text = plain(made_run(tmp_path, [BASE, half]))
    assert "No difference. At 4 users all have the same output tokens/s as llama_cpp fp16 within 5 %" in text
    assert "Smaller in peak memory than llama_cpp fp16: vllm fp16 0.50x [0.50, 0.50]." in text


def test_a_baseline_that_all_others_are_slower_than_is_the_answer(tmp_path: Path) -> None:
    run = made_run(tmp_path, [BASE, replace(OTHER, slow=1.5)])
    assert "llama_cpp fp16. At 4 users vllm awq is proven slower in output tokens/s: 0.67x [" in plain(run)
    assert headline(run).startswith("llama_cpp fp16: vllm awq is slower at 4 users, 0.67x [")
    more = made_run(tmp_path / "more", [BASE, replace(OTHER, slow=1.5), replace(three()[2], slow=2.0)])
    assert "At 4 users all others are proven slower in output tokens/s: vllm" in plain(more)


def test_the_answer_of_one_deployment_bears_the_marks_of_its_numbers(tmp_path: Path) -> None:
    run = made_run(tmp_path, [BASE])
    marked = {each.check for each in findings_of(run) if each.marks}
    assert marked
    assert {each.check for each in whole_answer(run).marks} == marked


def test_the_count_of_starts_that_are_too_few_is_told_once_with_each_deployment() -> None:
    def why(count: int, label: str) -> Any:
        return SimpleNamespace(
            label=label, verdict=SimpleNamespace(why=f"needs 3 starts of each, here {count}")
        )

    assert _why_none([why(0, "a"), why(1, "b")]) == "needs 3 starts of each, here 0 of a, 1 of b"
    assert _why_none([why(1, "a"), why(1, "b")]) == "needs 3 starts of each, here 1"


def test_a_trace_is_what_a_load_goes_with() -> None:
    assert (at("4 users"), at("trace x2")) == ("at 4 users", "with the trace at x2")


def test_no_reason_at_the_top_is_cut_between_two_words(tmp_path: Path) -> None:
    box = (
        opening(open_run(full_run(tmp_path)))
        .text.partition('class="why-box doubts"')[2]
        .partition("</div>")[0]
    )
    assert "…" not in box


# --- in a line -------------------------------------------------------------------------------------


def test_the_headline_is_the_answer_with_its_interval(decided: Run) -> None:
    assert re.fullmatch(
        r"llama_cpp gguf-q8_0: 1\.25x \[1\.\d\d, 1\.\d\d\] the output tokens/s of llama_cpp fp16 at 4 users "
        r"\(▲ (\d+) reasons to distrust\)",
        headline(decided),
    )
    assert f"(▲ {len(findings_of(decided))} reasons" in headline(decided)


def test_a_headline_is_one_short_line_whatever_its_names(tmp_path: Path) -> None:
    labels = [f"{name}\n{HOSTILE * 3}" for name in ("vllm", "tgi")]
    made = [
        Made(replace(BASE.deployment, label=labels[0])),
        Made(replace(OTHER.deployment, label=labels[1]), 0.5),
    ]
    run = made_run(tmp_path, made, repeats=3)
    assert len(headline(run)) <= 160
    assert "\n" not in headline(run)
    assert "… (▲ " in headline(run)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ({"vllm awq": FAST, "vllm fp16": MIDDLE}, "vllm awq: fastest within the SLO at 4 users, 1.33x ["),
        ({"vllm awq": BROKEN, "vllm fp16": BROKEN}, "No winner: none is known to keep the SLO (p95 TTFT"),
        ({"vllm awq": FAST, "vllm fp16": BROKEN}, "vllm awq: the only one within the SLO at 4 users"),
        ({"vllm awq": FAST}, "vllm awq: keeps the SLO at 4 users"),
    ],
)
def test_the_headline_of_a_run_with_an_slo(tmp_path: Path, does: Any, said: str) -> None:
    assert headline(run_of(tmp_path, does)).startswith(said)


def test_the_headline_of_a_search(tmp_path: Path) -> None:
    run = searched(tmp_path, {"vllm awq": up_to(16, FAST), "vllm fp16": up_to(2, MIDDLE)}, (1, 2, 3, 16, 17))
    assert headline(run).startswith("vllm awq: 16 users [15.3, 17.8] within the SLO, 8.00x [")


@pytest.mark.parametrize(
    ("text", "most", "left"),
    [("short", 5, "short"), ("two words here", 10, "two words…"), ("unbreakable", 5, "unbr…")],
)
def test_a_text_is_cut_between_words(text: str, most: int, left: str) -> None:
    assert clipped(text, most) == left
    assert len(left) <= most
