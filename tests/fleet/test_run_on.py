"""What nodes have measured is never lost, nor mixed with what lies there already: `bench run --on`."""

import io
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench_command import Place, quick, told
from make_run import full_run
from ray_in_memory import FATES, Ray, Reference, installed, machines
from rich.console import Console

from serving_bench.harness.cli.commands.fleet import _Nodes
from serving_bench.harness.cli.ending import REPORTING
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import ForeignSource, Objective, Price, SearchTerms
from serving_bench.harness.errors import BenchError, StoreError
from serving_bench.harness.fleet import node
from serving_bench.harness.settings import overrides
from serving_bench.harness.settings.config import settings
from serving_bench.harness.store import store
from serving_bench.harness.store.merge import check_repeat

ASKED = settings(overrides.parse(quick("repeats=2")))


class Cluster(Ray):
    """Nodes of this machine, which say what it is, or `facts`."""

    facts: Any = None

    def init(self, **_: Any) -> None:
        """Begin to print, as a thread of Ray's does when a raylet dies."""
        self._is_over, self._printer = threading.Event(), threading.Thread(target=self._print)
        self._printer.start()

    def _print(self) -> None:
        while not self._is_over.wait(0.001):
            print("(raylet) Raylet is terminated.")

    def shutdown(self) -> None:
        self._is_over.set()
        self._printer.join()

    def nodes(self) -> list[dict[str, Any]]:
        offered = {each.id: {"CPU": each.cpus, "GPU": each.gpus} for each in self.there}
        return [
            {**each, "NodeManagerAddress": "127.0.0.1", "Resources": offered.get(each["NodeID"], {})}
            for each in super().nodes()
        ]

    def remote(self, function: Any) -> Any:
        if function is node.facts:
            return SimpleNamespace(
                options=lambda **_: SimpleNamespace(
                    remote=lambda device: Reference(function(device) if self.facts is None else self.facts)
                )
            )
        return super().remote(function)


def run_on(place: Place, fates: Sequence[tuple[str, int]]) -> tuple[Cluster, Any]:
    ray = Cluster(machines(1, 1), fates, {})
    with installed(ray):
        asked = quick("repeats=2")
        done = told(place, "run", *asked, "--on", "ray", "--output", place.run_dir, RAY_ADDRESS="auto")
    return ray, done


def test_repeats_that_lie_there_are_refused_before_anything_is_measured(tmp_path):
    earlier = tmp_path / "run-repeats" / "1" / "run.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("an earlier one")
    ray, done = run_on(Place(tmp_path), [("whole", 0)] * 2)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        f"--output {tmp_path / 'run-repeats'}: exists and is not empty"
    )
    assert ray.begun == []
    assert earlier.read_text() == "an earlier one"


def sent(path: Path, repeat: int, **changes: Any) -> list[Any]:
    """What a node sends of that repeat, from 0, of the run asked for, with changes in its run.json."""
    record = store.read_run(full_run(path))
    terms = {name: getattr(ASKED, name) for name in ("price", "slo", "compare", "quality")}
    own = {"plan": record.plan.only([repeat]), "settings": ASKED.given, **terms, **changes}
    store.write_record(path / "run.json", replace(record, **own))
    others = [start for start in store.read_starts(path) if start.repeat != repeat]
    for folder in [path / "starts" / start.name for start in others]:
        shutil.rmtree(folder)
    for cell in store.read_cells(path):
        if cell.repeat != repeat:
            shutil.rmtree(store.cell_dir(path, cell.number))
    files = files_of(path)
    sends = [("file", name, (path / name).read_bytes()) for name in sorted(files)]
    return [*sends, ("end", "0", "\0".join(files).encode()), StopIteration()]


def test_repeats_that_cannot_be_merged_stay_and_the_command_that_merges_them_is_told(tmp_path, monkeypatch):
    payloads = [
        sent(tmp_path / name, repeat, environment={"machine": {"architecture": name}})
        for repeat, name in enumerate("ab")
    ]
    monkeypatch.setitem(FATES, "whole", payloads[0])
    monkeypatch.setitem(FATES, "cells failed", payloads[1])
    _, done = run_on(Place(tmp_path), [("whole", 0), ("cells failed", 0)])
    folders = [tmp_path / "run-repeats" / name for name in ("1", "2")]
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "are not of one plan: machine.architecture is" in last
    assert last.endswith(f"what was measured stays: `bench merge {folders[0]} {folders[1]}`")
    assert [files_of(each) for each in folders] == [files_of(tmp_path / name) for name in "ab"]


def test_a_repeat_of_another_run_is_left_out_and_only_the_page_goes_to_stdout(tmp_path, monkeypatch):
    its = {**ASKED.given, "engine.base_url": ["http://127.0.0.1:1"], "engine.api_key_env": ["HOME"]}
    monkeypatch.setitem(FATES, "whole", sent(tmp_path / "a", 0, settings=its))
    monkeypatch.setitem(FATES, "cells failed", sent(tmp_path / "b", 1, argv=("bench", "of", "the", "node")))
    _, done = run_on(Place(tmp_path), [("whole", 0), ("cells failed", 0), ("whole", 0)])
    assert (done.returncode, done.stdout.split()) == (1, [str(tmp_path / "run" / "report.html")])
    assert "(raylet) Raylet is terminated" in done.stderr
    record = store.read_run(tmp_path / "run")
    assert (record.nodes[0].repeats, record.settings.keys()) == ((1,), ASKED.given.keys())
    assert record.argv[:2] == ("bench", "run")
    [line] = [each for each in done.stderr.splitlines() if each.startswith("repeat 1 is missing: ")]
    assert "/run-repeats/1: has other settings or another repeat than asked for" in line
    assert "(127.0.0.1, 1.0): " in line


def test_a_repeat_is_checked_against_all_that_was_asked_for(tmp_path):
    sent(tmp_path / "a", 1)
    check_repeat(tmp_path / "a", 1, ASKED)
    record = store.read_run(tmp_path / "a")
    others = [
        {"settings": {**ASKED.given, "repeats": ["1000000000"]}},
        {"slo": (Objective("ttft_s", 0.95, 0.5),)},
        {"price": Price(gpu_hour=1.0)},
        {"plan": replace(record.plan, starts=tuple(replace(s, repeat=2) for s in record.plan.starts))},
        {"search": SearchTerms()},
        {"foreign": ForeignSource("aiperf", "1", {})},
    ]
    for other in others:
        store.write_record(tmp_path / "a" / "run.json", replace(record, **other))
        with pytest.raises(BenchError):
            check_repeat(tmp_path / "a", 1, ASKED)
    store.write_record(tmp_path / "a" / "run.json", record)
    next((tmp_path / "a").glob("starts/*/start.json")).write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        check_repeat(tmp_path / "a", 1, ASKED)


@pytest.mark.parametrize("facts", [b"", b"\x80", {"boot_id": 1}, b"x" * 20_000])
def test_strange_facts_are_one_line_with_the_nodes_address(tmp_path, monkeypatch, facts):
    monkeypatch.setattr(Cluster, "facts", facts)
    _, done = run_on(Place(tmp_path), [])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("the node at 127.0.0.1 cannot run bench (sent ")


def test_the_panel_of_all_nodes_says_in_80_columns_where_each_repeat_is():
    show = Show(quiet=False)
    panel = _Nodes(show, 3)
    node_name = "gpu-node-01 (10.0.0.1, 4f3a2b)"
    panel.say(node_name, 1, "start 1 of 4: \x1b[31mvllm " + "x" * 90)
    panel.say("gpu-node-02 (10.0.0.2, 9d8c7b)", 2, REPORTING)
    panel.say("gpu-node-02 (10.0.0.2, 9d8c7b)", 2, "the whole run says it")
    written = io.StringIO()
    Console(file=written, width=80).print(panel)
    head, first, second, third = written.getvalue().splitlines()
    assert head.split() == ["repeat", "node"]
    assert first.startswith(f"1       {node_name}")
    assert (first[-1], len(first), "\x1b" in first) == ("…", 80, False)
    assert second.split()[0] == "2"
    assert second.rstrip().endswith("measured")
    assert third.split() == ["3", "-", "waits", "for", "a", "machine"]


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
