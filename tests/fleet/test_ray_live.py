"""A run on a Ray cluster of two nodes on this machine, and one whose node is killed while it measures.

Ray listens on all addresses, so each cluster lives in a network namespace of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bench_command import QUICK
from waiting import wait_until

from harness.store import checksums, store
from reports import open_run
from reports.checks.machines import nodes_lost

pytestmark = pytest.mark.fleet
pytest.importorskip("ray", reason="make test-fleet installs it")

RAY = Path(sys.executable).with_name("ray")
BENCH = Path(sys.executable).with_name("bench")
HEAD = "127.0.0.1:6399"
LIMIT_S = 300.0


class Cluster:
    """Two raylets with a processor each. `inside` runs a program in their network namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        anchor = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep 900"]
        self._anchor = subprocess.Popen(anchor)
        wait_until(lambda: self._inside("ip", "link", "show", "lo").stdout.count("UP") > 0, 15)
        common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats"]
        temporary = f"--temp-dir={folder / 'ray'}"
        self._start("--head", "--port=6399", "--include-dashboard=false", temporary, *common)
        self._start(f"--address={HEAD}", *common)

    def _start(self, *words: str) -> None:
        done = self._inside(str(RAY), "start", *words)
        assert done.returncode == 0, done.stderr

    def _inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        pipes = {"capture_output": True, "text": True}
        return subprocess.run(self.argv(*argv), env=self.environment(), timeout=LIMIT_S, check=False, **pipes)

    def argv(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._anchor.pid}/ns/net", *argv]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "MARK_OF_TEST": str(self.folder)}

    def processes(self, name: str = "") -> list[psutil.Process]:
        """All that runs of this cluster, or what has a word in its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get("MARK_OF_TEST") == str(self.folder)
                if is_ours and name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        for process in self.processes():
            if process.pid != os.getpid():
                process.kill()
        self._anchor.kill()
        self._anchor.wait()


@pytest.fixture
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("r")
    made = Cluster(folder)
    yield made
    made.close()


def run_on(cluster: Cluster, output: Path, *words: str) -> subprocess.Popen[str]:
    given = ["reference.itl=2ms,4ms", *words]
    keys = {word.partition("=")[0] for word in given}
    short = [word for word in QUICK if word.partition("=")[0] not in keys]
    asked = [*short, *given, "--on", f"ray:{HEAD}", "--output", str(output)]
    command = cluster.argv(str(BENCH), "run", *asked)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=cluster.environment(), **pipes)


def test_the_repeats_of_a_run_are_measured_on_two_nodes_one_at_a_time(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2")
    out, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, err
    assert out.strip() == str(tmp_path / "run" / "report.html")
    record = store.read_run(tmp_path / "run")
    assert sorted(node.repeats for node in record.nodes) == [(0,), (1,)]
    assert all(cell.counts for cell in store.read_cells(tmp_path / "run"))
    assert checksums.findings(tmp_path / "run") == []
    assert not (tmp_path / "run-repeats").exists()
    assert "2 repeats on 1 machine, one at a time on each" in err
    # The servers got the environment of the node, not that of Ray's worker.
    starts = store.read_starts(tmp_path / "run")
    assert not any(
        name.startswith(("RAY_", "OMP_NUM_THREADS")) for start in starts for name in start.environment
    )
    # Two raylets of one machine: one repeat ended before the other began.
    spans = sorted((min(s.spawned_ns for s in of), max(s.stopped_ns for s in of)) for of in by_repeat(starts))
    assert spans[0][1] <= spans[1][0]


def by_repeat(starts) -> list[list[store.StartRecord]]:
    return [[start for start in starts if start.repeat == repeat] for repeat in (0, 1)]


def test_a_repeat_whose_node_was_killed_is_measured_again_on_another(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2", "load.duration=4s")
    begun = tmp_path / "run-repeats"
    wait_until(lambda: run.poll() is not None or list(begun.glob("1/starts/*/start.json")), 120)
    assert run.poll() is None, run.communicate()
    (worker,) = cluster.processes("ray::measured")
    raylet = worker.parent()
    assert raylet is not None
    raylet.send_signal(signal.SIGKILL)
    out, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, err
    assert "the node was lost" in err
    record = store.read_run(tmp_path / "run")
    assert [len(node.lost_on) for node in record.nodes] == [1, 0]
    assert all(cell.counts for cell in store.read_cells(tmp_path / "run"))
    assert nodes_lost.find(open_run(tmp_path / "run")) is not None
    assert out.strip() == str(tmp_path / "run" / "report.html")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("device=0",), "device=0: no node of the cluster has it"),
        (("until=ci:5%",), "until decides itself how many repeats there are"),
        (("--only-repeat", "1"), "leave --resume and --only-repeat out"),
    ],
)
def test_what_a_cluster_cannot_measure_is_one_line(cluster, words, said, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2", *words)
    out, err = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []
