"""The array of docs/fleet/slurm-array.sh on a SLURM of this machine alone: `bench merge` joins its tasks.

Its two daemons are processes of the test's own, on loopback, with all their files in a temporary folder.
"""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bench_command import BENCH, Place, bench, quick
from places import ROOT
from waiting import patient, wait_until

from serving_bench.harness.store import checksums, store

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(
        not all(map(shutil.which, ("sbatch", "slurmctld", "slurmd"))),
        reason="no SLURM here (on Debian: apt-get install slurm-wlm)",
    ),
]
ARRAY = ROOT / "docs" / "fleet" / "slurm-array.sh"
LIMIT_S = 120.0
# SwitchType, MpiDefault and the like are as SLURM has them by itself.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/slurm
CredType=cred/slurm
SlurmctldPort={controller}
SlurmdPort={daemon}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands find it."""
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, other)]
    told = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0], user=pwd.getpwuid(os.getuid()).pw_name, folder=folder,
        controller=ports[0], daemon=ports[1], cpus=os.cpu_count(),
    )  # fmt: skip
    (folder / "slurm.conf").write_text(told)
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "slurm.key").write_bytes(os.urandom(1024))
    (folder / "slurm.key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with ExitStack() as ending:
        daemons = []
        for name in ("slurmctld", "slurmd"):
            log = ending.enter_context((folder / f"{name}.log").open("w"))
            made = subprocess.Popen([name, "-D"], env=environment, stdout=log, stderr=log)
            ending.callback(made.wait, 60)
            ending.callback(made.terminate)
            daemons.append(made)

        def said(*words: str) -> str:
            return subprocess.run(words, env=environment, capture_output=True, text=True).stdout.strip()

        def is_idle() -> bool:
            assert all(each.poll() is None for each in daemons), (folder / "slurmd.log").read_text()
            return said("sinfo", "-h", "-o", "%t") == "idle"

        wait_until(is_idle, 30)
        yield environment
        # A task's own process tells the controller of its end, and stays until it could.
        said("scancel", f"--user={os.getuid()}")
        wait_until(lambda: not said("squeue", "-h"), 60)


def test_the_tasks_of_an_array_are_repeats_that_merge_joins(slurm, tmp_path):
    place = Place(tmp_path)
    words = quick("repeats=2", "reference.itl=2ms,4ms")
    done = subprocess.run(
        ["sbatch", "--wait", "--array=1-2", f"--output={tmp_path}/%a.log", ARRAY, *words],
        env={**place.environment(**slurm), "PATH": f"{BENCH.parent}:{os.environ['PATH']}"},
        cwd=tmp_path, capture_output=True, text=True, timeout=patient(LIMIT_S),
    )  # fmt: skip
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    tasks = sorted(tmp_path.glob("results/*/*"))
    assert [path.name for path in tasks] == ["1", "2"]
    merged = bench(place, "merge", *tasks, "--output", "all")
    assert merged.returncode == 0, merged.stderr
    record = store.read_run(tmp_path / "all")
    assert [each.repeats for each in record.nodes] == [(0,), (1,)]
    assert (record.status, record.stopped_because) == ("completed", None)
    assert all(cell.counts for cell in store.read_cells(tmp_path / "all"))
    assert checksums.findings(tmp_path / "all") == []


def test_a_task_that_is_cancelled_leaves_no_server(slurm, tmp_path):
    place = Place(tmp_path)
    environment = {**place.environment(**slurm), "PATH": f"{BENCH.parent}:{os.environ['PATH']}"}

    def said(*words: object) -> str:
        return subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True).stdout

    words = quick("repeats=2", "load.duration=60s")
    job = said("sbatch", "--parsable", "--array=1-1", f"--output={tmp_path}/%a.log", ARRAY, *words).strip()
    folder = tmp_path / "results" / job / "1"
    wait_until(lambda: list(folder.glob("cells/*/rows.jsonl")), 60)
    said("scancel", job)
    wait_until(lambda: store.read_run(folder).status == "interrupted", 60)
    place.wait_until_empty()
