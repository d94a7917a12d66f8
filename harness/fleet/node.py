"""Run on a node of a Ray cluster: report the node's facts, and measure one repeat and send back its files.

bench runs there as a child of Ray's worker, under a watchdog that ends it with the worker. It gets the
environment that the node was started in, without the variables that Ray adds for its workers. Otherwise
OMP_NUM_THREADS=1, for one, would reach the servers.
"""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Literal

import msgspec

from serving_bench.harness.contracts import Reason
from serving_bench.harness.errors import BenchError
from serving_bench.harness.fleet.nodes import Facts
from serving_bench.harness.install import install
from serving_bench.harness.install.builds import select_devices
from serving_bench.harness.processes.listening import beyond_loopback
from serving_bench.harness.processes.supervise import supervised
from serving_bench.harness.processes.watchdog import boot_id
from serving_bench.harness.sampling import gpu
from serving_bench.harness.store.named_files import LOCK_FILE
from serving_bench.harness.store.store import SCHEMA_VERSION, is_going_on

# What a node sends. begun: it has the job. line: a line of bench's output. part, file: a file's name and its
# next bytes, `file` with the last ones. end: the exit code, and the names of all files that are there at the
# end, with APART between them; some exist only for a while.
Sent = tuple[Literal["begun", "line", "part", "file", "end"], str, bytes]

APART = "\0"
# After a signal bench stops its servers and writes its report; this is how long it may take.
GRACE_S = 60.0
_POLL_S = 1.0
PART_BYTES = 1 << 25
# Files that exist only on the machine that measures.
_NOT_SENT = (LOCK_FILE, ".reserve")
_PLACE = "bench-repeat-"


def facts(device: str) -> bytes:
    """Return Facts on this machine, as all that the driver takes: bytes."""
    selected: tuple[int, ...] = ()
    unfit = None
    try:
        selected = select_devices(device)
    except BenchError as error:
        unfit = str(error)
    devices = gpu.devices()
    cards = () if isinstance(devices, Reason) else [each for each in devices if each.index in selected]
    node_facts: Facts = {
        "boot_id": boot_id(),
        "host": socket.gethostname(),
        "bench": own_version(),
        "architecture": platform.machine(),
        "devices": ", ".join(f"{each.name} with {each.memory_bytes} bytes" for each in cards),
        "unfit": unfit,
        # Any node may run a dashboard that is open to others.
        "open_at": sorted({address for address, argv in beyond_loopback() if _is_of_ray(argv)}),
        "asks_for_token": _environment_of_raylet().get("RAY_AUTH_MODE", "").lower() == "token",
    }
    return msgspec.msgpack.encode(node_facts)


def _is_of_ray(argv: Sequence[str]) -> bool:
    return any("-packages/ray/" in each or each.startswith(("ray::", "ray.util.")) for each in argv)


def own_version() -> str:
    return f"{version('serving-bench')} (schema {SCHEMA_VERSION})"


def measured(words: Sequence[str], number: int) -> Iterator[bytes]:
    """Measure the repeat with that number, from 1, and yield each Sent as bytes, files as they are complete.

    As anywhere, `bench run` first installs missing engines and makes missing weights.
    """
    yield _bytes_of("begun")
    for left in Path(gettempdir()).glob(f"{_PLACE}*"):
        if not is_going_on(left / "run", "running"):  # left over: Ray killed the worker that made it
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_PLACE) as place:
        folder, log = Path(place, "run"), Path(place, "log")
        options = ["--only-repeat", str(number), "--output", str(folder)]
        environment = {name: value for name, value in _environment_of_raylet().items() if name[:4] != "RAY_"}
        child = supervised(
            [sys.executable, "-m", "serving_bench", "run", *words, *options],
            log_path=log,
            # Recorded there, so that the next bench ends what is left of this one before it measures.
            state_dir=install.cache_dir() / "running",
            label=f"repeat {number} of a run on Ray",
            environment=environment,
            without=[name for name in os.environ if name not in environment],
            grace_s=GRACE_S,
        )
        sent, code, begun = dict[Path, int](), None, ""
        with child as process, log.open(errors="replace") as lines:
            while code is None:
                code = process.wait(_POLL_S)
                *whole, begun = (begun + lines.read()).split("\n")
                yield from (_bytes_of("line", line) for line in whole if line.strip())
                yield from _files(folder, sent, settled=code is None)
        if begun.strip():
            yield _bytes_of("line", begun)
        names = [path.relative_to(folder).as_posix() for path in _there(folder)]
        yield _bytes_of("end", str(code), APART.join(names).encode())


def _bytes_of(kind: str, text: str = "", contents: bytes = b"") -> bytes:
    return msgspec.msgpack.encode((kind, text, contents))


def _environment_of_raylet() -> dict[str, str]:
    """Return the environment that the raylet, the worker's parent, was started in."""
    entries = Path(f"/proc/{os.getppid()}/environ").read_bytes().decode(errors="surrogateescape").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _files(folder: Path, sent: dict[Path, int], *, settled: bool) -> Iterator[bytes]:
    """Yield the files that are new or have changed since they were sent.

    With `settled`, only those that were the same at two polls.
    """
    for path in _there(folder):
        with suppress(FileNotFoundError):  # some files exist only for a while
            changed_ns = path.stat().st_mtime_ns
            if settled and sent.get(path) != -changed_ns and sent.get(path) != changed_ns:
                sent[path] = -changed_ns  # seen, and sent at the next poll if it is the same then
            elif sent.get(path) != changed_ns:
                sent[path] = changed_ns
                yield from _parts(path, path.relative_to(folder).as_posix())


def _there(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_whole = path.name not in _NOT_SENT and path.suffix != ".part"
        if is_whole and path.is_file() and not path.is_symlink():
            yield path


def _parts(path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        piece = file.read(PART_BYTES)
        while following := file.read(PART_BYTES):
            yield _bytes_of("part", name, piece)
            piece = following
    yield _bytes_of("file", name, piece)
