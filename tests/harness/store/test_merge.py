"""Repeats that several machines measured become one run, and what is not of one plan does not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from make_run import full_run, start_record

from harness.errors import UserError
from harness.store import checksums, store
from harness.store.merge import merge, mergeable
from reports import open_run
from reports.checks.machines import machines_differ, nodes_lost
from reports.outputs.as_json import to_builtins
from reports.page.grounds import in_order

HOUR_NS = 3600 * 10**9


def join(folders, into: Path, **told) -> None:
    merge(mergeable(folders), into, **told)


def environment(boot: str, ahead_ns: int = 0, **machine) -> dict:
    """A machine's facts; its wall clock is that far ahead of its monotonic one."""
    facts = {"architecture": "x86_64", "boot_id": boot, "cpu_model": "CPU", **machine}
    return {"machine": facts, "clock": {"monotonic_ns": 0, "realtime_ns": ahead_ns}}


def part(whole: Path, repeat: int, path: Path, **changes) -> Path:
    """Return what `--only-repeat` of that repeat would have left."""
    shutil.copytree(whole, path)
    record = store.read_run(whole)
    plan = record.plan.only([repeat])
    left = replace(record, plan=plan, only_repeat=repeat + 1, **changes)
    store.write_record(path / "run.json", left)
    kept = {start.name for start in plan.starts}
    for folder in (path / "starts").iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)
    for cell in store.read_cells(path):
        if cell.start not in kept:
            shutil.rmtree(store.cell_dir(path, cell.number))
    return path


@pytest.fixture
def whole(tmp_path) -> Path:
    return full_run(tmp_path / "whole")


@pytest.fixture
def parts(whole, tmp_path) -> list[Path]:
    return [
        part(whole, 0, tmp_path / "a", environment=environment("1", 2 * HOUR_NS)),
        part(whole, 1, tmp_path / "b", environment=environment("2", HOUR_NS)),
    ]


def test_repeats_apart_say_together_what_the_whole_run_says(whole, parts, tmp_path):
    join(parts[::-1], tmp_path / "all")
    was, now = (to_builtins(open_run(path)) for path in (whole, tmp_path / "all"))
    assert checksums.findings(tmp_path / "all") == []
    assert len(was["tables"]["values"]) > 50
    assert now["tables"] == was["tables"]
    assert now["answer"]["marks"] == was["answer"]["marks"]
    record = store.read_run(tmp_path / "all")
    assert [node.repeats for node in record.nodes] == [(1,), (0,)]
    assert (record.only_repeat, record.plan.repeats, record.status) == (None, (0, 1), "completed")


def test_a_folder_that_was_merged_keeps_its_machines_when_it_is_merged_again(parts, whole, tmp_path):
    (tmp_path / "all").mkdir()
    join([parts[0]], tmp_path / "half")
    join([tmp_path / "half", parts[1]], tmp_path / "all")
    assert [n.environment["machine"]["boot_id"] for n in store.read_run(tmp_path / "all").nodes] == ["1", "2"]


def test_starts_are_in_the_order_of_the_walls_clock(parts, tmp_path):
    join(parts, tmp_path / "all")
    assert [record.repeat for record in in_order(open_run(tmp_path / "all"))] == [1] * 4 + [0] * 4


def test_starts_that_were_made_again_get_numbers_of_their_own(parts, tmp_path):
    for path in parts:
        planned = store.read_run(path).plan.starts[0]
        again = replace(planned, index=9)
        folder = path / "starts" / again.name
        (path / "starts" / planned.name).rename(folder)
        record = start_record(again, 1)
        store.write_record(folder / "start.json", record)
        for cell in store.read_cells(path):
            if cell.start == planned.name:
                target = store.cell_dir(path, cell.number) / "cell.json"
                store.write_record(target, replace(cell, start=again.name))
    join(parts, tmp_path / "all")
    starts = {start.name: start.repeat for start in store.read_starts(tmp_path / "all")}
    assert len(starts) == 8
    assert {cell.start: cell.repeat for cell in store.read_cells(tmp_path / "all")}.items() <= starts.items()


def test_machines_that_differ_are_told_by_repeat(parts, whole, tmp_path):
    for repeat, path in enumerate(parts):
        facts = {"cpu_model": f"CPU {repeat}", "load_1min": repeat}
        shutil.rmtree(path)
        part(whole, repeat, path, environment=environment("1", **facts))
    join(parts, tmp_path / "all")
    found = machines_differ.find(open_run(tmp_path / "all"))
    assert found is not None
    assert found.text.startswith("cpu model CPU 0 (repeat 1), CPU 1 (repeat 2).")
    assert not found.marks


def test_a_node_that_was_lost_is_told(parts, tmp_path):
    join(parts, tmp_path / "all", lost={1: ["a1 (10.0.0.3)"]})
    found = nodes_lost.find(open_run(tmp_path / "all"))
    assert found is not None
    assert "repeat 2 was begun on a1 (10.0.0.3), which was lost" in found.text
    assert store.read_run(tmp_path / "all").nodes[1].lost_on == ("a1 (10.0.0.3)",)


CHANGES = {
    "load.duration is .* and": lambda record: {"settings": {**record.settings, "load.duration": ["9s"]}},
    "machine.architecture is": lambda record: {"environment": environment("2", architecture="arm64")},
    'engine_packages.vllm.vllm is missing and "1"': lambda record: {
        "environment": {**environment("2"), "engine_packages": {"vllm": {"vllm": "1"}}}
    },
    "devices is missing and": lambda record: {
        "environment": {**environment("2"), "devices": [{"name": "H100"}]}
    },
}


@pytest.mark.parametrize("said", CHANGES)
def test_the_first_difference_is_named(said, whole, parts, tmp_path):
    record = store.read_run(parts[1])
    store.write_record(parts[1] / "run.json", replace(record, **CHANGES[said](record)))
    with pytest.raises(UserError, match=f"a and .*/b are not of one plan: {said}"):
        join(parts, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_the_same_repeat_twice_a_search_and_a_gap_are_told(parts, whole, tmp_path):
    with pytest.raises(UserError, match=r"repeat 1 is in .*/a and in .*/whole; leave one out"):
        join([parts[0], whole], tmp_path / "all")
    join(parts[1:], tmp_path / "half")
    assert store.read_run(tmp_path / "half").stopped_because == "no folder has repeat 1"


def test_links_in_a_strangers_folder_bring_no_file_along(parts, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (next((parts[0] / "starts").iterdir()) / "server.log").symlink_to(secret)
    join(parts, tmp_path / "all")
    logs = list((tmp_path / "all" / "starts").glob("*/server.log"))
    assert [path for path in logs if not path.is_symlink() and path.read_text() == "mine"] == []
