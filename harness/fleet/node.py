"""What a node of a Ray cluster does: it says what it is, and measures one repeat, whose files it sends back.

bench runs there as a child of Ray's worker, under a watchdog that ends it with the worker, and in the
environment that the node was started in: without what Ray adds for its workers, such as OMP_NUM_THREADS=1,
which would reach the servers.
"""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from harness.errors import BenchError
from harness.install.builds import select_devices
from harness.processes.supervise import supervised
from harness.processes.watchdog import boot_id
from harness.store.named_files import LOCK_FILE
from harness.store.store import SCHEMA_VERSION

# A line of bench's output; a file's name and contents; the exit code. What is not said is empty.
Sent = tuple[Literal["line", "file", "end"], str, bytes]

_POLL_S = 1.0
# Signals end bench in order: it ends its servers and writes its report.
_GRACE_S = 60.0
# Of the moment: they change while they are written.
_NOT_SENT = (LOCK_FILE, ".reserve")


def facts(device: str) -> dict[str, Any]:
    """Say which machine and which bench this is, and why it could not measure on that device, if so."""
    try:
        select_devices(device)
        unfit = None
    except BenchError as error:
        unfit = str(error)
    return {
        "boot_id": boot_id(),
        "host": socket.gethostname(),
        "bench": f"{version('serving-bench')} (schema {SCHEMA_VERSION})",
        "unfit": unfit,
    }


def measured(words: Sequence[str], number: int) -> Iterator[Sent]:
    """Measure the repeat with that number, from 1, and send its folder's files as they become whole.

    As `bench run` does anywhere, it first installs the engines and makes the weights that are not there.
    """
    with TemporaryDirectory(prefix="bench-repeat-") as place:
        folder, log = Path(place, "run"), Path(place, "log")
        asked = ["--only-repeat", str(number), "--output", str(folder)]
        own = _environment_of_node()
        child = supervised(
            [sys.executable, "-m", "harness", "run", *words, *asked],
            log_path=log,
            environment=own,
            without=[name for name in os.environ if name not in own],
            grace_s=_GRACE_S,
        )
        sent, code = dict[Path, int](), None
        with child as process, log.open(errors="replace") as lines:
            while code is None:
                code = process.wait(_POLL_S)
                yield from (("line", line.rstrip("\n"), b"") for line in lines if line.strip())
                yield from _files(folder, sent, settled=code is None)
        yield "end", str(code), b""


def _environment_of_node() -> dict[str, str]:
    """Return the environment of the raylet, which is the worker's parent, without what is Ray's own."""
    entries = Path(f"/proc/{os.getppid()}/environ").read_bytes().decode(errors="surrogateescape").split("\0")
    pairs = (entry.partition("=") for entry in entries if "=" in entry)
    return {name: value for name, _, value in pairs if not name.startswith("RAY_")}


def _files(folder: Path, sent: dict[Path, int], *, settled: bool) -> Iterator[Sent]:
    """Yield the files that are new or changed since they were sent; those that are `settled` alone.

    A file has settled once it was the same at two polls.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.name in _NOT_SENT or path.suffix == ".part":
            continue
        changed_ns = path.stat().st_mtime_ns
        if settled and sent.get(path) != -changed_ns and sent.get(path) != changed_ns:
            sent[path] = -changed_ns  # seen, and sent at the next poll if it is the same then
        elif sent.get(path) != changed_ns:
            sent[path] = changed_ns
            yield "file", path.relative_to(folder).as_posix(), path.read_bytes()
