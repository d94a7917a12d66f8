"""The latency section: what is open and folded, and its distributions with objectives, starts and turns."""

import re

import numpy as np
import pytest
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Load
from serving_bench.reports import open_run
from serving_bench.reports.measures.distributions import Steps
from serving_bench.reports.page.sections.latency import latency

LOADS = (Load(concurrency=1), Load(concurrency=4))
FP16, VLLM = deployment("llama_cpp", "fp16"), deployment("vllm", "fp16")
NAMES = ["ttft_s", "itl_s", "tpot_s", "e2e_s"]


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    made = [Made(FP16), Made(VLLM, slow=2.0)]
    return latency(open_run(repeated_run(tmp_path_factory.mktemp("latency"), made, LOADS, 3)))


@pytest.fixture(scope="module")
def charts(section):
    return {chart.id: chart for chart in section.charts}


def test_the_deciding_load_is_open_and_the_other_folded(section) -> None:
    shown, _, folded = section.body.partition("<summary>At 1 user</summary>")
    assert re.findall(r'data-chart="ecdf-(\w+)-0"', shown) == NAMES
    assert re.findall(r'data-chart="ecdf-(\w+)-1"', folded) == NAMES
    assert "<h3>At 4 users</h3>" in shown
    assert '<div data-load="4 users">' in shown
    assert '<div data-load="1 user">' in shown[-200:]


def test_percentiles_of_ttft_and_tpot_come_first_and_the_rest_is_folded(section) -> None:
    shown, _, rest = section.body.partition("<summary>ITL, E2E and p99 by load</summary>")
    assert re.findall(r'data-chart="(\w+-p\d+)-0"', shown) == ["ttft_s-p50", "tpot_s-p50"]
    # Some 27 requests of each start have no p95; their gaps do.
    folded = rest.partition("<h3>")[0]
    assert re.findall(r'data-chart="(\w+-p\d+)-0"', folded) == ["itl_s-p50", "itl_s-p95", "e2e_s-p50"]


def test_a_distribution_has_the_curve_of_each_start(charts) -> None:
    chart = charts["ecdf-ttft_s-0"]
    first = chart.traces[0]
    assert first["meta"]["of"] == {"deployment": "llama_cpp fp16", "load": "4 users"}
    assert sorted(first["meta"]["by_start"]) == ["1", "2", "3"]
    # TTFT is 95 ms in the third start, 100 in the first and 110 in the second: 29, 27 and 25 requests.
    assert first["x"][1:] == [95.0, 100.0, 110.0]
    assert first["y"] == pytest.approx([0, 29 / 81, 56 / 81, 1], abs=1e-4)
    assert first["meta"]["by_start"] == {"1": [0, 0, 1, 1], "2": [0, 0, 0, 1], "3": [0, 1, 1, 1]}
    assert first["meta"]["n_by_start"] == {"1": ["27"], "2": ["25"], "3": ["29"]}
    assert first["text"] == "n = 81"
    assert "p50 ms, starts together" in chart.rows[0].cells
    assert "%{text}" in first["hovertemplate"]


def test_a_distribution_is_titled_by_the_verdicts_on_its_median(section, charts) -> None:
    chart = charts["ecdf-ttft_s-0"]
    assert chart.finding == "llama_cpp fp16 has the lowest TTFT p50 " + chart.what.removeprefix("TTFT ")
    caption = f'<figcaption>{chart.title}</figcaption><p class="quantity">{chart.what}</p>'
    assert caption in section.body.replace("\n", "").partition(f'data-chart="{chart.id}"')[0]


def test_the_curves_of_a_folded_load_are_of_all_starts(charts) -> None:
    meta = charts["ecdf-ttft_s-1"].traces[0]["meta"]
    assert meta == {"of": {"deployment": "llama_cpp fp16", "load": "1 user"}}


# --- steps -----------------------------------------------------------------------------------------


def steps(*values_s: float) -> Steps:
    return Steps(np.sort(values_s), np.arange(1, len(values_s) + 1))


def test_the_share_is_of_observations_at_or_below() -> None:
    found = steps(3.0, 1.0, *[2.0] * 10)
    assert found.shares(np.array([0.5, 1.0, 1.9, 2.0, 3.0, 9.0])) == [0, 0.0833, 0.0833, 0.9167, 1, 1]
    assert found.drawn(500).tolist() == [1.0, 2.0, 3.0]


def test_many_steps_are_drawn_evenly_by_rank_with_both_ends() -> None:
    found = steps(*np.arange(1.0, 1002.0) ** 3)
    drawn = found.drawn(11)
    assert (len(drawn), drawn[0], drawn[-1]) == (11, 1.0, 1001.0**3)
    assert found.shares(drawn)[1:-1] == pytest.approx(np.arange(0.1, 1.0, 0.1), abs=0.002)


def test_a_curve_needs_eleven_values_and_of_gaps_requests_too() -> None:
    assert steps(*np.arange(10.0)).shares(np.array([5.0])) == [None]
    assert steps(*np.arange(11.0)).is_enough
    gaps = np.arange(1, 100)
    assert [Steps(gaps / 1e3, gaps, requests=n).is_enough for n in (4, 5)] == [False, True]
