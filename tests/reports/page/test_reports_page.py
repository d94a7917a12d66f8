"""The page: sensible for every kind of run, and nothing in it that texts from outside can break."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from make_run import (
    GIB,
    HOSTILE,
    S,
    all_failed_run,
    deployment,
    empty_run,
    every_load_run,
    full_run,
    host_samples,
    one_cell_run,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)
from page_data import charts_of, unpacked

from harness.contracts import Load, Plan
from harness.errors import UserError
from harness.store import store
from reports import open_run, write_report
from reports.page.drawing.axes import POINTS_AT_MOST, downsample
from reports.page.drawing.kinds import aside
from reports.page.markup import packed_json
from reports.page.sections import SECTIONS
from reports.words.described import command

T0 = 102 * S


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(full_run(tmp_path_factory.mktemp("full"))).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def every_load(tmp_path_factory):
    return write_report(every_load_run(tmp_path_factory.mktemp("loads"))).read_text(encoding="utf-8")


def section_of(page: str, name: str) -> str:
    section = page.partition(f'<section id="{name}">')[2].partition("</section>")[0]
    part = page.partition(f'<div class="part" id="{name}">')[2].partition("</section>")[0]
    return section or part.partition('<div class="part"')[0]


def part_of(page: str, name: str) -> str:
    """A part of the section on trust, up to the next one."""
    return re.split(r'<details id="|</section>', page.partition(f'<details id="{name}"')[2])[0]


def markup_of(page: str) -> str:
    """The page without its scripts and what is packed for them."""
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.S)


def uneven_run(path, counts):
    """A run whose starts of each deployment have these numbers of requests."""
    plan = plan_of([deployment(*label.split()) for label in counts], [Load()], repeats=2)
    store.write_record(path / "run.json", run_record(plan))
    for start in plan.starts:
        write_start(path, start_record(start, 90 * S))
        count = counts[start.deployment.label][start.repeat]
        rows = [row(k, T0 + k * S // 4) for k in range(count)]
        write_cell(path, start.cells[0], start, rows, summary(100 * S))
    return path


def plain(page: str) -> str:
    """The page's text without scripts, style and tags."""
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_is_one_file_below_eight_megabytes(page):
    assert len(page.encode()) < 8_000_000
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page.split("</head>")[0])
    assert unpacked(page, "plotly").startswith("/**\n* plotly.js v")


def test_the_page_has_every_section_and_a_link_to_each(page):
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ["answer", *ids] == re.findall(r'<a href="#(\w+)"', page.partition("</nav>")[0])
    assert ids == list(SECTIONS)
    assert len(ids) == 8
    parts = re.findall(r'<div class="part" id="([\w-]+)"', page)
    assert set(parts) <= {part for _, makers in SECTIONS.values() for part in makers}


def test_every_chart_that_is_placed_has_its_data(page):
    data = charts_of(page)
    placed = re.findall(r'data-chart="([^"]+)"', markup_of(page))
    assert sorted(placed) == sorted(data)
    assert len(placed) == len(set(placed))
    assert all(len(trace["x"]) <= POINTS_AT_MOST for chart in data.values() for trace in chart["traces"])


def test_each_table_has_a_name_of_its_own(page):
    boxes = re.findall(r'<div class="scroll"[^>]*>', markup_of(page))
    names = [re.findall(r'aria-label="([^"]+)"', box)[0] for box in boxes]
    assert "TTFT p50 by turn at 4 users" in names
    assert "table" not in names
    assert len(set(names)) == len(names) > 50


def test_hostile_text_stays_text(page):
    assert "<script>document" not in page
    assert "<img" not in page.partition("<body>")[2].partition("<script>")[0]
    assert "&lt;script&gt;document.title" in page


def test_names_in_charts_are_escaped_for_plotly_too(tmp_path):
    made = one_cell_run(tmp_path, [row(k, T0 + k * S) for k in range(6)])
    for path in [made.path / "run.json", *made.path.glob("*/*/start.json"), *made.path.glob("*/*/cell.json")]:
        path.write_text(path.read_text().replace('"llama_cpp fp16"', '"llama_cpp <a href=x>y</a>"'))
    page = write_report(made.path).read_text(encoding="utf-8")
    data = charts_of(page)
    names = {trace["name"] for chart in data.values() for trace in chart["traces"] if "name" in trace}
    assert "llama_cpp &lt;a href=x&gt;y&lt;/a&gt;" in names
    assert not [name for name in names if "<a" in name]
    [said] = data["startup"]["layout"]["annotations"]
    assert said["text"].startswith("llama_cpp &lt;a href=x&gt;y&lt;/a&gt;: ")


def test_why_terms_that_nobody_gave_are_what_they_are_is_told(tmp_path):
    plan = plan_of([deployment("llama_cpp", "fp16")], [Load(concurrency=8)])
    filled = {"concurrent_sequences": "why it is so many", "kv_cache_tokens": "8192 tokens, as they fit"}
    store.write_record(tmp_path / "run.json", run_record(replace(plan, filled=filled)))
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "concurrent sequences why it is so many kv cache tokens 8192 tokens, as they fit" in text


def test_data_for_the_script_cannot_end_it():
    element = packed_json("made", {"a": HOSTILE}).text
    assert element.count("<") == 2
    assert json.loads(unpacked(element, "made")) == {"a": HOSTILE}


def test_a_failed_cell_and_a_skip_are_shown_with_their_reasons(page):
    text = plain(page)
    assert "✕ start 1 failed" in text
    assert "the server died" in text
    assert "no such pair" in text
    assert "vllm fp16 at 4 users (start 1): failed" in text


def test_no_number_is_nan(page):
    assert "nan" not in plain(page).lower().split()


def test_an_empty_run_says_what_is_missing(tmp_path):
    text = plain(write_report(empty_run(tmp_path)).read_text(encoding="utf-8"))
    assert "This run was cut short." in text
    assert f"bench run --resume {tmp_path} measures what is missing." in text
    assert "0 of 1 cell measured" in text


def test_a_run_without_any_plan_is_a_page(tmp_path):
    store.write_record(tmp_path / "run.json", run_record(Plan((), (), 0.0)))
    assert "nothing planned" in plain(write_report(tmp_path).read_text(encoding="utf-8"))


def test_an_all_failed_run_is_a_page_without_charts(tmp_path):
    page = write_report(all_failed_run(tmp_path)).read_text(encoding="utf-8")
    assert 'data-chart="' not in markup_of(page)
    assert 'id="plotly"' not in page
    assert "exited with code 1" in plain(page)


@pytest.mark.parametrize("count", [0, 1, 3, 700])
def test_a_run_of_one_cell_is_a_page_with_any_number_of_requests(tmp_path, count):
    rows = [row(k, T0 + k * S // 100) for k in range(count)]
    page = write_report(one_cell_run(tmp_path / "run", rows).path, tmp_path / "out.html")
    assert page == tmp_path / "out.html"
    assert f"{count} / 0" in plain(page.read_text(encoding="utf-8"))


def test_a_missing_percentile_is_a_dash_that_says_why(tmp_path):
    rows = [row(k, T0 + k * S // 100) for k in range(129)]
    page = write_report(one_cell_run(tmp_path, rows).path).read_text(encoding="utf-8")
    assert 'title="p95 needs n of 130 or more, here n = 129"' in page


def test_a_percentile_that_a_start_lacks_is_pooled_and_not_drawn(tmp_path):
    starts = {"vllm awq": (10, 11), "vllm fp16": (11, 11)}
    page = write_report(uneven_run(tmp_path, starts)).read_text(encoding="utf-8")
    reason = "only 1 of 2 starts has enough requests"
    assert f'title="n = 21; {reason}"' in page
    assert "pooled over 2 starts" in plain(page)
    assert f"No value: vllm awq at 1 user ({reason})." in plain(page)
    drawn = charts_of(page)["ttft_s-p50-0"]["traces"]
    assert [trace["name"] for trace in drawn] == ["vllm fp16"]


def test_a_value_of_some_starts_only_says_how_many(tmp_path):
    path = uneven_run(tmp_path, {"vllm awq": (6, 6)})
    start = open_run(path).record.plan.starts[1]
    rows = [row(k, T0 + k * S, cached_tokens=None) for k in range(6)]
    write_cell(path, start.cells[0], start, rows, summary(100 * S))
    assert "1 of 2 starts" in plain(write_report(path).read_text(encoding="utf-8"))


def test_the_page_names_no_winner_first(page):
    said = "No winner. At 4 users: a verdict needs 3 repeats in which all have a value, here 1."
    assert said in plain(page).partition("Side by side Means")[0]


def test_points_of_deployments_at_the_same_load_stand_side_by_side(page):
    traces = charts_of(page)["output_tokens_per_s-0"]["traces"]
    places = [trace["x"] for trace in traces]
    for at in range(2):
        here = [x[at] for x in places if len(x) == 2]
        assert len(set(here)) == len(here) > 2
        assert max(here) - min(here) < 0.4
    assert [at.partition(" ▲")[0] for at in traces[0]["customdata"]] == ["1 user", "4 users"]


@pytest.mark.parametrize("users", [[1], [1, 2], [1, 2, 4, 64]])
def test_points_stay_nearest_to_their_own_users(users):
    is_log = users[-1] > 8 * users[0]
    for shift in (-4.5, 4.5):  # the outermost of ten deployments
        for count, place in aside(users, 10, shift, is_log).items():
            assert min(users, key=lambda other: abs(other - place)) == count


def test_a_distribution_begins_at_zero_and_ends_inside_the_plot(page):
    chart = charts_of(page)["ecdf-ttft_s-0"]
    left, right = chart["layout"]["xaxis"]["range"]
    for trace in chart["traces"]:
        assert (trace["y"][0], trace["y"][-1]) == (0.0, 1.0)
        assert np.log10(trace["x"][0]) == pytest.approx(left, abs=1e-3)
        assert trace["x"][1] > trace["x"][0]
        assert np.log10(trace["x"][-1]) < right
    assert chart["layout"]["yaxis"]["range"][1] > 1.0


def test_the_client_and_the_tokens_are_shown(tmp_path):
    rows = [row(k, T0 + k * S // 2) for k in range(11)]
    load_summary = summary(100 * S, gc_pause_s=0.0125)
    made = one_cell_run(tmp_path, rows, load_summary)
    planned = open_run(made.path).record.plan.starts[0]
    counts = {"host_samples": 397, "host_missed": 3, "host_interval_p99_s": 0.108, "host_cpu_s": 0.2}
    counts |= {"server_samples": 40, "server_missed": 9, "server_interval_p99_s": 1.01}  # once a second
    write_start(made.path, start_record(planned, 90 * S, sampler=counts))
    page = write_report(made.path).read_text(encoding="utf-8")
    # tokens, 2 per chunk; p50 of the send lag; loop and stamp lag; 1 s of 10.5 s; none re-sent or lost
    assert "1 user 50.0 10.0 5.00 2.00 1.00 0.50 0.10 9.52 0 / 0" in plain(part_of(page, "own-error"))


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
    page = write_report(made.path).read_text(encoding="utf-8")
    section = part_of(page, "environment")
    text = plain(section)
    assert "memory 24.00 GiB swap 0 bytes load 1min 1.31" in text
    assert "b-1-2" not in text
    assert "6774910755662" not in text
    assert re.findall(r"<summary>([^<]+)", section) == ["bench&#39;s packages", "engine packages"]
    assert "llama_cpp.typing_extensions 4.1" in text


def test_a_window_in_which_nothing_was_sent_has_a_page(tmp_path):
    """Requests of the warm-up that outlast it; and a second load that has values."""
    plan = plan_of([deployment("vllm", "awq"), deployment("llama_cpp", "fp16")], [Load(), Load(4)], repeats=3)
    store.write_record(tmp_path / "run.json", run_record(plan))
    for start in plan.starts:
        write_start(tmp_path, start_record(start, 90 * S), host_samples(90 * S, GIB))
        for cell in start.cells:
            is_empty = cell.load.concurrency == 1
            rows = [row(k, (100 * S if is_empty else T0) + k * S // 10) for k in range(12)]
            doubt = {"validity": "suspect", "reasons": ("no request was sent in the window of 8 s",)}
            write_cell(tmp_path, cell, start, rows, summary(100 * S), **(doubt if is_empty else {}))
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "no request was sent in the window of 8 s" in text


def test_cells_of_every_validity_share_a_page(tmp_path):
    plan = plan_of([deployment("vllm", "awq")], [Load(), Load(concurrency=4)], repeats=5)
    store.write_record(tmp_path / "run.json", run_record(plan))
    kinds = [
        {"validity": "valid"},
        {"validity": "suspect", "reasons": ("clocks fell",)},
        {"validity": "invalid", "reasons": ("another server answered",)},
        {"status": "failed", "error": "no request was sent in the window"},
        {"validity": "suspect", "reasons": ("others' work",)},
    ]
    for start, kind in zip(plan.starts, kinds, strict=True):
        write_start(tmp_path, start_record(start, 90 * S), host_samples(90 * S, GIB))
        rows = [row(k, T0 + k * S) for k in range(6)] if "validity" in kind else []
        for cell in start.cells:
            write_cell(tmp_path, cell, start, rows, summary(100 * S), **kind)
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    for said in ("▲ starts 2, 5 suspect", "✕ start 3 invalid", "✕ start 4 failed", "3 of 5"):
        assert said in text
    assert "no request was sent in the window" in text


def test_the_question_names_what_was_compared(tmp_path):
    pairs = {
        "How does vllm awq serve": [("vllm", "awq")],
        "Which quantization of vllm for tiny-lm on Test CPU?": [("vllm", "awq"), ("vllm", "fp16")],
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
        heading = re.search(r'<p class="kicker">(.*?)</p>', write_report(path).read_text(encoding="utf-8"))[1]
        assert re.sub(r"</?span[^>]*>", "", heading).startswith(expected)


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


def test_each_kind_of_load_has_its_own_chart_and_axis(every_load):
    charts = charts_of(every_load)
    found = {
        name: [[at.partition(" ▲")[0] for at in trace["customdata"]] for trace in chart["traces"]]
        for name, chart in charts.items()
        if name.startswith("output_tokens_per_s")
    }
    assert list(found.values()) == [
        [["4 users", "16 users"]] * 2,
        [["5/s constant"]] * 2,
        [["5/s poisson", "40/s poisson"]] * 2,
        [["trace x2"]] * 2,
    ]
    axes = [charts[name]["layout"]["xaxis"] for name in found]
    assert [axis["title"]["text"] for axis in axes] == [
        "users",
        "conversations begun per second",
        "conversations begun per second",
        "speed of the trace",
    ]
    assert axes[3]["ticktext"] == ["x2"]
    assert "<figcaption>Output tokens per second: open loop, poisson</figcaption>" in every_load


def test_traffic_is_told_in_words(every_load, page):
    text = plain(every_load)
    assert "4, 16 users, 5/s constant, 5/s poisson, 40/s poisson, trace x2" in text
    assert "windows of 8 s, 200 conversations, 30 s, the whole trace" in text
    assert "window 200 conversations, warm-up 2 s, a request at most 120 s" in text
    assert "history model, turns 2, think time 0.20 s" in plain(page)


def test_the_origin_of_latencies_is_told(every_load, page):
    assert "count from the moment a request was sent (users), or was due (rates and traces)." in plain(
        section_of(every_load, "latency")
    )
    assert "count from the moment a request was sent." in plain(section_of(page, "latency"))


def test_gaps_between_chunks_of_several_tokens_are_called_so(every_load):
    said = "ITL is the gap between chunks of several tokens (llama_cpp fp16: 1.11, vllm awq: 1.11)."
    assert said in plain(section_of(every_load, "latency"))


def test_lost_requests_are_counted_with_the_client_and_listed_by_kind(every_load):
    # Lost three times in each of two starts.
    assert re.search(r"trace x2 .*? 0\.50 0\.10 3\.08 0 / 6", plain(part_of(every_load, "own-error")))
    said = "llama_cpp fp16 trace x2 lost 6 6 load worker 1 was lost"
    assert said in plain(part_of(every_load, "errors"))


def test_windows_are_shown_with_their_drift(every_load):
    text = plain(part_of(every_load, "steadiness"))
    said = re.search(r"24 windows : (.*?) Each window", text)[1].split(", ")
    assert sum(int(part.split()[0]) for part in said) == 24
    assert re.search(r"40/s poisson 1 queue grew .*? 41\.9, 143\.2", text)
    assert "as its trace" in text
    assert part_of(every_load, "steadiness").count('<svg class="spark"') == 2 * 24


def test_the_self_test_is_quoted_beside_each_load(every_load, page):
    text = plain(part_of(every_load, "own-error"))
    assert "the p99 error of TTFT stays under 1 ms up to 64 streams x 100 chunks/s" in text
    assert re.search(r"vllm awq 40/s poisson 64 streams x 100 chunks/s 0\.03 / 0\.2 50\.0", text)
    assert "selftest" not in plain(part_of(every_load, "environment"))
    said = "not measured on this machine: run `bench selftest`, and later runs quote it here"
    assert said in plain(part_of(page, "own-error"))


@pytest.mark.parametrize("level", [0.05, 2.5, 400.0])
def test_a_single_rate_has_room_on_its_axis(level):
    places = [aside([level], 4, shift, False)[level] for shift in (-1.5, 1.5)]
    assert places[0] < level < places[1]
    assert places[1] < level + 0.4 * min(level, 1.0)
