"""Maps of a latency over the window: where observations fall, how finely, and what the page draws of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from make_run import MS, S, deployment, one_cell_run, row, summary
from page_data import charts_of
from repeated_run import Made, repeated_run

from harness.contracts import Load
from reports import open_run, write_report
from reports.page.drawn.time_maps import EDGES_S, time_map

# The window of one_cell_run is [102 s, 110 s).
T0 = 102 * S


def rows(count: int, slow_from: int = 0):
    """Evenly over the window: 100 ms to the first token, from a number on 400 ms; five chunks 20 ms apart."""
    made = []
    for k in range(count):
        sent_ns = T0 + MS + k * 8 * S // count
        wait_ms = 400 if slow_from and k >= slow_from else 100
        chunks = tuple(sent_ns + (wait_ms + 20 * j) * MS for j in range(5))
        made.append(replace(row(k, sent_ns, chunk_ns=chunks), end_ns=chunks[-1] + MS))
    return made


def mapped(path, made, name="ttft_s", **more):
    run = open_run(one_cell_run(path, made).path)
    return time_map(run, run.planned_cells, name, **more)


def bin_of(seconds: float) -> int:
    return int(np.searchsorted(EDGES_S, seconds, side="right")) - 1


def test_requests_fall_where_they_were_sent_and_as_long_as_they_took(tmp_path) -> None:
    found = mapped(tmp_path, rows(240, slow_from=120))
    assert found.counts.shape[0] == 12
    assert found.counts.sum(axis=1).tolist() == [20] * 12
    assert found.counts[:6, bin_of(0.1)].tolist() == [20] * 6
    assert found.counts[6:, bin_of(0.4)].tolist() == [20] * 6
    assert found.medians_s == pytest.approx([0.1] * 6 + [0.4] * 6)
    assert found.p95s_s == (None,) * 12
    assert (found.n, found.requests, found.window_s) == (240, None, 8.0)


@pytest.mark.parametrize(("count", "parts"), [(12, 6), (120, 6), (200, 10), (1200, 60)])
def test_the_window_is_cut_as_finely_as_the_requests_allow(tmp_path, count: int, parts: int) -> None:
    assert len(mapped(tmp_path, rows(count)).counts) == parts


def test_a_folded_load_is_cut_less_finely(tmp_path) -> None:
    assert len(mapped(tmp_path, rows(1200), most_parts=20).counts) == 20


def test_failed_requests_and_those_before_the_window_are_in_no_map(tmp_path) -> None:
    early, failed = row(900, T0 - S), row(901, T0, outcome="timeout")
    assert mapped(tmp_path, [*rows(24), early, failed]).n == 24


def test_gaps_fall_where_they_ended(tmp_path) -> None:
    found = mapped(tmp_path, rows(240), "itl_s")
    # Four gaps of each request, but for those that end behind the window, 7.999 s after the first sending.
    n = sum(k * 8 / 240 + 0.1 + 0.02 * j < 7.999 for k in range(240) for j in (1, 2, 3, 4))
    assert 940 < n < 960
    assert found.n == found.counts[:, bin_of(0.020)].sum() == n
    assert found.requests == 240
    assert found.medians_s == pytest.approx([0.020] * len(found.counts), rel=0.13)


def test_gaps_of_few_requests_give_no_percentile(tmp_path) -> None:
    """Four requests that stream through the whole window, 40 gaps each in every sixth of it."""
    streams = [tuple(T0 + k * MS + j * 33 * MS for j in range(240)) for k in range(4)]
    made = [
        replace(row(k, T0 + k * MS - MS, chunk_ns=chunks), sent_ns=T0 + k * MS, end_ns=chunks[-1] + MS)
        for k, chunks in enumerate(streams)
    ]
    found = mapped(tmp_path, made, "itl_s", most_parts=6)
    assert found.counts.sum(axis=1).min() > 130
    assert found.requests_by_part == (4,) * 6
    assert found.medians_s == found.p95s_s == (None,) * 6


def test_no_observation_is_no_map(tmp_path) -> None:
    assert mapped(tmp_path / "none", [row(0, T0, outcome="timeout")]) is None
    (tmp_path / "a").mkdir()
    run = open_run(one_cell_run(tmp_path / "a", rows(12), replace(summary(100 * S), window_end_ns=T0)).path)
    assert time_map(run, run.planned_cells, "ttft_s") is None


# --- the page --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    made = [Made(deployment("llama_cpp", "fp16")), Made(deployment("vllm", "fp16"), slow=3.0)]
    run_dir = repeated_run(
        tmp_path_factory.mktemp("maps"), made, (Load(concurrency=1), Load(concurrency=4)), 3
    )
    page = write_report(run_dir).read_text(encoding="utf-8")
    found = charts_of(page)
    return {name: chart for name, chart in found.items() if name.startswith("map-")}


def test_each_deployment_has_a_map_of_each_latency_and_load(charts) -> None:
    assert sorted(charts) == sorted(
        f"map-{name}-{load}-{place}" for name in ("ttft_s", "itl_s") for load in (0, 1) for place in (0, 1)
    )


def test_maps_of_one_load_have_the_same_axes(charts) -> None:
    first, second = (charts[f"map-ttft_s-0-{place}"]["layout"] for place in (0, 1))
    assert first["xaxis"]["range"] == second["xaxis"]["range"] == [0, 8.0]
    assert first["yaxis"]["range"] == second["yaxis"]["range"]
    assert "(log scale)" in first["yaxis"]["title"]["text"]


def test_a_column_of_a_map_has_all_of_its_requests(charts) -> None:
    for chart in charts.values():
        (trace,) = chart["traces"]
        shares = np.array(trace["z"])
        assert shares.shape == (len(trace["y"]) - 1, len(trace["x"]) - 1)
        assert len(trace["y"]) <= 31
        assert len(trace["x"]) <= 61
        assert (np.array(trace["text"]) > 0).tolist() == (shares > 0).tolist()
        assert shares.sum(axis=0) == pytest.approx(np.ones(shares.shape[1]), abs=0.02)


def test_a_map_belongs_to_its_deployment_and_load(charts) -> None:
    assert charts["map-ttft_s-0-1"]["traces"][0]["meta"]["of"] == {
        "deployment": "vllm fp16",
        "load": "4 users",
    }
    assert charts["map-ttft_s-1-1"]["traces"][0]["meta"]["of"] == {
        "deployment": "vllm fp16",
        "load": "1 user",
    }


def test_the_colours_of_a_map_are_steps_of_one_hue_from_the_theme(charts) -> None:
    trace = charts["map-ttft_s-0-0"]["traces"][0]
    places, colours = zip(*trace["colorscale"], strict=True)
    assert (trace["zmin"], trace["zmax"], places[0], places[-1]) == (0, 1, 0.0, 1.0)
    assert list(places) == sorted(places)
    assert set(colours) == {f"--s-{k}" for k in range(1, 7)} | {"rgba(0,0,0,0)"}
    assert colours[places.index(0.0)] == "rgba(0,0,0,0)"
