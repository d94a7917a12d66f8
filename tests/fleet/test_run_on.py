"""What nodes have measured is never lost, nor mixed with what lies there already: `bench run --on`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench_command import Place, quick, told
from make_run import full_run
from ray_in_memory import FATES, Ray, installed, machines
from rich.console import Console

from harness.cli.commands.fleet import _Nodes
from harness.cli.ending import REPORTING
from harness.cli.progress import Show
from harness.fleet import node


class Cluster(Ray):
    """Nodes of this machine, which say what it is."""

    def init(self, **_: Any) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        offered = {each.id: {"CPU": each.cpus, "GPU": each.gpus} for each in self.there}
        return [
            {**each, "NodeManagerAddress": "127.0.0.1", "Resources": offered.get(each["NodeID"], {})}
            for each in super().nodes()
        ]

    def remote(self, function: Any) -> Any:
        if function is node.facts:
            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=function))
        return super().remote(function)

    def get(self, said: Any, timeout: float) -> Any:
        return said if isinstance(said, dict) else super().get(said, timeout)


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
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"--output {tmp_path / 'run-repeats'}: exists and is not empty"
    )
    assert ray.begun == []
    assert earlier.read_text() == "an earlier one"


def test_repeats_that_cannot_be_merged_stay_and_the_command_that_merges_them_is_told(tmp_path, monkeypatch):
    whole = full_run(tmp_path / "whole")
    sent = {
        path.relative_to(whole).as_posix(): path.read_bytes() for path in whole.rglob("*") if path.is_file()
    }
    monkeypatch.setitem(
        FATES,
        "whole",
        [
            *(("file", *each) for each in sent.items()),
            ("end", "0", "\0".join(sent).encode()),
            StopIteration(),
        ],
    )
    _, done = run_on(Place(tmp_path), [("whole", 0)] * 2)
    folders = [tmp_path / "run-repeats" / name for name in ("1", "2")]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"repeat 1 is in {folders[0]} and in {folders[1]}; leave one out; what was measured stays: "
        f"`bench merge {folders[0]} {folders[1]}`"
    )
    assert all(files_of(folder) == files_of(whole) for folder in folders)


def test_the_panel_of_all_nodes_says_in_80_columns_where_each_repeat_is():
    show = Show(quiet=False)
    panel = _Nodes(show, 3)
    node_name = "gpu-node-01 (10.0.0.1, 4f3a2b)"
    panel.say(node_name, 1, "start 1 of 4: \x1b[31mvllm " + "x" * 90)
    panel.say("gpu-node-02 (10.0.0.2, 9d8c7b)", 2, REPORTING)
    panel.say("gpu-node-02 (10.0.0.2, 9d8c7b)", 2, "the whole run says it")
    written = io.StringIO()
    Console(file=written, width=80).print(panel.table())
    head, first, second, third = written.getvalue().splitlines()
    assert head.split() == ["repeat", "node"]
    assert first.startswith(f"1       {node_name}")
    assert (first[-1], len(first), "\x1b" in first) == ("…", 80, False)
    assert second.split()[0] == "2"
    assert second.rstrip().endswith("measured")
    assert third.split() == ["3", "-", "waits", "for", "a", "machine"]


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
