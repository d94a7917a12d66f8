"""Records of running processes, and the reaping of what a killed bench left."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from waiting import is_running, number_in, wait_until

from serving_bench.harness.processes import watchdog
from serving_bench.harness.processes.supervise import Record, reap, supervised

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_a_record_exists_while_it_runs_and_is_removed_at_a_clean_stop(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "running"
    with supervised(SLEEPER, label="one", state_dir=state, log_path=tmp_path / "log") as process:
        [path] = state.iterdir()
        fields = json.loads(path.read_text())
        assert fields["process"] == [process.pid, process.start_time_s]
        assert fields["owner"][0] == os.getpid()
        assert fields["label"] == "one"
    assert list(state.iterdir()) == []


def test_a_record_is_removed_when_the_block_raises(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        supervised(SLEEPER, label="one", state_dir=tmp_path / "s", log_path=tmp_path / "log") as process,
    ):
        raise RuntimeError
    assert not is_running(process.pid)
    assert list((tmp_path / "s").iterdir()) == []


def test_a_state_directory_that_cannot_be_written_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        supervised(
            [sys.executable, "-c", WRITE_PID, str(tmp_path / "pid")],
            label="one",
            state_dir=tmp_path / "file",
            log_path=tmp_path / "log",
        ).__enter__()
    assert not (tmp_path / "pid").exists() or not is_running(number_in(tmp_path / "pid"))


def test_reap_leaves_alone_what_a_running_bench_owns(tmp_path: Path) -> None:
    with supervised(SLEEPER, label="one", state_dir=tmp_path / "s", log_path=tmp_path / "log") as process:
        assert reap(tmp_path / "s") == []
        assert process.poll() is None
        assert len(list((tmp_path / "s").iterdir())) == 1


WRITE_PID = "import os,signal,sys; open(sys.argv[1],'w').write(f'{os.getpid()}\\n'); signal.pause()"
# The child forks a grandchild into a session of its own, which no parent-death signal reaches.
FAMILY = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {WRITE_PID!r}, sys.argv[1] + "2"], start_new_session=True)
{WRITE_PID}
"""
BENCH = f"""
import pathlib, signal, sys
from serving_bench.harness.processes.supervise import supervised
tmp = pathlib.Path(sys.argv[1])
argv = [sys.executable, "-c", {FAMILY!r}, str(tmp / "pid")]
with supervised(argv, label="vllm", state_dir=tmp / "s", log_path=tmp / "log", grace_s=0.3) as process:
    print(process.watchdog_pid, flush=True)
    signal.pause()
"""


def killed_bench(tmp_path: Path, *, watchdog_too: bool) -> list[int]:
    """Pids of watchdog, child and grandchild of a bench that was killed with kill -9."""
    argv = [sys.executable, "-c", BENCH, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as bench:
        assert bench.stdout
        pids = [int(bench.stdout.readline()), *(number_in(tmp_path / name) for name in ("pid", "pid2"))]
        if watchdog_too:
            os.kill(pids[0], signal.SIGSTOP)  # so that bench's death is not noticed before its own
        bench.kill()
        bench.wait()
        if watchdog_too:
            os.kill(pids[0], signal.SIGKILL)
    return pids


def test_reap_ends_what_was_left_when_bench_and_watchdog_were_killed(tmp_path: Path) -> None:
    pids = killed_bench(tmp_path, watchdog_too=True)
    wait_until(lambda: not is_running(pids[0]) and not is_running(pids[1]))
    assert is_running(pids[2])
    assert reap(tmp_path / "s") == [f"ended what a killed run had left: vllm, pid {pids[2]}"]
    assert not any(map(is_running, pids))
    assert list((tmp_path / "s").iterdir()) == []


def test_reap_waits_for_a_watchdog_that_is_at_work(tmp_path: Path) -> None:
    pids = killed_bench(tmp_path, watchdog_too=False)
    reap(tmp_path / "s")
    assert not any(map(is_running, pids))
    assert list((tmp_path / "s").iterdir()) == []


IN_A_CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")
REAP = """
import pathlib, sys
from serving_bench.harness.processes.supervise import reap
print(reap(pathlib.Path(sys.argv[1])))
"""


@pytest.fixture
def in_a_container() -> tuple[str, ...]:
    """The words that run a command with pids of its own, as in a container."""
    can = (
        shutil.which("unshare")
        and not subprocess.run([*IN_A_CONTAINER, "true"], capture_output=True).returncode
    )
    return IN_A_CONTAINER if can else pytest.skip("this machine makes no namespace of pids")


def test_reap_leaves_alone_what_a_bench_in_a_container_owns(tmp_path: Path, in_a_container) -> None:
    argv = [*in_a_container, sys.executable, "-c", BENCH, tmp_path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as bench, ExitStack() as ending:
        ending.callback(bench.kill)
        assert bench.stdout
        assert bench.stdout.readline()
        number_in(tmp_path / "pid2")
        [path] = (tmp_path / "s").iterdir()
        process = json.loads(path.read_text())
        # By its number, its owner is another process here, or none.
        find = partial(watchdog.left_of, *process["process"], process["mark"])
        before = find()
        assert before
        assert reap(tmp_path / "s") == []
        assert path.exists()
        assert find() == before


def test_reap_in_a_container_leaves_alone_what_a_bench_outside_owns(tmp_path: Path, in_a_container) -> None:
    with supervised(SLEEPER, label="one", state_dir=tmp_path / "s", log_path=tmp_path / "log") as process:
        argv = [*in_a_container, sys.executable, "-c", REAP, tmp_path / "s"]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "[]\n"
        assert len(list((tmp_path / "s").iterdir())) == 1
        assert process.poll() is None


@pytest.fixture
def bystander() -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A process that no bench runs, and its start time."""
    with subprocess.Popen(SLEEPER, start_new_session=True) as process:
        started_s = watchdog.start_time_s(process.pid)
        assert started_s
        yield process, started_s
        process.kill()


def record_of(pid: int, started_s: float, **changes: object) -> Record:
    """A killed bench's record of a process of this machine."""
    gone = (pid, started_s - 5)
    here = Record(
        "x", watchdog.boot_id(), gone, gone, (pid, started_s), "mark-of-nobody", 0.1,
        watchdog.machine(), watchdog.pid_namespace(),
    )  # fmt: skip
    return dataclasses.replace(here, **changes)  # type: ignore[arg-type]


def write(record: Record, folder: Path, *, without: Sequence[str] = (), age_days: float = 0.0) -> Path:
    path = folder / "one.json"
    fields = dataclasses.asdict(record)
    path.write_text(json.dumps({name: value for name, value in fields.items() if name not in without}))
    written_s = time.time() - age_days * 86400
    os.utime(path, (written_s, written_s))
    return path


@pytest.mark.parametrize(
    "changes",
    [{"boot_id": "another"}, {"process": (0, 0.0)}, {"boot_id": "another", "machine": "another"}],
    ids=["boot", "start time", "machine"],
)
def test_reap_touches_no_process_of_another_boot_or_start_time(
    tmp_path: Path, bystander, changes: dict[str, object]
) -> None:
    process, started_s = bystander
    if "process" in changes:
        changes = {"process": (process.pid, started_s - 5)}
    path = write(record_of(process.pid, started_s, **changes), tmp_path)
    assert reap(tmp_path) == []
    assert process.poll() is None
    assert path.exists() == ("machine" in changes), "the record of another machine is for it to end"


def test_reap_ends_what_an_older_bench_has_on_record(tmp_path: Path, bystander) -> None:
    process, started_s = bystander
    path = write(record_of(process.pid, started_s), tmp_path, without=("machine", "pid_namespace"))
    assert reap(tmp_path) == [f"ended what a killed run had left: x, pid {process.pid}"]
    assert process.wait() == -signal.SIGTERM
    assert not path.exists()


def test_a_machine_of_the_same_host_name_is_another(tmp_path: Path, bystander) -> None:
    record = record_of(bystander[0].pid, bystander[1], boot_id="another")
    path = write(dataclasses.replace(record, machine=f"0123456789abcdef {socket.gethostname()}"), tmp_path)
    assert reap(tmp_path) == []
    assert path.exists()
    write(record, tmp_path)
    assert reap(tmp_path) == []
    assert not path.exists(), "its process has ended with the boot of this machine"


@pytest.mark.parametrize(
    "where", [{"pid_namespace": "another"}, {"boot_id": "another", "machine": "another"}]
)
def test_reap_removes_the_records_of_machines_that_are_long_gone(
    tmp_path: Path, bystander, where: dict[str, object]
) -> None:
    process, started_s = bystander
    record = record_of(process.pid, started_s, **where)
    path = write(record, tmp_path, age_days=29)
    assert reap(tmp_path) == []
    assert path.exists()
    write(record, tmp_path, age_days=31)
    assert reap(tmp_path) == []
    assert not path.exists()
    assert process.poll() is None, "its number means another process there"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"owner": 1, "watchdog": 2, "process": 3}'])
def test_reap_removes_a_record_that_it_cannot_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "one.json").write_text(content)
    assert reap(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_reap_without_a_state_directory_has_nothing_to_say(tmp_path: Path) -> None:
    assert reap(tmp_path / "absent") == []
