"""How long a plan will still take, from earlier runs and from what has ended in this one."""

from __future__ import annotations

import pytest
from make_run import deployment, plan_of

from harness.cli.progress.outlook import Outlook
from harness.contracts import Deployment, EngineTerms, Load
from harness.plan.durations import Expected
from harness.plan.plan import nothing_learnt

LOADS = [Load(concurrency=1, warmup_s=2.0, duration_s=8.0), Load(concurrency=4, warmup_s=2.0, duration_s=8.0)]
PLAN = plan_of([deployment("llama_cpp", "fp16")], LOADS, repeats=2)
FIRST, SECOND = PLAN.starts


def learnt(deployment: Deployment) -> Expected:
    return Expected(start_s=30.0, cell_s=5.0)


def test_earlier_runs_say_what_starts_and_cells_take() -> None:
    left = Outlook(PLAN.starts, learnt, 100.0).left()
    assert left.at(100.0) == 2 * (30 + 2 * (10 + 5))
    assert left.at(110.0) == 110
    assert not left.is_least


def test_a_step_that_takes_longer_than_expected_is_about_to_end() -> None:
    left = Outlook(PLAN.starts, learnt, 0.0).left()
    assert left.at(500.0) == 2 * 15 + 30 + 2 * 15


def test_what_starts_and_cells_took_in_this_run_counts_more_than_earlier_runs() -> None:
    outlook = Outlook(PLAN.starts, learnt, 0.0)
    outlook.ends(FIRST.name, 50.0)
    first, second = FIRST.cells
    outlook.ends(first.number, 61.0)  # its load took 10 of 11 s
    assert outlook.left().at(61.0) == 11 + 50 + 2 * 11
    outlook.ends(second.number, 64.0, is_telling=False)
    assert outlook.left().at(64.0) == 50 + 2 * 11


def test_an_engine_that_was_never_started_here_takes_that_at_least() -> None:
    outlook = Outlook(PLAN.starts, nothing_learnt, 0.0)
    assert outlook.left().is_least
    outlook.ends(FIRST.name, 40.0)
    assert not outlook.left().is_least


def test_a_server_that_runs_already_needs_no_start_up() -> None:
    attached = Deployment("openai", "m", "-", EngineTerms(base_url="http://127.0.0.1:1/v1"), {}, "openai")
    assert not Outlook(plan_of([attached], LOADS).starts, nothing_learnt, 0.0).left().is_least


def test_starts_that_are_added_take_their_time_and_in_the_end_nothing_is_left() -> None:
    outlook = Outlook(PLAN.starts[:1], learnt, 0.0)
    outlook.add(PLAN.starts[1:])
    assert outlook.left().at(0.0) == 120
    for start in PLAN.starts:
        for key in (start.name, *(cell.number for cell in start.cells)):
            outlook.ends(key, 10.0)
    assert outlook.left().at(10.0) == pytest.approx(0.0)
