"""Two runs side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from make_run import (
    MS,
    S,
    deployment,
    empty_run,
    one_cell_run,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)  # fmt: skip

from harness import store
from harness.contracts import Load
from reports import compare_runs, to_builtins

T0 = 102 * S


@pytest.fixture
def comparison(tmp_path):
    for name, first_ms in (("a", 100), ("b", 250)):
        rows = [row(k, T0 + k * S, chunk_ns=(T0 + k * S + first_ms * MS,)) for k in range(6)]
        one_cell_run(tmp_path / name, rows)
    record = store.read_run(tmp_path / "b")
    changed = replace(
        record, settings={**record.settings, "seed": ("7",)}, environment={"host": {"boot_id": "c"}}
    )
    store.write_record(tmp_path / "b" / "run.json", changed)
    return compare_runs(tmp_path / "a", tmp_path / "b")


def test_values_of_both_runs_stand_side_by_side(comparison):
    found = {row.metric: row for row in comparison.rows}["ttft_s.p50"]
    assert (found.deployment, found.scenario, found.load) == ("llama_cpp fp16", "chat_multi_turn", "1 user")
    assert (found.a.mean, found.b.mean) == pytest.approx((0.1, 0.25))
    assert (found.a.n, found.b.n) == (6, 6)
    assert found.cells()[3:] == ("ttft_s.p50", "ms", "100.0, n = 6", "250.0, n = 6")


def test_what_differs_between_the_runs_comes_first(comparison):
    found = {item.what: (item.a, item.b) for item in comparison.differences}
    assert found["settings.seed"] == (None, "7")
    assert found["environment.host.boot_id"] == ("b", "c")
    assert found["environment.machine.cpu_model"] == ("Test CPU", None)
    assert "settings.engine" not in found


def test_no_difference_or_ratio_is_given(comparison):
    row_fields = to_builtins(comparison)["rows"][0]
    assert set(row_fields) == {"deployment", "scenario", "load", "metric", "unit", "a", "b"}


def test_builtins_are_json(comparison):
    assert json.loads(json.dumps(to_builtins(comparison)))["rows"]


def test_a_run_without_values_shows_dashes_on_its_side(tmp_path):
    one_cell_run(tmp_path / "a", [row(0, T0)])
    empty_run(tmp_path / "b")
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert {line.cells()[-1] for line in found.rows} == {"–"}
    assert {line.b.mean for line in found.rows} == {None}


def test_a_percentile_that_a_start_lacks_is_a_dash_with_its_reason(tmp_path):
    one_cell_run(tmp_path / "a", [row(k, T0 + k * S) for k in range(6)])
    plan = plan_of([deployment("llama_cpp", "fp16")], [Load(concurrency=1)], repeats=2)
    store.write_record(tmp_path / "b" / "run.json", run_record(plan))
    for start, count in zip(plan.starts, (6, 3), strict=True):
        write_start(tmp_path / "b", start_record(start, 90 * S))
        rows = [row(k, T0 + k * S) for k in range(count)]
        write_cell(tmp_path / "b", start.cells[0], start, rows, summary(100 * S))
    rows = compare_runs(tmp_path / "a", tmp_path / "b").rows
    found = {line.metric: line for line in rows}["ttft_s.p50"]
    assert found.cells()[5:] == ("100.0, n = 6", "– (only 1 of 2 starts has enough requests)")
    assert (found.b.mean, found.b.k, found.b.n) == (None, 0, 0)
