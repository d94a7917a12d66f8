"""What the terminal is told while a run goes on."""

from __future__ import annotations

import pytest
from make_run import deployment, plan_of

from harness.contracts import Load, PlannedStart
from harness.progress import Show
from harness.store import CellRecord

REASON = "the server exited with code 1"


@pytest.fixture
def start() -> PlannedStart:
    [start] = plan_of([deployment("llama_cpp", "fp16")], [Load(concurrency=1)]).starts
    return start


def record(start: PlannedStart, number: int, **changes: object) -> CellRecord:
    [planned] = start.cells
    facts = {"status": "failed", "error": REASON, **changes}
    return CellRecord(
        number, start.name, start.deployment.label, 0, planned.scenario, planned.load, planned.seed, **facts
    )  # type: ignore[arg-type]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_reason_is_said_once_where_its_failures_follow_each_other(
    start: PlannedStart, capsys: pytest.CaptureFixture[str]
) -> None:
    show = Show(quiet=False)
    show.cell_ends(start, record(start, 1))
    show.cell_ends(start, record(start, 2))
    show.start_failed(start, REASON)
    first, second, third = lines(capsys)
    assert first.endswith(f": failed: {REASON}")
    assert second.endswith(": failed: for the same reason")
    assert third.endswith(": failed: for the same reason")


@pytest.mark.parametrize("between", ["completed", "doubted", "ready"])
def test_a_reason_is_said_again_where_anything_else_came_between(
    start: PlannedStart, capsys: pytest.CaptureFixture[str], between: str
) -> None:
    show = Show(quiet=False)
    if between == "doubted":
        doubts = {"validity": "invalid", "reasons": ("no request was sent in the window",)}
        show.cell_ends(start, record(start, 1, **doubts))
    else:
        show.cell_ends(start, record(start, 1))
        if between == "completed":
            show.cell_ends(start, record(start, 2, status="completed", error=None))
        else:
            show.start_ready(start, 1.0)
    show.cell_ends(start, record(start, 3))
    assert lines(capsys)[-1].endswith(f": failed: {REASON}")


def test_a_grown_run_says_why_a_repeat_follows(
    start: PlannedStart, capsys: pytest.CaptureFixture[str]
) -> None:
    show = Show(quiet=False)
    show.begin(plan_of([start.deployment], [Load(concurrency=1)]))
    show.grow([start, start], "repeat 4 follows: 7 %")
    assert lines(capsys) == ["repeat 4 follows: 7 %"]
    [task] = show._live.tasks
    assert task.total == 3
