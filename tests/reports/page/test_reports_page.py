"""The page: sensible for every kind of run, and nothing in it that texts from outside can break."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from make_run import (
    GIB,
    HOSTILE,
    S,
    all_failed_run,
    begin_run,
    deployment,
    empty_run,
    every_load_run,
    full_run,
    host_samples,
    one_cell_run,
    plan_of,
    row,
    run_record,
    summary,
    write_cell,
    write_start,
)
from page_data import charts_in, charts_of, plain, rows_of, topics_of, unpacked

from serving_bench.harness.contracts import Load, Plan
from serving_bench.harness.errors import UserError
from serving_bench.harness.store import store
from serving_bench.reports import open_run, write_report
from serving_bench.reports.data import command
from serving_bench.reports.measures import aggregate
from serving_bench.reports.page.cells import aggregate_cell, compared_cell
from serving_bench.reports.page.drawing.charts import downsample
from serving_bench.reports.page.drawing.kinds import aside
from serving_bench.reports.page.grounds import client
from serving_bench.reports.page.looks import packed_json

T0 = 102 * S


def unplanned_run(path):
    store.write_record(path / "run.json", run_record(Plan((), (), 0.0)))
    return path


def filled_run(path):
    filled = {"concurrent_sequences": "why it is so many", "kv_cache_tokens": "8192 tokens, as they fit"}
    plan = plan_of([deployment("llama_cpp", "fp16")], [Load(concurrency=8)])
    store.write_record(path / "run.json", run_record(replace(plan, filled=filled)))
    return path


RUNS = {
    "full": full_run,
    "loads": every_load_run,
    "empty": empty_run,
    "unplanned": unplanned_run,
    "filled": filled_run,
    "failed": all_failed_run,
}
# The run, the part of its page, and what is said there (a pattern).
SAID = [
    ("full", "values", "✕ start 1 failed"),
    ("full", "cells", "the server died"),
    ("full", "skipped", "no such pair"),
    ("full", "distrust", r"vllm fp16 at 4 users \(start 1\): failed"),
    ("full", "environment", "history model, turns 2, think time 0.20 s"),
    ("full", "own-error", "not measured on this machine; after bench selftest, later runs show it here"),
    ("loads", "", "4, 16 users, 5/s constant, 5/s poisson, 40/s poisson, trace x2"),
    ("loads", "", "windows of 8 s, 200 conversations, 30 s, the whole trace"),
    ("loads", "environment", "window 200 conversations, warm-up 1.5 s, request timeout 120 s"),
    ("loads", "latencies",
     r"from the moment a request was sent \(users\), or was due \(rates and traces\)\."),
    ("loads", "latencies", "ITL is the gap between chunks"),
    ("loads", "own-error", r"trace x2 .*? 3\.08"),
    ("loads", "errors", "llama_cpp fp16 trace x2 lost 6 6 load worker 1 was lost"),
    ("loads", "own-error", "the p99 error of TTFT stays under 1 ms up to 64 streams x 100 chunks/s"),
    ("loads", "own-error", r"vllm awq 40/s poisson 64 streams x 100 chunks/s 0\.03 / 0\.2 50\.0"),
    ("empty", "", r"This run was cut short\. bench run --resume \S+ measures what is missing\."),
    ("empty", "", "0 of 1 cell measured"),
    ("unplanned", "", "nothing planned"),
    ("filled", "environment",
     "concurrent sequences why it is so many kv cache tokens 8192 tokens, as they fit"),
    ("failed", "", "exited with code 1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    return cache(lambda which: write_report(RUNS[which](root / which)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(pages):
    return pages("full")


def part_of(page: str, name: str) -> str:
    """A part of the page by its id, up to the next one."""
    return re.split(r'<(?:details|div class="part") id="|</section>', page.partition(f' id="{name}"')[2])[0]


def markup_of(page: str) -> str:
    """The page without its scripts and what is packed for them."""
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.S)


def uneven_run(path, counts):
    """A run whose starts of each deployment have these numbers of requests."""
    plan = begin_run(path, [deployment(*label.split()) for label in counts], [Load(1)], repeats=2)
    for start in plan.starts:
        write_start(path, start)
        count = counts[start.deployment.label][start.repeat]
        rows = [row(k, T0 + k * S // 4) for k in range(count)]
        write_cell(path, start.cells[0], start, rows)
    return path


@pytest.mark.parametrize(("which", "part", "said"), SAID)
def test_what_a_reader_needs_is_said(pages, which, part, said):
    page = pages(which)
    assert re.search(said, plain(part_of(page, part) if part else page))


def test_the_page_is_one_file_below_eight_megabytes(page):
    assert len(page.encode()) < 8_000_000
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page.split("</head>")[0])
    assert unpacked(page, "plotly").startswith("/**\n* plotly.js v")


def test_the_page_has_every_section_and_a_link_to_each(full, page):
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ["answer", *ids] == re.findall(r'<a href="#(\w+)"', page.partition("</nav>")[0])
    # Traffic is of scenarios that this run has not.
    assert ids == ["side", "frontier", "latency", "memory", "quality", "cost", "why", "trust"]
    assert re.findall(r'<div class="part" id="([\w-]+)"', page) == list(topics_of(full))


def test_every_chart_that_is_placed_has_its_data(page):
    data = charts_of(page)
    placed = re.findall(r'data-chart="([^"]+)"', markup_of(page))
    assert sorted(placed) == sorted(data)
    assert len(placed) == len(set(placed))
    assert all(len(trace["x"]) <= 1000 for chart in data.values() for trace in chart["traces"])


def test_each_table_has_a_name_of_its_own(page):
    boxes = re.findall(r'<div class="scroll"[^>]*>', markup_of(page))
    names = [re.findall(r'aria-label="([^"]+)"', box)[0] for box in boxes]
    assert any(name.startswith("TTFT p50 by turn at ") for name in names)
    assert "table" not in names
    assert len(set(names)) == len(names) > 40


def test_hostile_text_stays_text_and_no_number_is_nan(page):
    assert "<script>document" not in page
    assert "<img" not in page.partition("<body>")[2].partition("<script>")[0]
    assert "&lt;script&gt;document.title" in page
    assert "nan" not in plain(page).lower().split()


def test_names_in_charts_are_escaped_for_plotly_too(tmp_path):
    made = one_cell_run(tmp_path, [row(k, T0 + k * S) for k in range(6)])
    for path in [made.path / "run.json", *made.path.glob("*/*/start.json"), *made.path.glob("*/*/cell.json")]:
        path.write_text(path.read_text().replace('"llama_cpp fp16"', '"llama_cpp <a href=x>y</a>"'))
    data = charts_of(write_report(made.path).read_text(encoding="utf-8"))
    names = {trace["name"] for chart in data.values() for trace in chart["traces"] if "name" in trace}
    assert "llama_cpp &lt;a href=x&gt;y&lt;/a&gt;" in names
    assert not [name for name in names if "<a" in name]
    [said] = data["startup"]["layout"]["annotations"]
    assert said["text"].startswith("llama_cpp &lt;a href=x&gt;y&lt;/a&gt;, ")


def test_data_for_the_script_cannot_end_it():
    element = packed_json("made", {"a": HOSTILE})
    assert element.count("<") == 2
    assert json.loads(unpacked(element, "made")) == {"a": HOSTILE}


def test_an_all_failed_run_is_a_page_without_charts(pages):
    assert 'data-chart="' not in markup_of(pages("failed"))
    assert 'id="plotly"' not in pages("failed")


@pytest.mark.parametrize("count", [0, 1, 3, 700])
def test_a_run_of_one_cell_is_a_page_with_any_number_of_requests(tmp_path, count):
    rows = [row(k, T0 + k * S // 100) for k in range(count)]
    page = write_report(one_cell_run(tmp_path / "run", rows).path, tmp_path / "out.html")
    assert page == tmp_path / "out.html"
    assert f"{count} / 0" in plain(page.read_text(encoding="utf-8"))


def test_a_missing_percentile_is_a_dash_that_says_why(tmp_path):
    rows = [row(k, T0 + k * S // 100) for k in range(129)]
    run = open_run(one_cell_run(tmp_path, rows).path)
    why = str(aggregate(run, run.groups[0], "ttft_s.p95").why)
    assert why == "p95 needs n of 130 or more, here n = 129"
    assert f'title="{why}"' in compared_cell(run, "ttft_s.p95", run.groups[0])


def test_a_percentile_that_a_start_lacks_is_pooled_and_not_drawn(tmp_path):
    starts = {"vllm awq": (10, 11), "vllm fp16": (11, 11), "vllm gptq": (12, 12)}
    run = open_run(uneven_run(tmp_path, starts))
    found = aggregate(run, run.groups[0], "ttft_s.p50")
    assert (str(found.why), found.pooled.n) == ("only 1 of 2 starts has enough requests", 21)
    assert plain(aggregate_cell("ttft_s.p50", found)) == "100.0 pooled over 2 starts"
    assert f'title="n = {found.pooled.n}; {found.why}"' in aggregate_cell("ttft_s.p50", found)
    chart = charts_in(run)["frontier-ttft-s-0"]
    assert "Not drawn, because a value is missing: vllm awq at 1 user." in chart.note
    assert [trace["name"] for trace in chart.traces if trace["name"]] == ["vllm fp16", "vllm gptq"]


def test_a_value_of_some_starts_only_says_how_many(tmp_path):
    path = uneven_run(tmp_path, {"vllm awq": (6, 6)})
    start = open_run(path).record.plan.starts[1]
    rows = [row(k, T0 + k * S, cached_tokens=None) for k in range(6)]
    shutil.rmtree(store.cell_dir(path, start.cells[0].number))
    write_cell(path, start.cells[0], start, rows)
    [shown] = rows_of(client(open_run(path)))
    assert shown["cached tokens"] == "5.00 1 of 2 starts"


def test_the_page_names_no_winner_first(page):
    said = "No winner. At 1 user: a verdict needs 3 repeats in which all have a value, here 2."
    assert said in plain(page).partition("Side by side Means")[0]


def test_points_of_deployments_at_the_same_load_stand_side_by_side(full):
    traces = charts_in(full)["output_tokens_per_s-0"].traces
    for at in range(2):
        here = [trace["x"][at] for trace in traces if len(trace["x"]) == 2]
        assert len(set(here)) == len(here) > 2
        assert max(here) - min(here) < 0.4
    assert [at.partition(" ▲")[0] for at in traces[0]["customdata"]] == ["1 user", "4 users"]


@pytest.mark.parametrize("levels", [[1], [1, 2], [1, 2, 4, 64], [0.05], [2.5], [400.0]])
def test_points_stay_nearest_to_their_own_level(levels):
    is_log = levels[-1] > 8 * levels[0]
    for shift in (-4.5, 4.5):  # the outermost of ten deployments
        for level, place in aside(levels, 10, shift, is_log).items():
            assert min(levels, key=lambda other: abs(other - place)) == level
            assert 0 < abs(place - level) < 0.4 * max(level, 0.1) + 0.1 * level


def test_a_distribution_begins_at_zero_and_ends_inside_the_plot(full):
    chart = charts_in(full)["ecdf-ttft_s-0"]
    left, right = chart.layout["xaxis"]["range"]
    for trace in chart.traces:
        assert (trace["y"][0], trace["y"][-1]) == (0.0, 1.0)
        assert np.log10(trace["x"][0]) == pytest.approx(left, abs=1e-3)
        assert trace["x"][1] > trace["x"][0]
        assert np.log10(trace["x"][-1]) < right
    assert chart.layout["yaxis"]["range"][1] > 1.0


def test_the_client_and_the_tokens_are_shown(tmp_path):
    rows = [row(k, T0 + k * S // 2) for k in range(11)]
    made = one_cell_run(tmp_path, rows, summary(100 * S, gc_pause_s=0.0125))
    [shown] = rows_of(client(open_run(made.path)))
    # tokens, 2 per chunk; p50 of the send lag; 1 s of 10.5 s
    assert [*shown.values()][-6:] == ["50.0", "10.0", "5.00", "2.00", "1.00", "9.52"]


def test_a_place_that_cannot_take_the_page_is_one_line(tmp_path):
    run = empty_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"there is no directory .*absent"):
        write_report(run, tmp_path / "absent" / "out.html")
    with pytest.raises(UserError, match="is a directory"):
        write_report(run, tmp_path)


def test_facts_have_readable_units_and_no_clocks(tmp_path):
    made = one_cell_run(tmp_path, [row(0, T0)])
    environment = {
        "machine": {
            "memory_bytes": 24 * GIB,
            "swap_bytes": 0,
            "boot_id": "b-1-2",
            "load_1min": 1.31396484375,
        },
        "clock": {"monotonic_ns": 6774910755662},
        "packages": {"nvidia-ml-py": "13.6"},
        "engine_packages": {"llama_cpp": {"typing_extensions": "4.1"}},
    }
    record = replace(store.read_run(made.path), environment=environment)
    store.write_record(made.path / "run.json", record)
    section = part_of(write_report(made.path).read_text(encoding="utf-8"), "environment")
    text = plain(section)
    assert "memory 24.00 GiB swap 0 bytes load 1min 1.31" in text
    assert not [each for each in ("b-1-2", "6774910755662") if each in text]
    assert re.findall(r"<summary>([^<]+)", section) == ["Packages"]
    assert "bench.nvidia-ml-py 13.6 llama_cpp.typing_extensions 4.1" in text


def test_what_a_server_is_and_says_stands_side_by_side_with_its_command_below(tmp_path):
    plan = begin_run(tmp_path, [deployment("vllm", "awq"), deployment("llama_cpp", "fp16")], [Load(1)])
    first, second = plan.starts
    image = {"image": "vllm:1", "image_digest": "vllm@sha256:0123456789abcdef"}
    weights = {"size_bytes": 2 * GIB, "note": "made from the Q4_1 file"}
    said = {"resolved": {"block_size": 16, "seed": 1}, "weights": weights, "image": image}
    write_start(tmp_path, first, argv=("docker", "run", "--api-key", "abc"), **said)
    write_start(tmp_path, second)
    part = part_of(write_report(tmp_path).read_text(encoding="utf-8"), "servers")
    text = plain(part)
    for words in (
        "launcher docker native",
        "image vllm:1 0123456789ab –",
        "block size 16 –",
        "weights size 2.00 GiB –",
    ):
        assert words in text
    assert "seed" not in text.partition("Command of")[0]  # the ledger has it
    assert "abc" not in text
    assert "made from" not in text  # which the reasons to distrust say


def test_a_window_in_which_nothing_was_sent_has_a_page(tmp_path):
    """Requests of the warm-up that outlast it; and a second load that has values."""
    reason = "no request was sent in the window of 8 s"
    plan = begin_run(
        tmp_path, [deployment("vllm", "awq"), deployment("llama_cpp", "fp16")], [Load(1), Load(4)], repeats=3
    )
    for start in plan.starts:
        write_start(tmp_path, start, host_samples(90 * S, GIB))
        for cell in start.cells:
            is_empty = cell.load.concurrency == 1
            rows = [row(k, (100 * S if is_empty else T0) + k * S // 10) for k in range(12)]
            doubt = {"validity": "suspect", "reasons": (reason,)}
            write_cell(tmp_path, cell, start, rows, **doubt if is_empty else {})
    assert reason in plain(write_report(tmp_path).read_text(encoding="utf-8"))


def test_cells_of_every_validity_share_a_page(tmp_path):
    plan = begin_run(tmp_path, [deployment("vllm", "awq")], [Load(1), Load(concurrency=4)], repeats=5)
    kinds = [
        {"validity": "valid"},
        {"validity": "suspect", "reasons": ("clocks fell",)},
        {"validity": "invalid", "reasons": ("another server answered",)},
        {"status": "failed", "error": "no request was sent in the window"},
        {"validity": "suspect", "reasons": ("others' work",)},
    ]
    for start, kind in zip(plan.starts, kinds, strict=True):
        write_start(tmp_path, start, host_samples(90 * S, GIB))
        rows = [row(k, T0 + k * S) for k in range(6)] if "validity" in kind else []
        for cell in start.cells:
            write_cell(tmp_path, cell, start, rows, **kind)
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    for said in ("▲ starts 2, 5 suspect", "✕ start 3 invalid", "✕ start 4 failed", "3 of 5"):
        assert said in text
    assert "no request was sent in the window" in text


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ("How does vllm awq serve", ["vllm awq"]),
        ("Which quantization of vllm for tiny-lm on Test CPU?", ["vllm awq", "vllm fp16"]),
        ("Which engine for tiny-lm", ["vllm awq", "tgi awq"]),
        ("Which engine, at which quantization,", ["vllm awq", "tgi fp16"]),
        ("How does reference serve on Test CPU?", ["reference -"]),
    ],
)
def test_the_question_names_what_was_compared(tmp_path, question, labels):
    models = {"reference -": "-"}
    planned = [deployment(*label.split(), models.get(label, "tiny-lm")) for label in labels]
    begin_run(tmp_path, planned, [Load(1)])
    heading = re.search(r'<p class="kicker">(.*?)</p>', write_report(tmp_path).read_text(encoding="utf-8"))[1]
    assert re.sub(r"</?span[^>]*>", "", heading).startswith(question)


def test_the_command_to_rerun_is_quoted_for_a_shell(full):
    words = shlex.split(command(full))
    assert words[:2] == ["bench", "run"]
    assert "load.concurrency=1,4" in words
    assert f"scenario.path=it's {HOSTILE}" in words


def test_downsampling_keeps_lows_and_highs():
    y = np.zeros(50_000)
    y[12_345], y[33_333] = 7.0, -3.0
    kept_x, kept_y = downsample(np.arange(50_000.0), y, 1000)
    assert len(kept_x) <= 1000
    assert (kept_y.max(), kept_y.min()) == (7.0, -3.0)
    assert kept_x[kept_y.argmax()] == 12_345


def test_each_kind_of_load_has_its_own_chart_and_axis_if_it_has_several(pages):
    charts = charts_of(pages("loads"))
    found = {
        name: [[at.partition(" ▲")[0] for at in trace["customdata"]] for trace in chart["traces"]]
        for name, chart in charts.items()
        if name.startswith("output_tokens_per_s")
    }
    kinds = [["4 users", "16 users"], ["5/s poisson", "40/s poisson"]]
    assert list(found.values()) == [[each] * 2 for each in kinds]
    axes = [charts[name]["layout"]["xaxis"] for name in found]
    begun = "conversations begun per second"
    assert [axis["title"]["text"] for axis in axes] == ["users", begun]
    assert "<figcaption>Output tokens per second: open loop, poisson</figcaption>" in pages("loads")
