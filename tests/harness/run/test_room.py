"""How much room a run needs grows with what it is told to measure."""

from dataclasses import replace

import make_run
import pytest

from serving_bench.harness.contracts import Load, Until
from serving_bench.harness.errors import UserError
from serving_bench.harness.run.room import check_space, left_bytes, needed_bytes
from serving_bench.harness.store import store

LOAD = Load(concurrency=1, warmup_s=1.0, duration_s=10.0)


def of(load: Load, repeats: int = 1):
    return make_run.plan_of([make_run.deployment("reference", "-")], [load], repeats).starts


def test_the_room_is_computed_from_users_and_seconds():
    # A page, a start, a cell, and 2,000 bytes a second of each user: 11 s of one, 101 s of eight.
    assert needed_bytes(of(LOAD)) == 4_000_000 + 100_000 + 100_000 + 2_000 * 11
    larger = replace(LOAD, concurrency=8, duration_s=100.0)
    assert needed_bytes(of(larger)) == 4_000_000 + 200_000 + 2_000 * 8 * 101
    assert needed_bytes(of(LOAD, repeats=3)) == 4_000_000 + 3 * 222_000


@pytest.mark.parametrize(
    ("more", "bytes_more"),
    [
        ({"keep_bytes": True}, 12_000 * 11),
        ({"duration_s": None, "concurrency": None, "rate_per_s": 2.0, "conversations": 200}, 2_000 * 90),
        (
            {"duration_s": None, "concurrency": None, "arrival": "batch", "conversations": 400},
            2_000 * 400 * 9,
        ),
        ({"ramp_up_s": 5.0, "ramp_down_s": 5.0}, 2_000 * 10),
    ],
)
def test_each_thing_that_takes_room_counts(more, bytes_more):
    assert needed_bytes(of(replace(LOAD, **more))) >= needed_bytes(of(LOAD)) + bytes_more


def test_what_may_follow_and_what_is_asked_of_quality_count():
    assert needed_bytes(of(LOAD), asks_quality=True) == needed_bytes(of(LOAD)) + 300_000
    short, long = (needed_bytes(of(LOAD), Until(0.05, budget_s=each)) for each in (600.0, 6000.0))
    assert needed_bytes(of(LOAD)) < short < long
    assert needed_bytes(of(LOAD), Until(0.05, budget_s=1.0)) == needed_bytes(of(LOAD))


def test_a_run_that_needs_more_than_any_disk_has_is_refused(tmp_path):
    check_space(tmp_path, of(LOAD))
    endless = replace(LOAD, concurrency=100_000, duration_s=86_400.0)
    with pytest.raises(UserError, match=r"^what is measured needs about [\d.]+ GB under .*: --output DIR$"):
        check_space(tmp_path, of(endless, repeats=1000))


def test_of_a_run_that_goes_on_only_what_is_left_counts(tmp_path):
    plan = make_run.plan_of([make_run.deployment("reference", "-")], [LOAD], 2)
    assert left_bytes(tmp_path, plan) == 4_000_000 + 2 * 222_000
    start = plan.starts[0]
    make_run.write_start(tmp_path, make_run.start_record(start, make_run.S))
    make_run.write_cell(tmp_path, start.cells[0], start, [], make_run.summary(100 * make_run.S))
    assert [cell.status for cell in store.read_cells(tmp_path)] == ["completed"]
    assert left_bytes(tmp_path, plan) == 4_000_000 + 222_000
