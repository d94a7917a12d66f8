"""A run on a Ray cluster on this machine: nodes that are killed, Ctrl-C, and clusters that ask for a token.

Ray listens on all addresses for each but 127.0.0.1, so each cluster lives in a network namespace of its own.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from bench_command import QUICK
from waiting import wait_until

from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.store import checksums, store
from serving_bench.reports import open_run
from serving_bench.reports.checks.starts import nodes_lost

pytestmark = pytest.mark.fleet
pytest.importorskip("ray", reason="make test-fleet installs it")

RAY = Path(sys.executable).with_name("ray")
BENCH = Path(sys.executable).with_name("bench")
ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0
TOKEN = "0123456789abcdef0123456789abcdef0123456789abcdef"
ASKING = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


class Cluster:
    """A head that offers no processor, and nodes with one each. `argv` runs a program in their network
    namespace, in which `address` is theirs. `settings` are in their environment. `way_out` is another address
    of the namespace, from which a route leads to all others."""

    def __init__(
        self, folder: Path, nodes: int = 2, address: str = "127.0.0.1", way_out: str = "", **settings: str
    ) -> None:
        self.folder, self.head, self._settings = folder, f"{address}:6399", settings
        out = f"; ip address add {way_out} dev lo; ip route add default dev lo src {way_out}" * bool(way_out)
        up = f"ip link set lo up && ip address add {address}/24 dev lo{out}; exec sleep 900"
        self._anchor = subprocess.Popen(["unshare", "--net", "sh", "-c", up], stderr=subprocess.DEVNULL)
        wait_until(lambda: _namespace(self._anchor.pid) != _namespace(os.getpid()), 15)
        wait_until(lambda: address in self._inside("ip", "address").stdout, 15)
        wait_until(lambda: way_out in self._inside("ip", "route", "get", "8.8.8.8").stdout, 15)
        common = [f"--node-ip-address={address}", "--disable-usage-stats"]
        temporary = f"--temp-dir={folder / 'ray'}"
        self._start("--head", "--port=6399", "--include-dashboard=false", temporary, "--num-cpus=0", *common)
        for _ in range(nodes):
            self._start(f"--address={self.head}", "--num-cpus=1", *common)

    def listens_at(self) -> set[str]:
        """The addresses at which something in the namespace listens, IPv4 in its own notation."""
        lines = self._inside("ss", "-Hltn").stdout.splitlines()
        found = {line.split()[3].rpartition(":")[0].strip("[]").removeprefix("::ffff:") for line in lines}
        assert found
        return found

    def _start(self, *words: str) -> None:
        done = self._inside(str(RAY), "start", *words)
        assert done.returncode == 0, done.stderr

    def _inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        pipes = {"capture_output": True, "text": True}
        return subprocess.run(self.argv(*argv), env=self.environment(), timeout=LIMIT_S, check=False, **pipes)

    def argv(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._anchor.pid}/ns/net", *argv]

    def environment(self) -> dict[str, str]:
        ours = {"RAY_USAGE_STATS_ENABLED": "0"}
        return {**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder), **ours, **self._settings}

    def processes(self, name: str = "") -> list[psutil.Process]:
        """All that runs in the cluster's namespace, or what of it has a word in its command line."""
        found, theirs = [], _namespace(self._anchor.pid)
        assert theirs != _namespace(os.getpid())
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if _namespace(process.pid) == theirs and name in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        for process in self.processes():
            process.kill()
        self._anchor.wait()


def _namespace(pid: int) -> int:
    # Ray's programs write their titles over their environment.
    return os.stat(f"/proc/{pid}/ns/net").st_ino


@pytest.fixture
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("r")
    made = Cluster(folder)
    yield made
    made.close()


def run_on(cluster: Cluster, output: Path, *words: str, **settings: str) -> subprocess.Popen[str]:
    given = ["reference.itl=2ms,4ms", *words]
    keys = {word.partition("=")[0] for word in given}
    short = [word for word in QUICK if word.partition("=")[0] not in keys]
    return begin(cluster, output, *short, *given, **settings)


def begin(cluster: Cluster, output: Path, *words: str, **settings: str) -> subprocess.Popen[str]:
    command = cluster.argv(str(BENCH), "run", *words, "--on", f"ray:{cluster.head}", "--output", str(output))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Ray puts the driver's working directory before all others on the path of its workers.
    return subprocess.Popen(command, env={**cluster.environment(), **settings}, cwd=cluster.folder, **pipes)


def test_the_repeats_of_a_run_are_measured_on_two_nodes_one_at_a_time(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2")
    out, err = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, err
    assert out.strip() == str(tmp_path / "run" / "report.html")
    assert sorted(node.repeats for node in store.read_run(tmp_path / "run").nodes) == [(0,), (1,)]
    assert all(cell.counts for cell in store.read_cells(tmp_path / "run"))
    assert checksums.findings(tmp_path / "run") == []
    assert not (tmp_path / "run-repeats").exists()
    assert "2 repeats on 1 machine, one at a time on each" in err
    # The servers got the environment of the node, not that of Ray's worker.
    starts = store.read_starts(tmp_path / "run")
    assert not any(
        name.startswith(("RAY_", "OMP_NUM_THREADS")) for start in starts for name in start.environment
    )
    assert_one_ended_before_the_other_began(starts)


def assert_one_ended_before_the_other_began(starts) -> None:
    """Of two repeats, which two raylets of one machine measured."""
    spans = sorted((min(s.spawned_ns for s in of), max(s.stopped_ns for s in of)) for of in by_repeat(starts))
    assert spans[0][1] <= spans[1][0]


def by_repeat(starts) -> list[list[store.StartRecord]]:
    return [[start for start in starts if start.repeat == repeat] for repeat in (0, 1)]


def measuring(cluster: Cluster, run: subprocess.Popen[str], begun: Path) -> psutil.Process:
    """The worker that measures, once it does."""
    wait_until(lambda: run.poll() is not None or list(begun.glob("1/starts/*/start.json")), 120)
    assert run.poll() is None, run.communicate()
    (worker,) = cluster.processes("ray::measured")
    return worker


SECRETS = {"OPENAI_API_KEY": "sk-of-the-driver-alone", "HF_TOKEN": "hf_of-the-driver-alone"}


def test_llama_cpp_is_measured_on_nodes_which_learn_no_key_of_the_driver(tmp_path_factory, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for shared in ("engines", "weights", "installer"):
        (cache / shared).symlink_to(cache_dir() / shared)
    cluster = Cluster(tmp_path_factory.mktemp("r"), BENCH_CACHE_DIR=str(cache))
    words = [
        "engine=llama_cpp",
        "quantization=gguf-q4_0",
        "repeats=2",
        "load.concurrency=1",
        "load.warmup=0s",
    ]
    words += ["load.duration=4s", "load.min_requests=1", "device=cpu", "guard=off"]
    try:
        run = begin(cluster, tmp_path / "run", *words, **SECRETS)
        wait_until(lambda: run.poll() is not None or bool(cluster.processes("q4_0.gguf")), 120)
        seen = {each.pid: Path(f"/proc/{each.pid}/environ").read_bytes() for each in cluster.processes()}
        named = [each.pid for name in ("ray::measured", "q4_0.gguf") for each in cluster.processes(name)]
        out, err = run.communicate(timeout=LIMIT_S)
    finally:
        cluster.close()
    assert run.returncode == 0, err
    assert out.strip() == str(tmp_path / "run" / "report.html")
    knows = {pid for pid, of in seen.items() if any(value.encode() in of for value in SECRETS.values())}
    assert knows == {run.pid}
    assert set(named) <= seen.keys()
    assert len(named) >= 2
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(value.encode() in each for value in SECRETS.values() for each in written)
    assert all(cell.counts for cell in store.read_cells(tmp_path / "run"))
    assert_one_ended_before_the_other_began(store.read_starts(tmp_path / "run"))


# What a node may have in place of bench: what is unpickled there runs a command of the node.
HOSTILE = """

class Hostile(Exception):
    def __reduce__(self):
        return os.system, ("touch MARK",)

def facts(device, own=facts):
    return Hostile() if device == "auto" else own(device)

def measured(words, number):
    yield msgspec.msgpack.encode(("line", "hello", b""))
    if "seed=1" in words:
        yield Hostile()
    if "seed=2" in words:
        raise Hostile("it failed")
    yield os.urandom(65 << 20)
"""


def test_nothing_that_a_node_sends_is_unpickled(tmp_path_factory, tmp_path):
    package = tmp_path / "serving_bench"
    shutil.copytree(ROOT / "serving_bench", package, ignore=shutil.ignore_patterns("__pycache__"))
    mark = tmp_path / "mark"
    with (package / "harness" / "fleet" / "node.py").open("a") as file:
        file.write(HOSTILE.replace("MARK", str(mark)))
    cluster = Cluster(tmp_path_factory.mktemp("r"), 1, PYTHONPATH=str(tmp_path))
    said = {
        "seed=1": "): sent what bench does not send (",
        "seed=2": "): serving_bench.harness.fleet.node.Hostile: it failed",
        "seed=3": "): sent 68.2 MB at once, more than 67.1 MB",
        "device=auto": "the node at 127.0.0.1 cannot run bench (sent what bench does not send (",
    }
    try:
        for word, expected in said.items():
            run = run_on(cluster, tmp_path / word, "repeats=1", word, PYTHONPATH="")
            out, err = run.communicate(timeout=LIMIT_S)
            assert (run.returncode, out) == (2 if word == "device=auto" else 1, ""), err
            assert expected in err.splitlines()[-1]
            assert "Traceback" not in err
            assert not mark.exists(), "code of the node has run here"
    finally:
        cluster.close()


def test_a_repeat_whose_node_was_killed_is_measured_again_on_another(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2", "load.duration=4s")
    raylet = measuring(cluster, run, tmp_path / "run-repeats").parent()
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


def test_ctrl_c_leaves_neither_servers_nor_files_on_the_node(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2", "load.duration=60s")
    measuring(cluster, run, tmp_path / "run-repeats")
    (place,) = cluster.folder.glob("bench-repeat-*")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (130, ""), err
    assert "repeat 1 is missing: it was not measured to its end" in err
    assert err.splitlines()[-1] == "interrupted"
    assert cluster.processes("harness run") == []
    assert not place.exists()


def test_a_bench_whose_own_node_is_killed_says_so(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2", "load.duration=4s")
    measuring(cluster, run, tmp_path / "run-repeats")
    (head,) = (each for each in cluster.processes("raylet/raylet") if "--head" in each.cmdline())
    head.kill()
    out, err = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (1, ""), err
    assert "the cluster's node on this machine was lost" in err


def test_beyond_loopback_a_cluster_must_ask_for_a_token(tmp_path_factory, tmp_path):
    asking = Cluster(tmp_path_factory.mktemp("r"), 1, "10.9.9.1", **ASKING)
    try:
        out, err = run_on(asking, tmp_path / "run", "repeats=1").communicate(timeout=LIMIT_S)
        assert out.strip() == str(tmp_path / "run" / "report.html"), err
        written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert not any(TOKEN.encode() in each for each in written)
        without = run_on(asking, tmp_path / "none", RAY_AUTH_MODE="disabled")
        out, err = without.communicate(timeout=LIMIT_S)
        assert (without.returncode, out) == (2, "")
        assert err.startswith("--on ray: cannot join the cluster at 10.9.9.1:6399")
        assert err.count("\n") == 1
    finally:
        asking.close()
    # One that asks for none lets in who sends one.
    opened = Cluster(tmp_path_factory.mktemp("r"), 1, "10.9.9.1")
    try:
        run = run_on(opened, tmp_path / "none", **ASKING)
        out, err = run.communicate(timeout=LIMIT_S)
    finally:
        opened.close()
    assert (run.returncode, out) == (2, "")
    assert "the cluster listens beyond 127.0.0.1 (10.9.9.1) and lets anyone there run programs" in err
    assert not (tmp_path / "none").exists()


def test_a_cluster_at_127_0_0_1_listens_there_alone(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2")
    measuring(cluster, run, tmp_path / "run-repeats")
    assert cluster.listens_at() == {"127.0.0.1"}
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=LIMIT_S)


@pytest.mark.parametrize(
    ("asked", "way_out", "named"), [("127.0.0.2", "", "127.0.0.2"), ("127.0.0.1", "10.9.9.1", "10.9.9.1")]
)
def test_a_loopback_address_at_which_ray_listens_for_all_needs_a_token(
    tmp_path_factory, tmp_path, asked, way_out, named
):
    # Where a route leads out, Ray takes the address of that for 127.0.0.1.
    opened = Cluster(tmp_path_factory.mktemp("r"), 0, asked, way_out)
    try:
        assert opened.listens_at() >= {"*"}
        run = run_on(opened, tmp_path / "none")
        out, err = run.communicate(timeout=LIMIT_S)
    finally:
        opened.close()
    assert (run.returncode, out) == (2, "")
    assert f"the cluster listens beyond 127.0.0.1 ({named}) and lets anyone there run programs" in err


# As Ray's dashboard does with --dashboard-host=0.0.0.0, whatever the node's address is.
DASHBOARD = """
import socket
with socket.create_server(("0.0.0.0", 8265)):
    input()
"""


def test_a_dashboard_that_is_open_to_others_needs_a_token(cluster, tmp_path):
    program = tmp_path / "site-packages" / "ray" / "dashboard" / "dashboard.py"
    program.parent.mkdir(parents=True)
    program.write_text(DASHBOARD)
    with subprocess.Popen(cluster.argv(sys.executable, str(program)), stdin=subprocess.PIPE) as dashboard:
        wait_until(lambda: "0.0.0.0" in cluster.listens_at(), 15)
        run = run_on(cluster, tmp_path / "none")
        out, err = run.communicate(timeout=LIMIT_S)
        dashboard.communicate(b"\n")
    assert (run.returncode, out) == (2, "")
    assert "beyond 127.0.0.1 (0.0.0.0:8265) and lets anyone there run programs" in err


def test_a_device_that_no_node_has_is_one_line(cluster, tmp_path):
    run = run_on(cluster, tmp_path / "run", "repeats=2", "device=0")
    out, err = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (2, "")
    assert err.startswith("device=0: no node of the cluster has it: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
