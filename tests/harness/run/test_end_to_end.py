"""The whole path on the reference engine, whose send times are known: bench measured what happened."""

import statistics
from itertools import pairwise
from typing import Any

import pytest
from bench_command import Place, bench, made, quick

from serving_bench.harness.selftest.sends import END, read_sends
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.data.samples import grown_in_cell

MS = 1_000_000
ASKED = ["reference label=a", "reference label=b"]


def requests_of(place: Place, cell: int) -> list[dict[str, Any]]:
    return store.read_requests(store.cell_dir(place.run_dir, cell)).to_pylist()


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Place:
    """Two equal deployments, each started twice, at two loads; beside folders called as our packages are."""
    place = made(tmp_path_factory.mktemp("clean") / "p")
    for name in ("scenarios", "engines", "harness", "serving_bench"):
        (place.path / name).mkdir()
    done = bench(
        place, "run", *quick("reference.label=a,b", "load.concurrency=1,4", "repeats=2"),
        "scenario.think_time=50ms", "--output", "run", "--quiet",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "run/report.html\n", "stdout holds the report's path and nothing else"
    return place


def test_deployments_are_interleaved(clean):
    run, starts = store.read_run(clean.run_dir), store.read_starts(clean.run_dir)
    assert run.status == "completed"
    assert run.ended_at is not None
    labels = [start.deployment.label for start in run.plan.starts]
    assert labels[:2] == labels[:1:-1], "the second block is the first turned round"
    assert sorted(labels[:2]) == list(run.plan.labels) == ASKED
    assert [(start.deployment.label, start.status) for start in starts] == [(n, "completed") for n in labels]
    spawned = [start.spawned_ns for start in starts]
    assert spawned == sorted(spawned)
    assert all(a.stopped_ns < b.spawned_ns for a, b in pairwise(starts)), "one server at a time"


def test_all_files_are_there_and_none_too_many(clean):
    names = {path.name for path in clean.run_dir.glob("cells/001/*")}
    assert names == {"cell.json", "requests.parquet", "load.log"}
    names = {path.name for path in clean.run_dir.glob("starts/01-*/*")}
    assert names == {"start.json", "server.log", "host.parquet", "server.parquet", "sends.bin"}
    names = {path.name for path in clean.run_dir.iterdir()}
    assert names == {".lock", "run.json", "starts", "cells", "headline.json", "report.html", "SHA256SUMS"}
    assert len(list(clean.run_dir.glob("cells/*/requests.parquet"))) == 8
    assert "reference label=b" in clean.report()


def test_starts_record_their_life_and_memory(clean):
    for start in store.read_starts(clean.run_dir):
        assert start.launch_s is not None
        assert 0 < start.launch_s < 30
        assert start.exit_code == 0
        names = [phase.name for phase in start.phases]
        first = 1 + 2 * (start.index - 1)
        cells = [
            f"cell {n:03d} {part}"
            for n in (first, first + 1)
            for part in ("reset", "warm-up", "window", "drain", "end")
        ]
        assert names == ["spawned", "process_up", "ready", *cells, "stopping"]
        assert start.resolved["concurrent_sequences"] == 4
        samples = store.read_samples(clean.run_dir / "starts" / start.name / "host.parquet")
        assert samples is not None
        assert samples.num_rows > 10


def test_window_is_the_rule_written_in_the_record(clean):
    for cell in store.read_cells(clean.run_dir):
        # A machine that stands still for seconds makes a cell suspect, and bench says so.
        assert [each for each in cell.reasons if "bench itself stood still" not in each] == [], cell
        assert (cell.status, cell.validity) == ("completed", "suspect" if cell.reasons else "valid"), cell
        assert cell.summary is not None
        window_s = (cell.summary.window_end_ns - cell.summary.window_start_ns) / 1e9
        assert window_s == pytest.approx(round(window_s), abs=0.3), "whole steps of load.duration"
        assert 1 <= round(window_s) <= 4
        rows = requests_of(clean, cell.number)
        within = [cell.summary.window_start_ns <= row["sent_ns"] < cell.summary.window_end_ns for row in rows]
        assert [row["in_window"] for row in rows] == within
        assert True in within
        assert {row["outcome"] for row in rows} == {"ok"}
        assert len({row["user"] for row in rows}) == cell.load.concurrency


def test_all_deployments_saw_the_same_conversations(clean):
    """Turn by turn: what is alike in all starts of a load and repeat is the text, not only its length."""
    by_seed: dict[int, list[dict[tuple[int, int], tuple[Any, ...]]]] = {}
    for cell in store.read_cells(clean.run_dir):
        turns = {
            (row["conversation"], row["turn"]): (row["input_tokens"], row["max_tokens"], row["output_text"])
            for row in requests_of(clean, cell.number)
        }
        by_seed.setdefault(cell.seed, []).append(turns)
    assert [len(pair) for pair in by_seed.values()] == [2, 2, 2, 2]
    for one, other in by_seed.values():
        both = one.keys() & other.keys()
        assert len(both) > 3
        assert {turn: one[turn] for turn in both} == {turn: other[turn] for turn in both}


def test_measured_times_are_the_servers_own(clean):
    first_lags_ms, itl_errors_ms = [], []
    for start in store.read_starts(clean.run_dir):
        sent: dict[str, list[int]] = {}
        sends = read_sends(clean.run_dir / "starts" / start.name / "sends.bin")
        for send in (each for each in sends if each.chunk < END):
            sent.setdefault(send.request_id, []).append(send.sent_ns)
            assert send.chunk == len(sent[send.request_id]) - 1
        for cell in (cell for cell in store.read_cells(clean.run_dir) if cell.start == start.name):
            assert cell.summary is not None
            slack_ns = cell.summary.clock_uncertainty_ns or 0
            for row in requests_of(clean, cell.number):
                ours, theirs = row["chunk_ns"], sent[row["request_id"]]
                assert len(ours) == len(theirs) == row["output_tokens"]
                assert row["first_content_ns"] == ours[0]
                assert all(a >= s - slack_ns for a, s in zip(ours, theirs, strict=True)), "before it was sent"
                assert row["sent_ns"] < theirs[0]
                first_lags_ms.append((ours[0] - theirs[0]) / MS)
                gaps = zip(pairwise(ours), pairwise(theirs), strict=True)
                itl_errors_ms += [abs((b - a) - (d - c)) / MS for (a, b), (c, d) in gaps]
    assert len(first_lags_ms) > 40
    assert statistics.median(first_lags_ms) < 5
    assert statistics.median(itl_errors_ms) < 5


def test_servers_counters_are_what_its_answers_say(clean):
    run = open_run(clean.run_dir)
    for cell in run.planned_cells:
        requests = run.cell_requests(cell.number)
        assert grown_in_cell(run, cell, "generated_tokens") == requests["output_tokens"].sum() > 0
        assert grown_in_cell(run, cell, "prompt_tokens") == requests["input_tokens"].sum() > 0
    for start in run.start_records:
        assert not [what for what in start.memory_notes if what.startswith("server ")]
        assert start.sampler["server_samples"] >= 2
    assert "What the servers and the machine reported" in clean.report()


def test_nothing_of_a_run_remains(clean):
    clean.wait_until_empty()
    assert not clean.processes()
