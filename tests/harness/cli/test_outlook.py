"""How long a plan will still take: as planned, with the start-ups that this run has seen."""

import pytest
from make_run import deployment, plan_of

from serving_bench.harness.cli.panel import Outlook
from serving_bench.harness.contracts import Deployment, EngineTerms, Load

LOADS = [Load(concurrency=1, warmup_s=2.0, duration_s=8.0), Load(concurrency=4, warmup_s=2.0, duration_s=8.0)]
PLAN = plan_of([deployment("llama_cpp", "fp16")], LOADS, repeats=2)
FIRST, SECOND = PLAN.starts
CELL_S, START_S = 10 + 2, 4


def test_at_first_it_is_the_planned_loads_and_a_guess_for_each_start_and_cell() -> None:
    outlook, whole_s = Outlook(PLAN.starts, 100.0), 2 * (START_S + 2 * CELL_S)
    assert outlook.left(100.0) == (whole_s, True), "no engine was started yet"
    assert outlook.left(103.0) == (whole_s - 3, True)
    assert outlook.left(500.0) == (whole_s - START_S, True), "what takes too long is about to end"


def test_a_start_up_that_this_run_has_seen_is_expected_again() -> None:
    outlook = Outlook(PLAN.starts, 0.0)
    outlook.ends(FIRST.name, 50.0)
    assert outlook.left(50.0) == (2 * CELL_S + 50 + 2 * CELL_S, False)
    for cell in FIRST.cells:
        outlook.ends(cell.number, 80.0)
    assert outlook.left(80.0) == (50 + 2 * CELL_S, False)


def test_a_start_that_failed_leaves_none_of_its_cells_and_tells_nothing_of_the_next() -> None:
    outlook = Outlook(PLAN.starts, 0.0)
    outlook.fails(FIRST, 50.0)
    assert outlook.left(50.0) == (START_S + 2 * CELL_S, True)


def test_a_server_that_runs_already_needs_no_start_up() -> None:
    attached = Deployment("openai", "m", "-", EngineTerms(base_url="http://127.0.0.1:1/v1"), {}, "openai")
    assert Outlook(plan_of([attached], LOADS).starts, 0.0).left(0.0) == (1 + 2 * CELL_S, False)


def test_starts_that_are_added_take_their_time_and_in_the_end_nothing_is_left() -> None:
    outlook = Outlook(PLAN.starts[:1], 0.0)
    outlook.add(PLAN.starts[1:])
    assert outlook.left(0.0)[0] == 2 * (START_S + 2 * CELL_S)
    for start in PLAN.starts:
        for key in (start.name, *(cell.number for cell in start.cells)):
            outlook.ends(key, 10.0)
    assert outlook.left(10.0)[0] == pytest.approx(0.0)


def test_cells_that_take_longer_than_planned_make_the_rest_longer_too() -> None:
    outlook, now_s = Outlook(PLAN.starts, 0.0), 10.0
    outlook.ends(FIRST.name, now_s)
    outlook.ends(FIRST.cells[0].number, now_s := now_s + 5 * CELL_S)
    assert outlook.left(now_s)[0] == 10 + 3 * CELL_S, "the first wait for a fit machine is the longest"
    outlook.ends(FIRST.cells[1].number, now_s := now_s + 2 * CELL_S)
    assert outlook.left(now_s)[0] == 10 + 2 * 2 * CELL_S


def test_a_cell_that_takes_longer_than_planned_tells_so_while_it_runs() -> None:
    outlook = Outlook(PLAN.starts, 0.0)
    outlook.ends(FIRST.name, 10.0)
    assert outlook.left(10.0 + CELL_S)[0] == 10 + 3 * CELL_S
    assert outlook.left(10.0 + 3 * CELL_S)[0] == 10 + 2 * 3 * CELL_S, "halfway from the plan to what is seen"
    assert outlook.left(10.0 + 5 * CELL_S)[0] == 10 + 3 * 3 * CELL_S
