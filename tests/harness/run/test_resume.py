"""What of a run is left to measure, and which runs are not resumed."""

from __future__ import annotations

from dataclasses import replace

import make_run
import pytest
from begun_run import WORDS, begin, settings_of, write_begun
from make_run import S

from harness.errors import StoreError
from harness.plan import plan
from harness.run import next_starts
from harness.store import store


@pytest.fixture
def begun(tmp_path):
    """A run's directory, record and plan; nothing is measured yet."""
    return begin(tmp_path / "run")


def keep(directory, start, cell, status="completed") -> None:
    make_run.write_start(directory, make_run.start_record(start, S))
    make_run.write_cell(directory, cell, start, [], make_run.summary(S), status=status)


def cells_of(starts) -> list[tuple[str, list[int]]]:
    return [(start.name, [cell.number for cell in start.cells]) for start in starts]


def test_all_starts_are_missing_at_first(begun):
    directory, record, planned = begun
    assert next_starts.missing_starts(directory, record, planned) == list(planned.starts)


def test_completed_cells_are_not_measured_again_and_begun_starts_get_new_numbers(begun):
    directory, record, planned = begun
    first, second = planned.starts[:2]
    keep(directory, first, first.cells[0])
    keep(directory, first, first.cells[1], "failed")
    keep(directory, second, second.cells[0])
    keep(directory, second, second.cells[1])
    missing = next_starts.missing_starts(directory, record, planned)
    assert cells_of(missing) == [
        ("05-reference-label-a", [2]),
        ("03-reference-label-b", [5, 6]),
        ("04-reference-label-a", [7, 8]),
    ]


def test_what_a_grown_run_lacks_is_numbered_on_from_all_that_is_there(begun):
    """Its fourth start was begun anew as the fifth, so its third block begins with the sixth."""
    directory, record, planned = begun
    for start in planned.starts:
        for cell in start.cells:
            keep(directory, start, cell)
    keep(directory, replace(planned.starts[3], index=5), planned.starts[3].cells[0])
    grown = plan.grown(
        planned, settings_of(*WORDS), first_index=next_starts.last_index(directory, record) + 1
    )
    assert [start.index for start in grown.starts] == [1, 2, 3, 4, 6, 7]
    record = replace(record, plan=grown)
    keep(directory, grown.starts[4], grown.starts[4].cells[0])
    again = plan.make(settings_of(*WORDS), repeats=grown.blocks)
    missing = next_starts.missing_starts(directory, record, again)
    assert [(start.index, [cell.number for cell in start.cells]) for start in missing] == [
        (8, [10]),
        (7, [11, 12]),
    ]


def test_who_is_left_to_be_asked_gets_a_start_without_cells_behind_all_others(begun):
    directory, record, planned = begun
    for start in planned.starts[1:]:
        for cell in start.cells:
            keep(directory, start, cell)
    missing = next_starts.missing_starts(directory, record, planned)
    labels = list(planned.deployments)
    alone = next_starts.only_asked(directory, record, planned, missing, labels)
    (only,) = (label for label in labels if label != missing[0].deployment.label)
    assert [(start.deployment.label, start.cells) for start in alone] == [(only, ())]
    assert alone[0].index > max(start.index for start in (*planned.starts, *missing))
    assert next_starts.only_asked(directory, record, planned, missing, []) == []


def test_a_run_whose_starts_or_cells_were_ordered_otherwise_is_refused(begun):
    directory, record, planned = begun
    turned = replace(planned, starts=(planned.starts[1], planned.starts[0], *planned.starts[2:]))
    first, *others = planned.starts
    cells = replace(planned, starts=(replace(first, cells=first.cells[::-1]), *others))
    for other in (turned, cells, replace(planned, starts=planned.starts[:2])):
        with pytest.raises(StoreError, match="planned by another bench"):
            next_starts.missing_starts(directory, replace(record, plan=other), planned)


@pytest.mark.parametrize(
    "other",
    [
        "seed=4", "load.warmup=9s", "load.timeout=60s", "scenario.turns=9", "engine.context_length=512",
        "reference.slots=3",
    ],
)  # fmt: skip
def test_whatever_would_be_measured_otherwise_ends_a_resume(begun, other):
    """Where a default has changed since, the plan of today's bench is another, too."""
    directory, _, planned = begun
    record = store.read_run(directory)
    assert next_starts.missing_starts(directory, record, planned) == list(planned.starts)
    words = [word for word in WORDS if word.partition("=")[0] != other.partition("=")[0]]
    today = plan.make(settings_of(*words, other))
    with pytest.raises(StoreError, match="planned by another bench"):
        next_starts.missing_starts(directory, record, today)


def test_a_run_of_another_machine_is_not_resumed(tmp_path):
    settings = settings_of(*WORDS)
    whole = plan.make(settings)
    record = write_begun(tmp_path, settings, whole)
    assert len(next_starts.missing_starts(tmp_path, record, whole)) == len(whole.starts)
    machine = {**record.environment["machine"], "cpu_model": "another"}
    moved = replace(record, environment={**record.environment, "machine": machine})
    with pytest.raises(StoreError, match=r"begun on another machine .*cpu_model"):
        next_starts.missing_starts(tmp_path, moved, whole)


def test_measured_time_is_that_of_all_starts_that_were_begun(begun):
    directory, _, planned = begun
    assert next_starts.measured_s(directory) == 0
    whole = make_run.start_record(planned.starts[0], 5 * S)  # ready after 3 s
    killed = replace(make_run.start_record(planned.starts[1], 500 * S), stopped_ns=None)
    mute = replace(make_run.start_record(planned.starts[2], S), phases=())
    whole = replace(whole, phases=(*whole.phases, store.Phase("stopping", 65 * S)))
    for record in (whole, killed, mute):
        make_run.write_start(directory, record)
    assert next_starts.measured_s(directory) == 63


def test_more_repeats_are_planned_after_what_is_there_and_what_is_missing(begun):
    directory, record, planned = begun
    keep(directory, planned.starts[0], planned.starts[0].cells[0], "failed")
    missing = next_starts.missing_starts(directory, record, planned)
    blocks = planned.blocks
    longer, whole, more = next_starts.with_repeats(record, planned, settings_of(*WORDS), blocks + 2, missing)
    assert (longer.plan.blocks, whole.blocks) == (blocks + 2, blocks + 2)
    assert longer.plan.starts == (*record.plan.starts, *more)
    assert longer.settings["repeats"] == [str(blocks + 2)]
    assert [start.repeat for start in more] == [blocks, blocks, blocks + 1, blocks + 1]
    numbers = [start.index for start in (*missing, *more)]
    assert len(set(numbers)) == len(numbers)
    assert min(start.index for start in more) > max(start.index for start in missing)
    # What is read back later is the same plan.
    again = plan.make(settings_of(*WORDS), repeats=blocks + 2)
    assert next_starts.missing_starts(directory, longer, again)
