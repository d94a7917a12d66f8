"""The page: sensible for every kind of run, and nothing in it that texts from outside can break."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from make_run import (
    HOSTILE,
    S,
    all_failed_run,
    deployment,
    empty_run,
    full_run,
    one_cell_run,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from harness import store
from harness.contracts import Load, Plan
from reports import open_run, write_report
from reports.charts import POINTS_AT_MOST, cumulative, downsample
from reports.page import script_json
from reports.sections.rerun import command

T0 = 102 * S


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(full_run(tmp_path_factory.mktemp("full"))).read_text(encoding="utf-8")


def plain(page: str) -> str:
    """The page's text without scripts, style and tags."""
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_is_one_file_below_eight_megabytes(page):
    assert len(page.encode()) < 8_000_000
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page.split("</head>")[0])
    assert page.count("plotly.js v") == 1


def test_the_page_has_every_section_and_a_link_to_each(page):
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ids == re.findall(r'<a href="#(\w+)"', page)
    assert ids == [
        "summary", "distrust", "throughput", "latency", "memory", "startup", "errors", "skipped",
        "environment", "method", "rerun",
    ]  # fmt: skip


def test_every_chart_that_is_placed_has_its_data(page):
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)
    data = json.loads(found[1])
    placed = re.findall(r'data-chart="([^"]+)"', page)
    assert sorted(placed) == sorted(data)
    assert len(placed) == len(set(placed))
    assert all(len(trace["x"]) <= POINTS_AT_MOST for chart in data.values() for trace in chart["traces"])


def test_hostile_text_stays_text(page):
    assert "<script>document" not in page
    assert "<img" not in page.partition("<body>")[2].partition("<script>")[0]
    assert "&lt;script&gt;document.title" in page


def test_names_in_charts_are_escaped_for_plotly_too(tmp_path):
    made = one_cell_run(tmp_path, [row(k, T0 + k * S) for k in range(6)])
    for path in [made.path / "run.json", *made.path.glob("*/*/start.json"), *made.path.glob("*/*/cell.json")]:
        path.write_text(path.read_text().replace('"llama_cpp fp16"', '"llama_cpp <a href=x>y</a>"'))
    page = write_report(made.path).read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="charts">(.*?)</script>', page)[1])
    names = {trace["name"] for chart in data.values() for trace in chart["traces"] if "name" in trace}
    assert names == {"llama_cpp &lt;a href=x&gt;y&lt;/a&gt;"}
    assert data["startup"]["traces"][0]["y"] == ["llama_cpp &lt;a href=x&gt;y&lt;/a&gt;"]


def test_the_traffic_is_told(page):
    text = plain(page)
    assert "history model, turns 2" in text
    assert "warm-up 2 s, window 8 s, a request at most 120 s" in text


def test_json_in_a_script_cannot_end_it():
    encoded = script_json({"a": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(encoded)
    assert json.loads(encoded) == {"a": HOSTILE}


def test_a_failed_cell_and_a_skip_are_shown_with_their_reasons(page):
    text = plain(page)
    assert "✕ start 1 failed" in text
    assert "the server died" in text
    assert "no such pair" in text
    assert "1 of 16 cells gave no values" in text


def test_no_number_is_nan(page):
    assert "nan" not in plain(page).lower().split()


def test_an_empty_run_says_what_is_missing(tmp_path):
    text = plain(write_report(empty_run(tmp_path)).read_text(encoding="utf-8"))
    assert "This run was cut short." in text
    assert "Not measured: 1 cell (000)." in text
    assert "0 of 1 cell measured" in text


def test_a_killed_run_names_the_cell_in_flight(tmp_path):
    empty_run(tmp_path)
    store.begin_cell(tmp_path, 0)
    record = store.read_run(tmp_path)
    store.write_record(tmp_path / "run.json", replace(record, status="running", ended_at=None))
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "bench was killed, or is still running" in text
    assert "In flight: 1 cell (000)." in text


def test_a_run_without_any_plan_is_a_page(tmp_path):
    store.write_record(tmp_path / "run.json", run_record(Plan((), (), 0.0)))
    assert "nothing planned" in plain(write_report(tmp_path).read_text(encoding="utf-8"))


def test_an_all_failed_run_is_a_page_without_charts(tmp_path):
    page = write_report(all_failed_run(tmp_path)).read_text(encoding="utf-8")
    assert 'data-chart="' not in page
    assert "exited with code 1" in plain(page)


@pytest.mark.parametrize("count", [0, 1, 3, 700])
def test_a_run_of_one_cell_is_a_page_with_any_number_of_requests(tmp_path, count):
    rows = [row(k, T0 + k * S // 100) for k in range(count)]
    page = write_report(one_cell_run(tmp_path / "run", rows).path, tmp_path / "out.html")
    assert page == tmp_path / "out.html"
    assert f"{count} / 0" in plain(page.read_text(encoding="utf-8"))


def test_a_missing_percentile_is_a_dash_that_says_why(tmp_path):
    rows = [row(k, T0 + k * S // 100) for k in range(99)]
    page = write_report(one_cell_run(tmp_path, rows).path).read_text(encoding="utf-8")
    assert 'title="p95 needs n of 100 or more, here n = 99"' in page


def test_a_value_of_some_starts_only_says_how_many(tmp_path):
    plan = plan_of([deployment("vllm", "awq")], [Load()], repeats=2)
    store.write_record(tmp_path / "run.json", run_record(plan))
    for start, count in zip(plan.starts, (3, 6), strict=True):
        write_start(tmp_path, start_record(start, 90 * S))
        rows = [row(k, T0 + k * S) for k in range(count)]
        write_cell(tmp_path, start.cells[0], start, rows, summary(100 * S))
    assert "1 of 2 starts" in plain(write_report(tmp_path).read_text(encoding="utf-8"))


def test_the_question_names_what_was_compared(tmp_path):
    pairs = {
        "How does vllm awq serve": [("vllm", "awq")],
        "Which quantization for tiny-lm on Test CPU, served by vllm?": [("vllm", "awq"), ("vllm", "fp16")],
        "Which engine for tiny-lm": [("vllm", "awq"), ("tgi", "awq")],
        "Which engine, at which quantization,": [("vllm", "awq"), ("tgi", "fp16")],
        "How does reference serve on Test CPU?": [("reference", "-")],
    }
    for index, (expected, deployments) in enumerate(pairs.items()):
        path = tmp_path / str(index)
        models = {"reference": "-"}
        planned = [deployment(*pair, models.get(pair[0], "tiny-lm")) for pair in deployments]
        plan = plan_of(planned, [Load()])
        store.write_record(path / "run.json", run_record(plan))
        assert f"<h1>{expected}" in write_report(path).read_text(encoding="utf-8")


def test_the_command_to_rerun_is_quoted_for_a_shell(tmp_path):
    run = open_run(full_run(tmp_path))
    words = shlex.split(command(run))
    assert words[:2] == ["bench", "run"]
    assert "load.concurrency=1,4" in words
    assert f"scenario.path=it's {HOSTILE}" in words


def test_downsampling_keeps_lows_and_highs():
    y = np.zeros(50_000)
    y[12_345], y[33_333] = 7.0, -3.0
    kept_x, kept_y = downsample(np.arange(50_000.0), y)
    assert len(kept_x) <= POINTS_AT_MOST
    assert (kept_y.max(), kept_y.min()) == (7.0, -3.0)
    assert kept_x[kept_y.argmax()] == 12_345


def test_the_distribution_is_of_shares_at_or_below():
    x, share = cumulative(np.array([3.0, 1.0, 2.0, 2.0]))
    assert x.tolist() == [1.0, 2.0, 2.0, 3.0]
    assert share.tolist() == [0.25, 0.5, 0.75, 1.0]
