"""Reading a run: what became of each planned cell, and repeats side by side."""

import math
import shutil
from dataclasses import replace

import pytest
from make_run import (
    GIB,
    MS,
    S,
    all_failed_run,
    begin_run,
    deployment,
    empty_run,
    every_load_run,
    one_cell_run,
    row,
    selftest,
    starts_run,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import Load
from serving_bench.harness.errors import StoreError
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.store import store
from serving_bench.harness.store.store import Phase
from serving_bench.reports import open_run, write_report
from serving_bench.reports.data.cells import load_family, load_labels, load_level
from serving_bench.reports.data.samples import memory_over_time
from serving_bench.reports.measures.over_starts import aggregate
from serving_bench.reports.measures.values import values_of
from serving_bench.reports.outputs.tables import tables_of

T0 = 102 * S


def test_a_directory_without_a_run_is_one_line(tmp_path):
    with pytest.raises(StoreError, match=r"no run here .*; give a directory that `bench run` made"):
        open_run(tmp_path)
    (tmp_path / "README.md").write_text("# A title")
    with pytest.raises(StoreError, match=r"README.md: is a file; give a directory that `bench run` made"):
        open_run(tmp_path / "README.md")


def test_a_directory_of_runs_is_answered_with_the_last_of_them(tmp_path):
    for name in ("20261125-run", "20261126-run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    with pytest.raises(StoreError, match=rf"give one of its runs, such as {tmp_path}/20261126-run$"):
        open_run(tmp_path)


def test_a_runs_own_page_is_answered_with_the_directory_to_give(full):
    page = full.path / "report.html"
    page.write_text("a page")
    with pytest.raises(StoreError, match=f"report.html: is a file of a run; give .* directory, {full.path}"):
        open_run(page)
    page.unlink()


def test_every_planned_cell_has_a_row(full):
    cells = tables_of(full)["cells"]
    assert len(cells) == 16
    assert cells["status"].value_counts().to_dict() == {"completed": 15, "failed": 1}
    assert len(tables_of(full)["starts"]) == 8
    assert len(full.groups) == 8


def test_a_failed_cell_has_its_reason_and_no_values(full):
    cells = tables_of(full)["cells"]
    failed = cells[cells["status"] == "failed"].iloc[0]
    assert failed["number"] == 5
    assert str(failed["reason"]).startswith("the server died")
    assert 5 not in values_of(full)


def test_lists_of_chunks_and_texts_stay_out_of_the_frame(full):
    assert not {"chunk_ns", "output_text", "raw_response"} & set(full.requests.columns)
    assert full.requests["cell"].nunique() == 15


def test_cells_of_an_empty_run_are_not_measured(tmp_path):
    run = open_run(empty_run(tmp_path))
    cells = tables_of(run)["cells"]
    assert cells["status"].tolist() == ["not measured"]
    assert cells["reason"].tolist() == ["its server was not started"]
    assert run.requests.empty
    assert "ttft_s" in run.requests
    assert run.host is None


def test_a_cell_that_was_begun_and_whose_folder_is_gone_is_missing(tmp_path):
    path = one_cell_run(tmp_path, [row(0, T0)]).path
    [start] = open_run(path).start_records
    phases = (*start.phases, Phase("cell 000 reset", 101 * S), Phase("cell 000 warm-up", 102 * S))
    write_start(path, replace(start, phases=phases))
    assert open_run(path).planned_cells[0].reason is None
    shutil.rmtree(path / "cells")
    [reason] = tables_of(open_run(path))["cells"]["reason"]
    assert reason == "its folder cells/000 is missing, though it was begun"


def test_cells_of_a_failed_start_have_its_error(tmp_path):
    run = open_run(all_failed_run(tmp_path))
    assert tables_of(run)["cells"]["status"].tolist() == ["failed", "not measured"]
    assert tables_of(run)["cells"]["reason"][1].startswith("exited with code 1")


def test_a_cell_that_was_begun_and_has_no_record_was_in_flight(tmp_path):
    store.begin_cell(empty_run(tmp_path), 0)
    assert tables_of(open_run(tmp_path))["cells"]["status"].tolist() == ["in flight"]


def test_repeats_are_averaged_with_their_range_and_invalid_ones_left_out(tmp_path):
    plan = begin_run(tmp_path, [deployment("llama_cpp", "fp16")], [Load(1)], repeats=3)
    for start, first_ms, validity in zip(
        plan.starts, (100, 300, 900), ("valid", "suspect", "invalid"), strict=True
    ):
        write_start(tmp_path, start)
        rows = [row(k, T0 + k * S // 2, chunk_ns=(T0 + k * S // 2 + first_ms * MS,)) for k in range(11)]
        write_cell(tmp_path, start.cells[0], start, rows, validity=validity)
    run = open_run(tmp_path)
    found = aggregate(run, run.groups[0], "ttft_s.p50")
    assert found.mean == pytest.approx(0.03**0.5)  # geometric, of 0.1 and 0.3
    assert (found.low, found.high) == pytest.approx((0.1, 0.3))
    # exp(mean of logs -+ t * s / sqrt(2)); t of one degree of freedom at 97.5 % is 12.706
    half = 12.7062047 * (math.log(3) / 2**0.5) / 2**0.5
    assert found.interval == pytest.approx((0.03**0.5 / math.exp(half), 0.03**0.5 * math.exp(half)))
    assert (found.k, found.n) == (2, 22)


def open_starts(path, *starts_rows):
    return open_run(starts_run(path, *starts_rows))


def test_an_additive_metrics_mean_is_arithmetic_and_so_is_its_interval(tmp_path):
    starts = ([row(k, T0 + k * S, cached_tokens=tokens) for k in range(3)] for tokens in (8, 10, 12))
    run = open_starts(tmp_path, *starts)
    found = aggregate(run, run.groups[0], "cached_tokens")
    assert (found.mean, found.low, found.high, found.k) == (10.0, 8.0, 12.0, 3)
    # s = 2; t of two degrees of freedom is 4.303: 4.303 x 2 / sqrt(3) = 4.968
    assert found.interval == pytest.approx((5.032, 14.968), abs=1e-3)


def test_one_start_has_no_interval(tmp_path):
    run = open_starts(tmp_path, [row(k, T0 + k * S // 2) for k in range(11)])
    found = aggregate(run, run.groups[0], "ttft_s.p50")
    assert (found.mean, found.k, found.interval) == (pytest.approx(0.1), 1, None)


def test_a_metric_of_which_a_start_has_zero_is_averaged_as_it_is(tmp_path):
    """Zero has no logarithm: a first chunk that the kernel stamped with the sending's instant."""
    at_once, later = (
        [row(k, T0 + k * S // 2, chunk_ns=(T0 + k * S // 2 + ms * MS,)) for k in range(11)] for ms in (0, 100)
    )
    run = open_starts(tmp_path, at_once, later, later)
    found = aggregate(run, run.groups[0], "ttft_s.p50")
    assert found.mean == pytest.approx(0.2 / 3)
    assert found.interval[0] < 0 < found.interval[1]


def test_a_percentile_has_no_mean_where_a_start_has_too_few_requests(tmp_path):
    fast, slow = ([row(k, T0 + k * S // 2) for k in range(count)] for count in (11, 10))
    run = open_starts(tmp_path, fast, slow, fast)
    found = aggregate(run, run.groups[0], "ttft_s.p50")
    assert (found.mean, found.low, found.high, found.k, found.n) == (None, None, None, 0, 0)
    assert str(found.why) == "only 2 of 3 starts have enough requests"


def test_other_values_are_of_the_starts_that_have_one_and_so_is_their_n(tmp_path):
    counted = [row(k, T0 + k * S, cached_tokens=8) for k in range(3)]
    run = open_starts(tmp_path, counted, [row(0, T0, cached_tokens=None)])
    found = aggregate(run, run.groups[0], "cached_tokens")
    assert (found.mean, found.k, found.n, found.values) == (8.0, 1, 3, (8.0, None))


def test_a_value_that_no_start_has_says_why_of_the_start_with_most_requests(tmp_path):
    few, more = ([row(k, T0 + k * S // 2) for k in range(count)] for count in (2, 10))
    run = open_starts(tmp_path, few, more)
    found = aggregate(run, run.groups[0], "ttft_s.p50")
    assert str(found.why) == "p50 needs n of 11 or more, here n = 10"


def test_loads_are_named_by_users_and_by_what_else_differs():
    loads = [Load(concurrency=1), Load(concurrency=4), Load(concurrency=4, duration_s=20.0)]
    assert list(load_labels(loads).values()) == [
        "1 user",
        "4 users, duration_s 8.0",
        "4 users, duration_s 20.0",
    ]


def test_open_loads_and_traces_are_named_too():
    loads = [
        Load(concurrency=None, rate_per_s=2.5),
        Load(concurrency=None, rate_per_s=2.5, ramp_up_s=5.0),
        Load(concurrency=None, rate_per_s=2.5, arrival="gamma", burstiness=0.5),
        Load(concurrency=None, arrival="trace", speedup=2.0),
    ]
    assert list(load_labels(loads).values()) == [
        "2.5/s poisson, ramp_up_s 0.0",
        "2.5/s poisson, ramp_up_s 5.0",
        "2.5/s gamma 0.5",
        "trace x2",
    ]


def test_loads_that_share_an_axis_are_of_one_family():
    families = {
        "closed loop": [Load(concurrency=1), Load(concurrency=8)],
        "open loop, poisson": [Load(concurrency=None, rate_per_s=rate) for rate in (1.0, 8.0)],
        "open loop, gamma 0.5": [
            Load(concurrency=None, rate_per_s=rate, arrival="gamma", burstiness=0.5) for rate in (1.0, 8.0)
        ],
        "trace": [Load(concurrency=None, arrival="trace", speedup=speed) for speed in (1.0, 8.0)],
    }
    for family, loads in families.items():
        assert [load_family(load) for load in loads] == [family, family]
        assert [load_level(load) for load in loads] == [1.0, 8.0]


def test_groups_of_every_kind_of_load_stand_in_order(tmp_path):
    run = open_run(every_load_run(tmp_path))
    first = [(group.load, group.level) for group in run.groups if group.engine == "llama_cpp"]
    assert first == [
        ("4 users", 4.0),
        ("16 users", 16.0),
        ("5/s constant", 5.0),
        ("5/s poisson", 5.0),
        ("40/s poisson", 40.0),
        ("trace x2", 2.0),
    ]
    assert tables_of(run)["cells"]["rate_per_s"].dropna().unique().tolist() == [5.0, 40.0]


def test_a_self_test_is_read_back_and_a_damaged_one_is_one_line(tmp_path):
    path = every_load_run(tmp_path)
    assert open_run(path).selftest == selftest()
    record = store.read_run(path)
    store.write_record(path / "run.json", replace(record, environment={"selftest": {"steps": 3}}))
    with pytest.raises(StoreError, match=r"damaged \(environment\.selftest"):
        open_run(path).selftest  # noqa: B018
    store.write_record(path / "run.json", replace(record, environment={}))
    assert open_run(path).selftest is None


@pytest.mark.parametrize("name", ["cells/000/requests.parquet", "starts/00-llama_cpp-fp16/host.parquet"])
def test_a_table_that_was_cut_short_is_one_line_with_its_name(tmp_path, name):
    made = one_cell_run(tmp_path, [row(k, T0 + k * S) for k in range(6)])
    path = made.path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="damaged") as caught:
        write_report(made.path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def device_sample(t_ns: int, device: int, used_bytes: int, process_bytes: int | None) -> DeviceSample:
    return DeviceSample(t_ns, device, used_bytes, process_bytes, 50, 10, 100.0, None, 40, 1000)


@pytest.mark.parametrize(
    ("own", "what", "peak"),
    [
        (GIB, "device memory of the server's processes", 2 * GIB),
        (None, "device memory in use (all processes)", 6 * GIB),
    ],
)
def test_device_memory_adds_devices_and_says_whose_it_is(tmp_path, own, what, peak):
    made = one_cell_run(tmp_path, [row(0, T0)])
    start = open_run(made.path).record.plan.starts[0]
    samples = [device_sample(T0 + k * MS, device, 3 * GIB, own) for k in range(4) for device in (0, 1)]
    store.write_samples(tmp_path / "starts" / start.name / "device.parquet", samples)
    write_start(tmp_path, start, memory_kind="device")
    run = open_run(tmp_path)
    memory = memory_over_time(run, run.start_records[0])
    assert memory.what == what
    assert memory.size_bytes.tolist() == [peak] * 4
    assert values_of(run)[0]["memory_peak_bytes"].value == peak
