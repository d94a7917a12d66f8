"""What the terminal is told while a run goes on."""

import re
import signal
import threading
from pathlib import Path

import pytest
from make_run import deployment, plan_of, summary
from waiting import wait_until

from serving_bench.harness.cli.panel import Outlook, View, left_text
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import Load, Standing
from serving_bench.harness.load.play.arrivals import phases
from serving_bench.harness.load.pulse import Progress
from serving_bench.harness.run import budget as budgets
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.store.request_table import Result
from serving_bench.harness.store.store import CellRecord

REASON = "the server exited with code 1"


@pytest.fixture
def start():
    [start] = plan_of([deployment("llama_cpp", "fp16")], [Load(concurrency=1)]).starts
    return start


def record(start, number, **changes):
    [planned] = start.cells
    facts = {"status": "failed", "error": REASON, **changes}
    return CellRecord(
        number, start.name, start.deployment.label, 0, planned.scenario, planned.load, planned.seed, **facts
    )


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_failure_is_told_with_its_reason_and_counts_the_cells_that_fail_with_it(start, capsys):
    show = Show(quiet=False)
    show.cell_ends(start, record(start, 1), Result())
    show.start_failed(start, REASON, 3)
    assert lines(capsys) == [
        f"  cell 001 {start.deployment.label}, 1 user: failed: {REASON}",
        f"{start.name}: failed: {REASON}",
    ]
    assert show._view.done == 4


def test_a_grown_run_says_why_a_repeat_follows(start, capsys):
    show = Show(quiet=False)
    show.begin([start])
    show.grow([start, start], "repeat 4 follows: 7 %")
    assert lines(capsys) == ["repeat 4 follows: 7 %"]
    assert show._view.total == 3


def test_a_completed_cell_is_told_with_its_figures(start, capsys):
    show = Show(quiet=False)
    done = record(start, 7, status="completed", error=None, summary=summary(0, requests=212))
    show.cell_ends(start, done, Result(1234.4, 0.04126, 180))
    show.cell_ends(start, done, Result(12.345, None, 9))
    show.cell_ends(start, done, Result())
    label = start.deployment.label
    assert lines(capsys) == [
        f"  cell 007 {label}, 1 user: completed, 212 requests, {figures}"
        for figures in (
            "1,234 tokens/s, TTFT p50 41.3 ms (n=180)",
            "12.3 tokens/s, too few requests for a TTFT p50 (9 of 11)",
            "too few requests for a TTFT p50 (0 of 11)",
        )
    ]


@pytest.mark.parametrize("terminal", ["no terminal", "dumb", "quiet"])
def test_without_a_terminal_or_when_quiet_there_is_no_panel(start, terminal, monkeypatch, capsys):
    if terminal != "no terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb" if terminal == "dumb" else "xterm")
    show = Show(quiet=terminal == "quiet")
    show.begin([start])
    show.start_begins(start)
    assert show._live is None
    assert lines(capsys) == []


def test_the_panel_takes_no_signals_and_is_gone_at_the_end(start, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    before = set(threading.enumerate())
    show = Show(quiet=False)
    show.begin([start])
    try:
        [thread] = set(threading.enumerate()) - before
        held = signals_of(thread, "SigBlk")
        assert held >> (signal.SIGINT - 1) & 1
        assert held >> (signal.SIGTERM - 1) & 1
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        show.close_panel()
    wait_until(lambda: not thread.is_alive())
    assert capsys.readouterr().out == ""


def signals_of(thread, name):
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1], 16)


def test_no_frame_has_a_cell_that_is_over_and_not_counted(start, monkeypatch):
    show = Show(quiet=True)
    show.begin([start])
    show.start_begins(start)
    show.start_ready(start, 1.0)
    show.cell_progress(start.cells[0], Progress(0.0, 0, 0, 0, "warmup"), "")
    frames = []

    def note(show, name, value):
        object.__setattr__(show, name, value)
        if isinstance(value, View):
            frames.append(value)

    monkeypatch.setattr(Show, "__setattr__", note)
    show.cell_ends(start, record(start, 1, status="completed", error=None), Result())
    assert [(view.done, view.cell) for view in frames] == [(1, None)]


def test_a_cell_that_is_longer_than_planned_says_so_every_30_s_where_there_is_no_panel(start, capsys):
    show, [cell] = Show(quiet=False), start.cells
    end_s = phases(cell.load).end_s
    for late_s in (-5, 29, 30, 31, 59, 61, 130, 149):
        show.cell_progress(cell, Progress(end_s + late_s, 3, 0, 1, "window"), "")
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" s longer than planned (window, ")[0] for line in said] == [
        f"  cell {cell.number:03d}: {late_s}" for late_s in (30, 61, 130)
    ]
    assert all(line.endswith("; 3 requests ok so far)") for line in said)


def test_an_interrupted_cell_is_not_counted_as_done(start):
    show = Show(quiet=True)
    show.begin([start])
    show.cell_ends(start, record(start, 1, status="interrupted"), Result())
    assert show._view.done == 0


def test_a_cells_line_has_the_first_of_its_doubts(start, capsys):
    reasons = ("short window", "lag", "steal")
    doubted = record(start, 1, status="completed", error=None, validity="suspect", reasons=reasons)
    Show(quiet=False).cell_ends(start, doubted, Result())
    assert lines(capsys)[0].endswith(" (suspect: short window; and 2 more)")


def test_what_a_line_holds_is_neither_markup_nor_a_control_character(capsys):
    Show(quiet=False).line("[red]:x:\x1b[31m \u202e[/b]\nnext")
    assert lines(capsys) == ["[red]:x: [31m  [/b]", "next"]


def test_a_stage_that_its_log_tells_late_does_not_bring_the_start_back(start):
    show = Show(quiet=True)
    show.begin([start])
    show.start_begins(start)
    show.start_stage(start, "weights_loaded")
    assert show._view.detail == ", last step: weights loaded"
    show.start_ready(start, 2.0)
    show.start_stage(start, "engine_ready")
    assert (show._view.what, show._view.detail) == ("no load", "")


def test_a_wait_for_the_machine_is_a_line_without_a_panel_and_ends_with_the_servers_first_step(start, capsys):
    show = Show(quiet=False)
    show.start_begins(start)
    show.waits(start.name, "up to 15 s: swapping")
    assert lines(capsys) == [f"{start.name}: waiting for a fit machine, up to 15 s: swapping"]
    assert (show._view.what, show._view.detail) == ("waiting for a fit machine", ", up to 15 s: swapping")
    show.start_stage(start, "process_up")
    assert (show._view.what, show._view.detail) == ("starting", ", last step: process up")


def test_how_deployments_stand_is_a_line_with_the_time_left_and_stays_in_the_panel(start, capsys):
    show = Show(quiet=False)
    show.begin([start], 3)
    words = "b ahead by 11 %, not yet decided (next a)"
    show.standing([Standing(1, "chat", "-", "1 user", "output_tokens_per_s", "b", "a", 1.11, words)])
    [said] = lines(capsys)
    assert re.fullmatch(rf"after 1 of 3 repeats: {re.escape(words)}; at least [\d.]+ (s|minutes) left", said)
    assert show._view.standing == words


def test_time_left_is_the_budgets_where_that_is_less(start, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(budgets, "monotonic", lambda: now_s)
    view = View(0.0, total=1, budget=Budget(5.0, [start]))
    assert left_text(view, Outlook([start], 0.0), 0.0) == ", about 5 s left of run.budget (5 s)"
    now_s += 6
    assert left_text(view, Outlook([start], 0.0), 0.0) == ", run.budget (5 s) is over"
