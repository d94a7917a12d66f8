"""Measures what the samplers of memory cost and how regular they are, beside simpler ones at the same rate.

    python benchmarks/samplers.py                       all cases, three passes, about six minutes
    python benchmarks/samplers.py --record FILE         instead: a session of this machine's cards, JSON lines

Host samplers read a tree of real processes that hold 20 MB each. Device samplers call the real nvidia-ml-py
over the NVML library of the tests, in which each call takes an assumed time.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import script

from serving_bench.harness.contracts import Reason
from serving_bench.harness.errors import BenchError, MissingError, UserError
from serving_bench.harness.sampling import gpu, host
from serving_bench.harness.sampling.device_sample import DeviceReader
from serving_bench.harness.sampling.process_tree import ProcessTree
from serving_bench.harness.sampling.sampling import Sampling

CORE = 1
TREES = (1, 5, 20)
# Of one call; a list of processes takes ten times as long. No card was available to measure it.
ASSUMED_CALL_US = 50
_STUB = Path(__file__).parent.parent / "tests" / "support" / "devices" / "nvml_stub.c"
_LEAF = "import sys; block = bytearray(20 << 20); sys.stdin.readline()"
_ROOT = """
import subprocess, sys
block = bytearray(20 << 20)
leaf = [sys.executable, "-c", sys.argv[2]]
leaves = [subprocess.Popen(leaf, stdin=subprocess.PIPE) for _ in range(int(sys.argv[1]) - 1)]
print("up", flush=True)
sys.stdin.readline()
"""


@dataclass(frozen=True)
class Case:
    """A sampler to measure. `of` says what it samples, `name` which sampler it is."""

    of: str
    name: str
    sampler: Callable[[], AbstractContextManager[Sampling[Any]]]


@dataclass(frozen=True)
class Cost:
    """The cost of one pass: processor time as a share of one core, and the intervals between samples."""

    cpu_share: float
    interval_p99_s: float
    interval_max_s: float
    missed: int


def measure(case: Case, duration_s: float) -> Cost:
    with case.sampler() as sampler:
        time.sleep(1.0)  # leaves out what a sampler reads only once
        before, begun_s = sampler.timing(), time.monotonic()
        time.sleep(duration_s)
        after, took_s = sampler.timing(), time.monotonic() - begun_s
    if sampler.error:
        raise BenchError(f"{case.of}, {case.name}: {sampler.error}")
    cpu_share = (after["cpu_s"] - before["cpu_s"]) / took_s
    missed = after["missed"] - before["missed"]
    return Cost(cpu_share, after["interval_p99_s"], after["interval_max_s"], missed)


@contextmanager
def tree(processes: int) -> Iterator[int]:
    """Run a process with `processes` - 1 children during the block, and yield its pid."""
    argv = [sys.executable, "-c", _ROOT, str(processes), _LEAF]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        assert root.stdout
        root.stdout.readline()
        yield root.pid  # afterwards its standard input is closed, and so are those of its children


class Idle:
    """A reader of nothing."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def read(self, *, is_mark: bool = False) -> Sequence[object]:
        return [0]


class Plain(Idle):
    """A reader of the same tree as psutil's examples have it: no faults, swap, or ended processes."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def read(self, *, is_mark: bool = False) -> Sequence[object]:
        root = psutil.Process(self._pid)
        members = [root, *root.children(recursive=True)]
        memory = sum(member.memory_info().rss for member in members)
        times = [member.cpu_times() for member in members]
        threads = sum(member.num_threads() for member in members)
        psutil.virtual_memory()
        return [(memory, sum(each.user + each.system for each in times), threads)]


def host_cases(pid: int, processes: int) -> list[Case]:
    of = "1 process" if processes == 1 else f"{processes} processes"
    return [
        Case(of, "bench", lambda: Sampling(host.HostReader(ProcessTree(pid)))),
        Case(of, "plain psutil", lambda: Sampling(Plain(pid))),
    ]


def device_cases(indices: Sequence[int]) -> list[Case]:
    """Return cases over the stub: memory that stands still, as a server's does, and memory that changes."""
    steps = iter(range(10**9))

    class Changing(ProcessTree):
        def among(self, pids: set[int]) -> set[int] | None:
            os.environ["NVML_USED"] = str((5 << 30) + (next(steps) << 21))
            return super().among(pids)

    mine = ProcessTree(os.getpid())
    of = f"{len(indices)} device" + ("s" if len(indices) > 1 else "")
    return [
        Case(f"{of}, memory stands still", "bench", lambda: Sampling(DeviceReader(indices, mine))),
        Case(
            f"{of}, memory changes in each sample",
            "bench",
            lambda: Sampling(DeviceReader(indices, Changing(os.getpid()))),
        ),
    ]


def load_stub(folder: Path) -> None:
    """Load the NVML stub under the name that nvidia-ml-py asks for.

    A library that the process has loaded already takes precedence over the system's.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise MissingError("no C compiler for the NVML library of the tests; on Debian: apt-get install gcc")
    target = folder / "libnvidia-ml.so.1"
    options = ("-shared", "-fPIC", "-pthread", "-Wl,-soname,libnvidia-ml.so.1")
    subprocess.run([compiler, *options, "-o", target, _STUB], check=True)
    ctypes.CDLL(str(target))
    os.environ["NVML_CALL_US"] = str(ASSUMED_CALL_US)
    os.environ["NVML_PROCESSES"] = f"{os.getpid()}:{4 << 30}"


def all_costs(passes: int, duration_s: float) -> dict[tuple[str, str], list[Cost]]:
    costs: dict[tuple[str, str], list[Cost]] = {}

    def add(cases: Sequence[Case]) -> None:
        for case in cases:
            costs.setdefault((case.of, case.name), []).append(measure(case, duration_s))
            print(f"{case.of}, {case.name}: {costs[case.of, case.name][-1]}", file=sys.stderr, flush=True)

    for number in range(passes):
        add([Case("nothing", "idle thread", lambda: Sampling(Idle()))])
        for processes in TREES:
            with tree(processes) as pid:
                cases = host_cases(pid, processes)
                add(cases if number % 2 == 0 else cases[::-1])
        add(device_cases([0]))
        add(device_cases([0, 1])[:1])
    return costs


def markdown(costs: dict[tuple[str, str], list[Cost]]) -> str:
    lines = [
        "| read ten times a second | sampler | of a core | interval p99 / most, ms | missed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (of, name), passes in costs.items():
        shares = [100 * each.cpu_share for each in passes]
        spread = f"{median(shares):.2f} % ({min(shares):.2f} - {max(shares):.2f})"
        if name == "plain psutil":
            ours = median(100 * each.cpu_share for each in costs[of, "bench"])
            spread += f" [x {median(shares) / ours:.1f}]"
        p99_ms = median(1e3 * each.interval_p99_s for each in passes)
        most_ms = max(1e3 * each.interval_max_s for each in passes)
        missed = sum(each.missed for each in passes)
        lines.append(f"| {of} | {name} | {spread} | {p99_ms:.1f} / {most_ms:.1f} | {missed} |")
    return "\n".join(lines)


def record(path: Path, duration_s: float) -> None:
    """Record this machine's devices, for tests on machines without a card.

    Writes a line of facts for each device, without what identifies it, then a line for each sample, and
    last a line about the sampler itself.
    """
    found = gpu.devices()
    if isinstance(found, Reason):
        raise UserError(f"--record: {found}")
    indices = [facts.index for facts in found]
    with Sampling(DeviceReader(indices, ProcessTree(os.getpid()))) as sampler:
        time.sleep(duration_s)
    with path.open("w") as file:
        for facts in found:
            file.write(json.dumps({"device": asdict(replace(facts, uuid=None))}) + "\n")
        for sample in sampler.rows():
            file.write(json.dumps({"sample": asdict(sample)}) + "\n")
        end = {"timing": sampler.timing(), "notes": sampler.notes, "error": sampler.error}
        file.write(json.dumps({"sampler": end}) + "\n")
    names = ", ".join(str(facts.name) for facts in found)
    print(f"{len(sampler.rows())} samples of {names} in {path}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--passes", type=int, default=3, help="3 unless given")
    parser.add_argument(
        "--duration", type=float, default=10.0, metavar="S", help="of each case; 10 if not given"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="instead: a session of this machine's cards"
    )
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.record:
        record(given.record, given.duration)
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0) & {CORE} or os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        load_stub(Path(folder))
        costs = all_costs(given.passes, given.duration)
    print(f"{platform.machine()}, Linux {platform.release()}, {len(psutil.pids())} processes, one core\n")
    print(markdown(costs))


if __name__ == "__main__":
    script.run(main)
