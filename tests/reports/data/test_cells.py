"""The order of a run's groups."""

from dataclasses import replace

from make_run import deployment, plan_of, run_record

from serving_bench.harness.contracts import Load, ScenarioChoice
from serving_bench.reports.data.cells import Cell, groups_of


def test_scenarios_stand_in_the_order_asked_for():
    asked = {"scenario": ["rag", "fixed"], "scenario.input_tokens": ["64", "256", "128"]}
    labels = [f"fixed input_tokens={count}" for count in (256, 128, 64)]
    cells = []
    for label in (*labels, "rag"):
        scenario = ScenarioChoice(label.partition(" ")[0], {}, label)
        [start] = run_record(plan_of([deployment("vllm", "awq")], [Load(1)], scenario=scenario)).plan.starts
        [planned] = start.cells
        planned = replace(planned, number=len(cells) + 1)
        cells.append(Cell(planned.number, planned, start, None, "completed", "1 user", None))
    found = [group.scenario for group in groups_of(cells, ["vllm awq"], asked)]
    assert found == ["rag", *(f"fixed input_tokens={count}" for count in (64, 256, 128))]
