"""Each reason to distrust is found where it is, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from make_run import (
    GIB,
    MS,
    S,
    deployment,
    failed_row,
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
from harness.contracts import Load
from harness.host import HostSample
from reports import open_run
from reports.checks import CHECKS, findings

T0 = 102 * S
LONG = 60.0


def good_rows(**changes):
    return [row(k, T0 + k * 100 * MS, **changes) for k in range(120)]


def write_pair(
    path,
    first=None,
    second=None,
    load_summary=None,
    start_changes=None,
    quantizations=("fp16", "fp16"),
    environment=None,
    **cell_changes,
):
    """Two deployments, two starts each, nothing to distrust but what is asked for."""
    deployments = [deployment("llama_cpp", quantizations[0]), deployment("vllm", quantizations[1])]
    plan = plan_of(deployments, [Load()], repeats=2)
    record = run_record(plan)
    store.write_record(path / "run.json", replace(record, environment=environment or {}))
    for start in plan.starts:
        write_start(path, start_record(start, 90 * S, **{"memory_kind": "device", **(start_changes or {})}))
        rows = (first if start.deployment.engine == "llama_cpp" else second) or good_rows()
        cell_summary = load_summary or summary(100 * S, duration_s=LONG)
        write_cell(path, start.cells[0], start, rows, cell_summary, **cell_changes)
    return {finding.check: finding for finding in findings(open_run(path))}


def test_a_good_run_has_no_finding(tmp_path):
    assert write_pair(tmp_path) == {}


LATE = summary(100 * S, duration_s=LONG, loop_lag_s=(0.001, 0.006, 0.01))
READ = summary(100 * S, duration_s=LONG, stamp_source="read", stamp_lag_s=None, clock_uncertainty_ns=None)
CASES = {
    "requests_failed": {"first": [*good_rows(), failed_row(200, T0 + S)]},
    "output_lengths_differ": {"second": good_rows(output_tokens=11)},
    "input_lengths_differ": {"second": good_rows(input_tokens=52)},
    "few_requests": {"first": good_rows()[:99]},
    "short_windows": {"load_summary": summary(100 * S, duration_s=29.0)},
    "client_late": {"load_summary": LATE},
    "stamps_not_kernel": {"load_summary": READ},
    "warm_cache": {"first": good_rows(cached_tokens=11)},
    "cores_shared": {"start_changes": {"memory_kind": "host"}},
    "machine_busy": {"environment": {"host": {"load_1min": 1.5, "cores_logical": 2}}},
    "memory_not_returned": {"start_changes": {"returned_to_baseline": False, "after_bytes": 3 * GIB}},
    "weights_noted": {"start_changes": {"weights": {"note": "made from gguf-q4_k_m"}}},
    "quality_not_measured": {"quantizations": ("fp16", "awq")},
    "cells_suspect": {"validity": "suspect", "reasons": ("clocks fell",)},
    "attached": {"start_changes": {"attached": True}},
}


@pytest.mark.parametrize("check", CASES)
def test_a_check_finds_its_own_reason_alone(tmp_path, check):
    found = write_pair(tmp_path, **CASES[check])
    assert list(found) == [check]
    assert found[check].text
    assert found[check].remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"second": good_rows(input_tokens=51)},
        {"first": good_rows(cached_tokens=10)},
        {"load_summary": summary(100 * S, duration_s=30.0)},
    ],
)
def test_what_is_within_the_limits_is_no_finding(tmp_path, changes):
    assert write_pair(tmp_path, **changes) == {}


def test_lengths_of_turns_that_only_one_of_them_played_are_no_difference(tmp_path):
    long = [row(k, T0 + k * 100 * MS, output_tokens=90, input_tokens=900) for k in range(120, 240)]
    assert write_pair(tmp_path, second=[*good_rows(), *long]) == {}


def test_the_cache_is_judged_by_first_turns_alone(tmp_path):
    later = good_rows(cached_tokens=50, turn=3)
    assert "warm_cache" not in write_pair(tmp_path / "none", first=later)
    first = row(200, T0 + S, turn=0, cached_tokens=0)
    assert "warm_cache" not in write_pair(tmp_path / "cold", first=[*later, first])
    warm = row(200, T0 + S, turn=0, cached_tokens=20)
    assert "40 %" in write_pair(tmp_path / "warm", first=[*later, warm])["warm_cache"].text


def write_starts(path, rows_by_start, samples=(), environment=None):
    """One deployment, a start per list of rows, samples for each."""
    plan = plan_of([deployment("llama_cpp", "fp16")], [Load()], repeats=len(rows_by_start))
    store.write_record(path / "run.json", replace(run_record(plan), environment=environment or {}))
    for start, rows in zip(plan.starts, rows_by_start, strict=True):
        write_start(path, start_record(start, 90 * S, memory_kind="device"), samples)
        write_cell(path, start.cells[0], start, rows, summary(100 * S, duration_s=LONG))
    return {finding.check: finding for finding in findings(open_run(path))}


def test_starts_that_lie_far_apart_are_a_finding(tmp_path):
    # 120 requests of 10 tokens in 60 s: 20 tokens/s; with 13 tokens: 26; 6 / 23 is 26 %.
    found = write_starts(tmp_path / "far", [good_rows(), good_rows(output_tokens=13)])
    text = "llama_cpp fp16 at 1 user: output tokens/s 20.0 to 26.0 (26 % of the mean)."
    assert found["repeats_disagree"].text == text
    # 20 and 24: 18 %.
    assert write_starts(tmp_path / "near", [good_rows(), good_rows(output_tokens=12)]) == {}


def test_starts_whose_first_tokens_lie_far_apart_are_a_finding(tmp_path):
    late = [
        row(k, T0 + k * 100 * MS, chunk_ns=tuple(T0 + k * 100 * MS + (150 + 20 * j) * MS for j in range(5)))
        for k in range(120)
    ]
    found = write_starts(tmp_path, [good_rows(), late])
    assert (
        found["repeats_disagree"].text
        == "llama_cpp fp16 at 1 user: TTFT p50 ms 100.0 to 150.0 (40 % of the mean)."
    )


@pytest.mark.parametrize(("machine_pct", "share"), [(60.0, None), (95.0, "44 %")])
def test_processor_time_of_neither_server_nor_client_is_a_finding(tmp_path, machine_pct, share):
    # The server uses one of two cores; the client 1 s of 62.5 s, 0.8 % of the machine.
    samples = [
        HostSample(90 * S + k * S // 10, GIB, k / 10, 4, 1, 0, None, 4 * GIB, machine_pct) for k in range(750)
    ]
    rows = [good_rows(), good_rows()]
    found = write_starts(tmp_path, rows, samples, {"machine": {"cores_logical": 2}})
    if share is None:
        assert found == {}
    else:
        assert list(found) == ["foreign_load"]
        assert f"llama_cpp fp16 at 1 user, start 1: {share}" in found["foreign_load"].text


def test_findings_carry_their_numbers(tmp_path):
    found = write_pair(tmp_path, second=good_rows(output_tokens=11))
    assert "llama_cpp fp16 10.0 against vllm fp16 11.0" in found["output_lengths_differ"].text


def test_one_start_is_a_finding(tmp_path):
    made = one_cell_run(tmp_path, good_rows(), summary(100 * S, duration_s=LONG))
    assert "single_repeat" in [finding.check for finding in findings(open_run(made.path))]


def test_missing_cells_are_a_finding(tmp_path):
    found = {finding.check: finding for finding in findings(open_run(full_run(tmp_path)))}
    assert "1 of 16 cells gave no values (vllm fp16 at 4 users: failed)" in found["cells_missing"].text


def test_every_check_can_find_something():
    found = {check.__name__ for check in CHECKS}
    by_hand = {"cells_missing", "single_repeat", "cells_marked", "repeats_disagree", "foreign_load"}
    assert found - by_hand <= CASES.keys()
