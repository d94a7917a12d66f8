"""Goodput and service levels of a run's cells, worked out by hand, and on the page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from make_run import MS, S, failed_row, full_run, one_cell_run, row

from harness.contracts import Objective
from harness.store import store
from reports import open_run
from reports.measures.slo import judged_cells
from reports.measures.values import values_of
from reports.page.sections import throughput

TTFT = Objective("ttft_s", 0.95, 0.1)
SUCCESS = Objective("success", 0.9)


def with_slo(path, *slo):
    store.write_record(path / "run.json", replace(store.read_run(path), slo=slo))
    return open_run(path)


def slow_row(number, sent_ns):
    return row(number, sent_ns, chunk_ns=(sent_ns + 101 * MS, sent_ns + 200 * MS))


def test_goodput_is_what_met_every_objective_over_the_windows_length(tmp_path):
    """The window is 8 s: 16 good requests, 4 whose first token is 1 ms too late, 4 failed, one before it."""
    rows = [row(k, 102 * S + k * 100 * MS) for k in range(16)]
    rows += [slow_row(k, 104 * S + k * 100 * MS) for k in range(16, 20)]
    rows += [failed_row(k, 104 * S + k * 100 * MS) for k in range(20, 24)]
    rows += [row(24, 101 * S)]
    run = with_slo(one_cell_run(tmp_path / "run", rows).path, TTFT, SUCCESS)
    values = values_of(run)[0]
    assert values["goodput_per_s"].value == pytest.approx(16 / 8)
    assert values["slo_share"].value == pytest.approx(16 / 24)
    assert values["slo_share"].n == 24
    found = judged_cells(run, run.planned_cells)
    assert [(each.met, each.n) for each in found.attained] == [(16, 24), (20, 24)]
    assert found.verdict == "broken"


def test_a_run_without_objectives_has_no_goodput(tmp_path):
    run = open_run(one_cell_run(tmp_path / "run", [row(1, 103 * S)]).path)
    assert "goodput_per_s" not in values_of(run)[0]
    assert "SLO" not in throughput.section(run).body.text  # type: ignore[union-attr]


def test_a_window_that_nobody_sent_in_has_no_share(tmp_path):
    run = with_slo(one_cell_run(tmp_path / "run", [row(1, 101 * S)]).path, TTFT)
    assert values_of(run)[0]["slo_share"].value is None


def test_the_page_shows_service_levels_by_load(tmp_path):
    run = with_slo(full_run(tmp_path / "run"), Objective("ttft_s", 0.95, 0.2), SUCCESS)
    made = throughput.section(run)
    assert made is not None
    shown, _, folded = made.body.text.partition("<summary>Every objective at every load</summary>")
    assert "<h3>Who keeps the SLO (p95 TTFT 200 ms, 90 % success)</h3>" in shown
    assert 'p95 TTFT<span class="range">% within 200 ms, 95 % asked</span>' in folded
    assert all(f">{word}</span>" in folded for word in ("keeps it", "does not"))
    assert [chart.id for chart in made.charts][-1] == "goodput_per_s-0"
