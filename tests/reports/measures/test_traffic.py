"""What is measured of one kind of traffic only."""

from __future__ import annotations

import pytest

from harness.contracts import ScenarioChoice
from reports.data import open_run
from reports.measures.traffic.parts import parts_of
from reports.page.document import page
from tests.support.runs.make_run import MS, S, one_cell_run, row, summary

SHARED = ScenarioChoice("shared_prefix", {"prefixes": 3}, "shared_prefix")


def _run(tmp_path, rows, scenario=SHARED):
    return open_run(one_cell_run(tmp_path, rows, summary(100 * S), scenario).path)


def test_parts_are_the_ok_requests_of_the_window_by_the_scenarios_number(tmp_path):
    rows = [
        row(1, 103 * S, group=0, input_tokens=100, cached_tokens=60),
        row(2, 104 * S, group=0, input_tokens=300, cached_tokens=180),
        row(3, 105 * S, group=2, input_tokens=50, cached_tokens=None),
        row(4, 105 * S, group=2, outcome="timeout"),
        row(5, 101 * S, group=1),  # warm-up
        row(6, 105 * S, group=None),
    ]
    first, third = parts_of(_run(tmp_path, rows), "shared_prefix")
    assert (first.number, first.requests, first.input_tokens) == (0, 2, 200.0)
    assert first.cached_share == pytest.approx(0.6)
    assert first.ttft_s == pytest.approx(100 * MS / S)
    assert (third.number, third.requests, third.cached_share) == (2, 1, None)


def test_a_run_of_other_traffic_has_none(tmp_path):
    chat = ScenarioChoice("chat_multi_turn", {}, "chat_multi_turn")
    assert parts_of(_run(tmp_path, [row(1, 103 * S)], chat), "shared_prefix") == []


def test_the_page_has_a_row_for_each_prefix(tmp_path):
    shown = page(_run(tmp_path, [row(1, 103 * S, group=1), row(2, 104 * S, group=0)]))
    assert 'id="prefixes"' in shown
