"""benchmarks/load.py: how a client's report is set against the server's record, on numbers made by hand."""

import sys
import time
from pathlib import Path

import pytest
from benchmark_modules import modules_of
from test_truth import MS, sends

from serving_bench.harness.selftest.sends import served


@pytest.fixture(scope="module")
def benchmarks():
    return modules_of("clients", "compare", "load", "pinned", "table")


@pytest.fixture
def measured(benchmarks):
    """Two requests in the window (one failed), one in the warm-up; 1 ms passes for the client before each."""
    clients, compare, pinned = (benchmarks[name] for name in ("clients", "compare", "pinned"))
    case = clients.Case(1, 100, window_s=0.1, tokens=2)

    def reported(name: str, start_ms: float, chunks_ms: list[float], end_ms: float, is_ok: bool = True):
        chunks = [int(at_ms * MS) for at_ms in chunks_ms]
        return clients.Reported(name, is_ok, int(start_ms * MS), chunks, int(end_ms * MS))

    def answered(name: str, arrived_ms: float):
        first, second = arrived_ms + 50, arrived_ms + 60
        return sends(name, arrived_ms, [(first, first), (second, second)], second)

    said = [
        reported("early", 99, [151, 161], 161),
        reported("good", 2109, [2162, 2175], 2176),
        reported("bad", 2120, [2171], 2180, is_ok=False),
    ]
    lines = [
        line for name, at in (("early", 100), ("good", 2110), ("bad", 2121)) for line in answered(name, at)
    ]
    samples = tuple(
        pinned.Sample(at_ms * MS, cpu_s, at_ms) for at_ms, cpu_s in ((50, 0.2), (99, 0.3), (2000, 0.9))
    )
    cost = pinned.Cost(20 * MS, 0, 1.3, samples)
    return compare.compare("bench", case, 0, said, served(lines), cost)


def test_ttft_and_e2e_count_from_each_sides_own_start(measured):
    # 53 ms instead of 50, 67 instead of 60; the gap 13 instead of 10.
    assert measured.ttft_error_s == pytest.approx((0.003, 0.003))
    assert measured.e2e_error_s == pytest.approx((0.007, 0.007))
    assert measured.itl_error_s == pytest.approx((0.003, 0.003))
    assert measured.server_late_s == (0, 0)


def test_only_requests_of_the_window_count_and_failures_are_told(measured):
    assert (measured.requests, measured.failed, measured.unpaired) == (2, 1, 0)


def test_cost_begins_with_the_first_request_and_is_of_all_tokens(measured):
    # The first request arrives at 100 ms: 0.3 s of 1.3 s were spent before, the rest on 5 tokens.
    assert measured.start_cpu_s == 0.3
    assert measured.cpu_s_per_token == pytest.approx(0.2)
    assert measured.start_s == pytest.approx(0.08)
    assert measured.max_rss_bytes == 2000


def test_passes_turn_the_order_of_the_clients(benchmarks):
    order = benchmarks["load"].in_turns(["x", "y"], ["a", "b"], 2)
    assert [f"{number}{case}{client}" for number, case, client in order] == [
        "0xa", "0xb", "0ya", "0yb", "1xb", "1xa", "1yb", "1ya",
    ]  # fmt: skip


def test_a_cell_has_median_spread_and_ratio_to_ours(benchmarks):
    table = benchmarks["table"]
    quantity = table.Quantity("", lambda one: None, 1.0, 1)
    assert table._cell([3.0, 1.0, 8.0], [2.0, 1.5], quantity) == "3.0 (1.0 - 8.0) [x 1.71]"
    assert table._cell([3.0], [], quantity) == "3.0"
    assert table._cell([], [1.0], quantity) == "-"


def test_a_client_costs_what_its_processes_cost_and_leaves_none(benchmarks, tmp_path):
    held = "held = bytearray(50_000_000); import time; time.sleep(60)"
    program = (
        f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {held!r}]); "
        "print(child.pid, flush=True); time.sleep(3)"
    )
    log = tmp_path / "log"
    cost = benchmarks["pinned"].run([sys.executable, "-c", program], 0, log, limit_s=30)
    assert cost.exit_code == 0
    assert cost.max_rss_bytes > 50_000_000
    assert cost.max_pss_bytes > 50_000_000
    child = int(log.read_text())
    deadline = time.monotonic() + 10
    while benchmarks["pinned"].sample(child) and not _is_zombie(child):
        assert time.monotonic() < deadline, "the child still runs"
        time.sleep(0.01)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
