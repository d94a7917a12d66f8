"""What a plan's estimate learns of earlier runs, and that nothing depends on its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from make_run import S, deployment, plan_of, start_record, summary

from harness.contracts import EngineTerms, Load, PlannedStart
from harness.plan.durations import FILE, Expected, expected, learn
from harness.store.store import CellRecord, Phase, StartRecord

FP16, AWQ = deployment("llama_cpp", "fp16"), deployment("vllm", "awq")
CELL_S = 14  # from a cell's beginning to the next one's; its load is 10 s of that


def planned(*deployments, repeats: int = 1) -> tuple[PlannedStart, ...]:
    return plan_of(list(deployments), [Load(concurrency=1), Load(concurrency=4)], repeats).starts


def lived(start: PlannedStart, spawned_s: float, launch_s: float = 20.0, **changes) -> StartRecord:
    """Ready after launch_s; 2 s later the first of its cells of CELL_S, then 3 s to stop."""
    ready_s = spawned_s + launch_s
    begins = [ready_s + 2 + CELL_S * at for at in range(len(start.cells))]
    stopping_s = ready_s + 2 + CELL_S * len(start.cells)
    phases = [
        Phase(f"cell {cell.number:03d} {part}", int((begin_s + at_s) * S))
        for cell, begin_s in zip(start.cells, begins, strict=True)
        for part, at_s in (("warm-up", 0), ("window", 3), ("drain", 11), ("end", 12))
    ]
    plain = start_record(
        start, int(spawned_s * S), ready_ns=int(ready_s * S), stopped_ns=int((stopping_s + 3) * S),
        phases=(*phases, Phase("stopping", int(stopping_s * S))),
    )  # fmt: skip
    return replace(plain, **changes)


def cells_of(*starts: PlannedStart, **changes) -> list[CellRecord]:
    """Loads of 10 s: 2 s of warm-up and a window of 8 s."""
    return [
        replace(
            CellRecord(
                cell.number,
                start.name,
                start.deployment.label,
                0,
                cell.scenario,
                cell.load,
                7,
                "completed",
                summary=summary(1000 * S),
            ),
            **changes,
        )
        for start in starts
        for cell in start.cells
    ]


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    assert expected(tmp_path, FP16, ()) is None


def test_a_starts_parts_are_learnt_by_deployment(tmp_path: Path) -> None:
    first, second = planned(FP16, AWQ)
    # The second is spawned 7 s after the first has stopped, at 20 + 2 + 28 + 3 = 53 s.
    learn(tmp_path, [lived(first, 0), lived(second, 60, launch_s=90)], cells_of(first, second))
    assert expected(tmp_path, FP16, ()) == Expected(start_s=20 + 2 + 3, cell_s=4)
    assert expected(tmp_path, AWQ, ()) == Expected(start_s=90 + 7 + 2 + 3, cell_s=4)


def test_a_ramp_down_is_part_of_the_load(tmp_path: Path) -> None:
    [start] = planned(FP16)
    cells = cells_of(start, load=Load(concurrency=1, ramp_down_s=3.0))
    learn(tmp_path, [lived(start, 0)], cells)
    assert expected(tmp_path, FP16, ()) == Expected(25, 1)


def test_medians_are_of_the_last_few_starts(tmp_path: Path) -> None:
    [start] = planned(FP16)
    for launch_s in (500, 500, 500, 10, 30, 20, 40, 400):
        learn(tmp_path, [lived(start, 0, launch_s=launch_s)], cells_of(start))
    assert expected(tmp_path, FP16, ()) == Expected(30 + 5, 4)  # 10, 30, 20, 40, 400; the rest is 5 s


def test_what_a_first_start_does_not_wait_for_is_not_learnt_of_it_where_another_told(tmp_path: Path) -> None:
    first, second = planned(FP16, repeats=2)
    learn(tmp_path, [lived(first, 0), lived(second, 60)], cells_of(first, second))
    for _ in range(5):
        learn(tmp_path, [lived(first, 0)], cells_of(first))
    # Those with a server before: 7 s until the spawn; the first one's 5 s are from when nothing was known.
    assert expected(tmp_path, FP16, ()) == Expected(20 + (5 + 12) / 2, 4)


def test_devices_models_and_labels_are_told_apart(tmp_path: Path) -> None:
    [start] = planned(FP16)
    learn(tmp_path, [lived(start, 0, devices=(0,))], cells_of(start))
    assert expected(tmp_path, FP16, (0,)) is not None
    assert expected(tmp_path, FP16, ()) is None
    assert expected(tmp_path, FP16, (1,)) is None
    assert expected(tmp_path, replace(FP16, model="other"), (0,)) is None
    assert expected(tmp_path, replace(FP16, label="other"), (0,)) is None


def test_a_start_that_failed_tells_what_it_came_to_and_no_more(tmp_path: Path) -> None:
    [start] = planned(FP16)
    learn(tmp_path, [lived(start, 0, phases=(), ready_ns=None)], [])
    assert expected(tmp_path, FP16, ()) is None
    one_cell = lived(start, 0)
    one_cell = replace(one_cell, phases=one_cell.phases[:5])  # killed in its second cell
    learn(tmp_path, [one_cell], cells_of(start))
    assert expected(tmp_path, FP16, ()) is None
    learn(tmp_path, [lived(start, 0)], cells_of(start, status="failed", summary=None))
    assert expected(tmp_path, FP16, ()) == Expected(25, 4), "of the cell that was measured before the kill"


def test_a_cell_is_learnt_from_where_its_load_came_to_its_end_whatever_its_values_are(tmp_path: Path) -> None:
    [start] = planned(FP16)
    cut = summary(1000 * S, ended_by="interrupted")
    learn(tmp_path, [lived(start, 0)], cells_of(start, status="interrupted", summary=cut))
    assert expected(tmp_path, FP16, ()) is None
    learn(tmp_path, [lived(start, 0)], cells_of(start, status="failed", error="no request in the window"))
    assert expected(tmp_path, FP16, ()) == Expected(25, 4)


def test_a_server_that_ran_already_is_not_learnt_from(tmp_path: Path) -> None:
    attached = replace(FP16, terms=EngineTerms(base_url="http://127.0.0.1:1/v1"))
    [start] = planned(attached)
    learn(tmp_path, [lived(start, 0, attached=True)], cells_of(start))
    assert expected(tmp_path, attached, ()) is None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"a": 1}', b'{"x": {"launch_s": ["a"]}}', b"null", b"1e999"]
)
def test_a_damaged_file_counts_as_empty_and_is_made_again(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    assert expected(tmp_path, FP16, ()) is None
    [start] = planned(FP16)
    learn(tmp_path, [lived(start, 0)], cells_of(start))
    assert expected(tmp_path, FP16, ()) == Expected(25, 4)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_cannot_be_written_or_read_is_left(tmp_path: Path) -> None:
    [start] = planned(FP16)
    (tmp_path / FILE).mkdir()
    learn(tmp_path, [lived(start, 0)], cells_of(start))
    assert expected(tmp_path, FP16, ()) is None
    (tmp_path / "file").write_text("x")
    learn(tmp_path / "file", [lived(start, 0)], cells_of(start))
    assert expected(tmp_path / "file", FP16, ()) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "file"]
