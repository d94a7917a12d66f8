"""How sure a run is of a metric, against intervals worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from make_run import (
    MS,
    S,
    deployment,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from harness.contracts import Load, Plan
from harness.store import store
from reports import open_run
from reports.measures.over_starts import Aggregate
from reports.verdicts.precision import half_width_share, precisions

T0 = 102 * S  # the window's beginning
T_2 = 4.30265273  # Student's t of two degrees of freedom at 97.5 %
A, B, C = deployment("llama_cpp", "fp16"), deployment("vllm", "awq"), deployment("sglang", "awq")


def written(path: Path, plan: Plan, first_ms: dict[str, tuple[int | None, ...]], count: int = 20) -> Path:
    """Each deployment's starts have a TTFT of so many ms; None: its server did not start."""
    store.write_record(path / "run.json", run_record(plan))
    for start in plan.starts:
        ttft_ms = first_ms[start.deployment.label][start.repeat]
        if ttft_ms is None:
            write_start(path, start_record(start, 90 * S, status="failed", error="exited with code 1"))
            changes = {"status": "failed", "error": "exited with code 1"}
            write_cell(path, start.cells[0], start, [], None, **changes)
            continue
        write_start(path, start_record(start, 90 * S))
        sent = [T0 + k * S // 4 for k in range(count)]
        rows = [
            row(k, at, chunk_ns=(at + ttft_ms * MS, at + (ttft_ms + 20) * MS)) for k, at in enumerate(sent)
        ]
        write_cell(path, start.cells[0], start, rows, summary(100 * S))
    return path


def half(*values: float) -> float:
    """Of the 95 % interval of the mean of three logarithms."""
    logs = [math.log(value) for value in values]
    mean = sum(logs) / 3
    return T_2 * math.sqrt(sum((each - mean) ** 2 for each in logs) / 2) / math.sqrt(3)


def test_the_larger_side_over_the_mean_the_widest_first(tmp_path: Path) -> None:
    plan = plan_of([A, B], [Load(concurrency=4)], 3)
    values = {A.label: (100, 101, 102), B.label: (100, 110, 130)}
    wide, narrow = precisions(written(tmp_path, plan, values), "ttft_s.p50")
    assert (wide.case, narrow.case) == ("vllm awq, 4 users", "llama_cpp fp16, 4 users")
    # A geometric mean's interval is wider above: exp(half) - 1.
    assert wide.half_width_share == pytest.approx(math.expm1(half(100, 110, 130)))
    assert narrow.half_width_share == pytest.approx(math.expm1(half(100, 101, 102)))


def test_equal_starts_are_sure_and_one_start_is_not(tmp_path: Path) -> None:
    plan = plan_of([A, B], [Load(concurrency=4)], 3)
    values = {A.label: (100, 100, 100), B.label: (100, None, None)}
    one, equal = precisions(written(tmp_path, plan, values), "ttft_s.p50")
    assert (one.case, one.half_width_share) == ("vllm awq, 4 users", math.inf)
    assert equal.half_width_share == 0


def test_what_has_no_mean_comes_last_with_the_reason(tmp_path: Path) -> None:
    plan = plan_of([C, A], [Load(concurrency=4)], 3)
    values = {A.label: (100, 100, 101), C.label: (None, None, None)}
    known, none = precisions(written(tmp_path, plan, values), "ttft_s.p50")
    assert known.case == "llama_cpp fp16, 4 users"
    assert (none.case, none.half_width_share, none.why) == (
        "sglang awq, 4 users", None, "exited with code 1",
    )  # fmt: skip


def test_a_percentile_of_too_few_requests_says_so(tmp_path: Path) -> None:
    plan = plan_of([A], [Load(concurrency=4)], 3)
    [found] = precisions(written(tmp_path, plan, {A.label: (100, 100, 101)}), "ttft_s.p99")
    assert found.half_width_share is None
    assert found.why is not None
    assert found.why.startswith("p99 needs n of ")


def test_a_mean_of_nothing_has_no_share_unless_all_starts_agree() -> None:
    around_0 = Aggregate(0.0, -1.0, 1.0, 3, 3, (-1.0, 0.0, 1.0), interval=(-2.5, 2.5))
    assert half_width_share(around_0) is None
    assert half_width_share(replace(around_0, interval=(0.0, 0.0))) == 0
    assert half_width_share(replace(around_0, mean=-5.0, interval=(-6.0, -4.5))) == pytest.approx(0.2)


def test_every_scenario_is_a_case_of_its_own(tmp_path: Path) -> None:
    plan = plan_of([A], [Load(concurrency=4)], 3)
    other = plan_of([A], [Load(concurrency=4)], 3)
    starts = []
    for start, twin in zip(plan.starts, other.starts, strict=True):
        [cell], [second] = start.cells, twin.cells
        scenario = replace(second.scenario, label="another")
        starts.append(
            replace(start, cells=(cell, replace(second, number=cell.number + 10, scenario=scenario)))
        )
    run_dir = written(tmp_path, replace(plan, starts=tuple(starts)), {A.label: (100, 100, 101)})
    cases = [each.case for each in precisions(run_dir, "ttft_s.p50")]
    assert sorted(cases) == ["llama_cpp fp16, another, 4 users", "llama_cpp fp16, chat_multi_turn, 4 users"]


def test_deployments_stand_in_the_order_asked_for_not_in_that_of_their_starts(tmp_path: Path) -> None:
    plan = replace(plan_of([A, B, C], [Load(concurrency=4)], 1), labels=(C.label, A.label, B.label))
    run = open_run(written(tmp_path, plan, dict.fromkeys((A.label, B.label, C.label), (100,))))
    assert list(run.deployments) == [C.label, A.label, B.label]
    assert [group.deployment for group in run.groups] == [C.label, A.label, B.label]
    old = tmp_path / "old"
    store.write_record(old / "run.json", run_record(replace(plan, labels=())))
    assert list(open_run(old).deployments) == [A.label, B.label, C.label]
