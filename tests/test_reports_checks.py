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
    by_hand = {"cells_missing", "single_repeat", "cells_marked"}
    assert found - by_hand <= CASES.keys()
