"""Repeats that several machines measured become one run, and what is not of one plan does not."""

import os
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from bench_command import Place, told
from fuzzing import STRANGE
from make_run import full_run, start_record
from planted_links import LINKS, plant

from serving_bench.harness.contracts import ForeignSource, because
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.store import checksums, store
from serving_bench.harness.store.merge import merge, mergeable
from serving_bench.harness.store.named_files import LOCK_FILE
from serving_bench.reports import open_run
from serving_bench.reports.checks.starts import machines_differ, nodes_lost
from serving_bench.reports.outputs.as_json import to_builtins
from serving_bench.reports.page.grounds import in_order
from serving_bench.reports.verdicts.comparisons import alpha_of

HOUR_NS = 3600 * 10**9
MACHINES_DIFFER = (
    "Deployments are compared within a repeat, on one machine, but means are over machines that differ: "
)


def join(folders, into: Path, **told) -> None:
    merge(mergeable(folders), into, is_own=True, **told)


def environment(boot: str, ahead_ns: int = 0, **machine) -> dict:
    """A machine's facts; its wall clock is that far ahead of its monotonic one."""
    facts = {"architecture": "x86_64", "boot_id": boot, "cpu_model": "CPU", **machine}
    return {"machine": facts, "clock": {"monotonic_ns": 0, "realtime_ns": ahead_ns}}


def part(whole: Path, repeat: int, path: Path, **changes) -> Path:
    """Return what `--only-repeat` of that repeat would have left."""
    shutil.copytree(whole, path)
    record = store.read_run(whole)
    plan = record.plan.only([repeat])
    settings = {**record.settings, "repeats": ["2"]}
    left = replace(record, settings=settings, plan=plan, only_repeat=repeat + 1, **changes)
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


def test_a_cell_that_two_folders_have_is_refused(parts, tmp_path):
    cell = store.read_cells(parts[0])[0]
    shutil.copytree(store.cell_dir(parts[0], cell.number), store.cell_dir(parts[1], cell.number))
    with pytest.raises(StoreError, match="another folder has this cell too"):
        join(parts, tmp_path / "all")
    assert not list((tmp_path / "all").glob("*"))


def test_repeats_apart_say_together_what_the_whole_run_says(whole, parts, tmp_path):
    join(parts[::-1], tmp_path / "all")
    was, now = (to_builtins(open_run(path)) for path in (whole, tmp_path / "all"))
    assert checksums.findings(tmp_path / "all") == []
    assert len(was["tables"]["values"]) > 50
    for each in (now, was):
        for finding in each["tables"]["findings"]:  # a merged run is not resumed
            finding["remedy"], _, _ = finding["remedy"].partition(" Here: bench run")
    assert now["tables"] == was["tables"]
    titles = [[(each["check"], each["marks"]) for each in found["distrust"]] for found in (now, was)]
    assert titles[0] == titles[1]
    record = store.read_run(tmp_path / "all")
    assert [node.repeats for node in record.nodes] == [(1,), (0,)]
    assert (record.only_repeat, record.plan.repeats, record.status) == (None, (0, 1), "completed")


def test_a_folder_that_was_merged_keeps_its_machines_when_it_is_merged_again(parts, whole, tmp_path):
    (tmp_path / "all").mkdir()
    join([parts[0]], tmp_path / "half")
    join([tmp_path / "half", parts[1]], tmp_path / "all")
    assert [n.environment["machine"]["boot_id"] for n in store.read_run(tmp_path / "all").nodes] == ["1", "2"]


def test_looks_that_were_spent_on_the_parts_are_not_forgotten(parts, tmp_path):
    for path in parts:
        store.write_record(path / "run.json", replace(store.read_run(path), looks=(4,)))
    join(parts, tmp_path / "all")
    assert store.read_run(tmp_path / "all").looks == (4, 4, 8)


def test_starts_are_in_the_order_of_the_walls_clock(parts, tmp_path):
    join(parts, tmp_path / "all")
    assert [record.repeat for record in in_order(open_run(tmp_path / "all"))] == [1] * 4 + [0] * 4


def test_a_clock_of_any_shape_is_read(parts, tmp_path):
    join(parts, tmp_path / "all")
    run = open_run(tmp_path / "all")
    for value in STRANGE:
        for clock in ({"clock": value}, {"clock": {"realtime_ns": value, "monotonic_ns": 0}}):
            nodes = tuple(replace(node, environment=clock) for node in run.record.nodes)
            assert len(in_order(replace(run, record=replace(run.record, nodes=nodes)))) == 8


def test_starts_that_were_made_again_get_numbers_of_their_own_and_spend_no_look(parts, whole, tmp_path):
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
    more = replace(store.read_run(parts[0]).plan.starts[1], index=10)
    store.write_record(parts[0] / "starts" / more.name / "start.json", start_record(more, 1))
    join(parts, tmp_path / "all")
    starts = {start.name: start.repeat for start in store.read_starts(tmp_path / "all")}
    assert len(starts) == 9
    # The report's first look is at all of them, so none was spent before.
    assert store.read_run(tmp_path / "all").looks == (9,)
    assert alpha_of(open_run(tmp_path / "all")) == alpha_of(open_run(whole))
    assert {cell.start: cell.repeat for cell in store.read_cells(tmp_path / "all")}.items() <= starts.items()


def test_machines_that_differ_are_told_by_repeat(parts, whole, tmp_path):
    for repeat, path in enumerate(parts):
        facts = {"cpu_model": f"CPU {repeat}", "load_1min": repeat}
        shutil.rmtree(path)
        part(whole, repeat, path, environment=environment("1", **facts))
    join(parts, tmp_path / "all")
    found = machines_differ.find(open_run(tmp_path / "all"))
    assert found is not None
    assert found.text.startswith(f"{MACHINES_DIFFER}cpu model CPU 0 (repeat 1), CPU 1 (repeat 2).")
    assert not found.marks


@pytest.mark.parametrize(
    ("fact", "a", "b"),
    [
        ("driver", "550.54.15", "570.86.10"),
        ("cuda", "12.4", "12.8"),
        ("power_limit_w", 700.0, 350.0),
        ("sm_clock_max_mhz", 1980, 1755),
        ("pcie_width_max", 16, 8),
    ],
)
def test_devices_that_differ_in_what_bears_on_speed_are_told_by_repeat(parts, whole, tmp_path, fact, a, b):
    for repeat, (path, value) in enumerate(zip(parts, (a, b), strict=True)):
        shutil.rmtree(path)
        card = {"name": "NVIDIA H100", "uuid": f"GPU-{repeat}", fact: value}
        part(whole, repeat, path, environment={**environment("1"), "devices": [card]})
    join(parts, tmp_path / "all")
    found = machines_differ.find(open_run(tmp_path / "all"))
    assert found is not None
    name = fact.replace("_", " ")
    assert found.text.startswith(f"{MACHINES_DIFFER}devices.0.{name} {a} (repeat 1), {b} (repeat 2).")


def test_machines_whose_kernels_reserve_another_part_of_the_same_memory_are_alike(parts, whole, tmp_path):
    for repeat, path in enumerate(parts):
        shutil.rmtree(path)
        part(whole, repeat, path, environment=environment("1", memory_bytes=64 * 2**30 - repeat * 2**20))
    join(parts, tmp_path / "all")
    assert machines_differ.find(open_run(tmp_path / "all")) is None


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
    with pytest.raises(UserError, match=r"/a: is given twice; give each folder once"):
        join([parts[0], parts[0]], tmp_path / "all")
    join(parts[1:], tmp_path / "half")
    assert store.read_run(tmp_path / "half").stopped_because == because("repeats_lacking", repeats="1")


def test_the_most_repeats_that_were_asked_for_tell_what_lacks(parts, tmp_path):
    for path, asked in zip(parts, ("4", "10"), strict=True):
        record = store.read_run(path)
        settings = {**record.settings, "repeats": [asked]}
        store.write_record(path / "run.json", replace(record, settings=settings))
    join(parts, tmp_path / "all")
    lacks = store.read_run(tmp_path / "all").stopped_because
    assert str(lacks) == f"no folder has repeat {', '.join(str(repeat) for repeat in range(3, 11))}"


@pytest.mark.parametrize("file", LINKS)
def test_a_link_in_a_strangers_folder_is_refused(parts, tmp_path, file):
    private = tmp_path / "private"
    private.mkdir()
    (private / "diary.txt").write_text("mine")
    link = plant(parts[0], file, private)
    with pytest.raises(StoreError, match=rf"^{link}: strange \(.*a link, .*\); remove it$"):
        join(parts, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_file_that_is_not_as_it_was_written_is_not_merged(parts, tmp_path):
    for folder in parts:
        checksums.begin(folder)
        checksums.end(folder)
    table = next(parts[1].glob("cells/*/requests.parquet"))
    table.write_bytes(table.read_bytes().replace(b"ok", b"OK", 1))
    with pytest.raises(StoreError, match=rf"^{parts[1]}: cells/.*/requests.parquet is changed; see `bench v"):
        join(parts, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def of_another_tool(folder: Path) -> None:
    record = store.read_run(folder)
    source = ForeignSource("AIPerf", "0.13", {}, (), ())
    store.write_record(folder / "run.json", replace(record, foreign=source))


def without_starts(folder: Path) -> None:
    record = store.read_run(folder)
    store.write_record(folder / "run.json", replace(record, plan=replace(record.plan, starts=())))


def with_repeats_that_are_none(folder: Path) -> None:
    record = store.read_run(folder)
    settings = {**record.settings, "repeats": ["x"]}
    store.write_record(folder / "run.json", replace(record, settings=settings))


def with_a_pipe(folder: Path) -> None:
    os.mkfifo(next((folder / "starts").iterdir()) / "pipe")


def with_a_damaged_cell(folder: Path) -> None:
    max((folder / "cells").iterdir()).joinpath("cell.json").write_text("{}")


def larger_than_the_disk(folder: Path) -> None:
    most = 15 << 30
    for number in range(shutil.disk_usage(folder).free // most + 1):
        path = folder / "cells" / f"{number}.log"
        path.touch()
        os.truncate(path, most)


FAULTS = {
    with_a_pipe: "pipe: strange (not a file of bench's",
    without_starts: "has no starts, so there is nothing to merge",
    of_another_tool: "was measured by AIPerf; merge what bench measured",
    with_repeats_that_are_none: "damaged: repeats=x: give LEAST..MOST, such as 3..12, or one number for all",
    with_a_damaged_cell: "cell.json: damaged",
    larger_than_the_disk: "free some, or name another place: --output DIR",
}


@pytest.mark.parametrize("damage", FAULTS)
def test_a_fault_is_one_line_and_leaves_no_half_of_a_run(damage, parts, tmp_path):
    damage(parts[0])
    words = "merge", *parts, "--output", tmp_path / "all"
    done = told(Place(tmp_path), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert FAULTS[damage] in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.glob("all/*")} <= {LOCK_FILE}


def test_a_directory_that_another_bench_made_in_the_same_second_is_left_alone(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    theirs = tmp_path / "results" / "20260102-030405-merged"
    theirs.mkdir(parents=True)
    (theirs / "run.json").write_text("theirs")
    done = told(Place(tmp_path), "merge", *parts)
    assert done.returncode == 0, done.stderr
    assert [path.read_text() for path in theirs.iterdir()] == ["theirs"]
    (ours,) = set(theirs.parent.iterdir()) - {theirs}
    assert done.stdout == f"{ours.relative_to(tmp_path)}/report.html\n"


def test_what_cannot_be_written_leaves_no_half_of_a_run_and_the_command_can_be_given_again(parts, tmp_path):
    words = "merge", *parts, "--output", tmp_path / "all"
    largest = max(path.stat().st_size for path in parts[1].glob("starts/*/*"))
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, kept[1]))
    try:
        done = told(Place(tmp_path), *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path / 'all'}: cannot be written: File too large; the repeats ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "all").exists()
    again = told(Place(tmp_path), *words)
    assert again.returncode == 0, again.stderr
    assert checksums.findings(tmp_path / "all") == []
