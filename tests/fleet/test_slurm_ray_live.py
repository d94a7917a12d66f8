"""docs/fleet/slurm-ray.sh on a SLURM of two nodes, which are namespaces of this machine.

A pair of devices joins them, so that each has an address of its own.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from bench_command import BENCH, Place, quick
from places import ROOT
from waiting import patient, wait_until

from serving_bench.harness.store import checksums, store

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("sbatch", "slurmctld", "slurmd"))),
        reason="no SLURM here (on Debian: apt-get install slurm-wlm)",
    ),
]
pytest.importorskip("ray", reason="make test-fleet installs it")
SCRIPT = ROOT / "docs" / "fleet" / "slurm-ray.sh"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
LIMIT_S = 240.0
# Each sees its own processes alone: `ray stop` on the head would end those of the other node, too.
_UNSHARED = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
# Its first process: it takes the end of processes without a parent, as a system's own does.
_FIRST = ("sh", "-c", "trap '' CHLD; exec sleep 900")
# Several daemons of one machine: Debian's slurmd takes -N.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/slurm
CredType=cred/slurm
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=10.77.0.1 CPUs={cpus}
NodeName=n2 NodeHostname={host} NodeAddr=10.77.0.2 CPUs={cpus}
PartitionName=all Nodes=ALL Default=YES
"""


class Nodes:
    """Two network namespaces, each with an address; the first has the controller, both a SLURM daemon."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self.environment = folder, environment
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._anchors = [subprocess.Popen([*_UNSHARED, *_FIRST]) for _ in ADDRESSES]
        wait_until(lambda: all(_namespace(each.pid) != _namespace(os.getpid()) for each in self._anchors), 15)
        # From outside, where the other's process has its number.
        one, other = (str(each.pid) for each in self._anchors)
        pair = ("ip", "link", "add", "one", "type", "veth", "peer", "name", "two", "netns", other)
        joined = subprocess.run(
            ["nsenter", f"--net=/proc/{one}/ns/net", *pair], capture_output=True, text=True
        )
        if joined.returncode:
            self.close()
            pytest.skip(f"no pair of network devices here: {joined.stderr.strip()}")
        for at, (name, address) in enumerate(zip(("one", "two"), ADDRESSES, strict=True)):
            up = f"ip address add {address}/24 dev {name} && ip link set {name} up && ip link set lo up"
            assert self.said(at, "sh", "-c", up).returncode == 0

    def said(self, at: int, *argv: object, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a program to its end in the namespace of a node."""
        return subprocess.run(
            self._inside(at, *argv), env=self.environment, cwd=self._folder,
            capture_output=True, text=True, timeout=patient(limit_s), check=False,
        )  # fmt: skip

    def start(self) -> None:
        """Start the daemons, and wait until the controller has both nodes."""
        for at, argv in ((0, ["slurmctld"]), (0, ["slurmd", "-N", "n1"]), (1, ["slurmd", "-N", "n2"])):
            with (self._folder / f"{argv[-1]}.log").open("w") as log:
                words = self._inside(at, *argv, "-D")
                made = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
            self._daemons.append(made)
        wait_until(lambda: self.said(0, "sinfo", "-h", "-N", "-o", "%t").stdout.split() == ["idle"] * 2, 60)

    def processes(self, name: str = "") -> list[psutil.Process]:
        """All that runs in the namespaces with a word in its command line."""
        theirs, found = {_namespace(each.pid) for each in self._anchors}, []
        assert _namespace(os.getpid()) not in theirs
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if _namespace(process.pid) in theirs and name in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for each in (*self._daemons, *self._anchors):
            each.kill()
            each.wait()

    def _inside(self, at: int, *argv: object) -> list[str]:
        there = f"/proc/{self._anchors[at].pid}/ns"
        spaces = (f"--net={there}/net", f"--mount={there}/mnt", f"--pid={there}/pid_for_children")
        return ["nsenter", *spaces, f"--wd={self._folder}", *map(str, argv)]


def _namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


@pytest.fixture
def nodes(tmp_path_factory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("s")  # short: Ray's sockets are below it
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, cpus=os.cpu_count()))
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "slurm.key").write_bytes(os.urandom(1024))
    (folder / "slurm.key").chmod(0o600)
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir()
    own = {"SLURM_CONF": str(folder / "slurm.conf"), "HOME": str(folder), "TMPDIR": str(folder)}
    ours = {"PATH": f"{BENCH.parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    made = Nodes(folder, Place(folder).environment(**own, **ours))
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_the_repeats_of_a_run_go_to_the_nodes_of_one_job(nodes: Nodes, tmp_path: Path) -> None:
    ray = Path(sys.executable).with_name("ray")
    assert nodes.said(0, ray, "get-auth-token", "--generate").returncode == 0
    where = (f"--chdir={tmp_path}", f"--output={tmp_path}/job.log")
    words = quick("repeats=2", "reference.itl=2ms,4ms", "guard=off")
    done = nodes.said(0, "sbatch", "--wait", "--nodes=2", *where, SCRIPT, *words, limit_s=LIMIT_S)
    log = (tmp_path / "job.log").read_text()
    assert done.returncode == 0, done.stderr + log
    [folder] = (path for path in tmp_path.glob("results/*") if path.is_dir())
    record = store.read_run(folder)
    assert sorted(each.repeats for each in record.nodes) == [(0,), (1,)], log
    assert (record.status, record.stopped_because) == ("completed", None)
    assert all(cell.counts for cell in store.read_cells(folder))
    assert checksums.findings(folder) == []
    assert all(f"({address}, " in log for address in ADDRESSES), log
    wait_until(lambda: not [*nodes.processes("raylet"), *nodes.processes("gcs_server")], 60)
