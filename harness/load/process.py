"""What every load process does with its own streams, files and limits. Imports little."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from harness.errors import BenchError
from harness.load import signals

_PR_SET_PDEATHSIG = 1
LOG_FORMAT = "%(asctime)s %(name)s: %(message)s"


def take_stdout() -> int:
    """A descriptor of this process's stdout; from now on, whoever else prints writes to stderr."""
    # Our reader takes each line for JSON, and a print in a scenario or a library must not end the cell.
    # Not undone at the end: what is printed on the way out must not come between either.
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return descriptor


def say(descriptor: int, progress: object) -> None:
    """A line of progress. Raises OSError where nobody reads any more."""
    write_unless_full(descriptor, msgspec.json.encode(progress) + b"\n")


def write_unless_full(descriptor: int, line: bytes) -> None:
    """Drop the line rather than hold up every stream while nobody reads."""
    if select.select([], [descriptor], [], 0)[1]:
        os.write(descriptor, line)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either complete or absent."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def raise_file_limit() -> int:
    """Each user has a socket: take as many descriptors as the system gives, for children too. How many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS refuses an unlimited one
        logging.getLogger(__name__).info("file descriptors stay as they are: %s", error)
        hard = soft
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def carry_out(work: Callable[[int], object]) -> int:
    """Do what a load process is for; the exit code. A BenchError is one line on stderr.

    `work` takes the descriptor of stdout, which nobody else writes to from now on.
    """
    signals.hold()
    progress_fd = take_stdout()
    raise_file_limit()
    try:
        work(progress_fd)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def prepare_locust() -> None:
    """To be called before Locust is imported."""
    # Our client is gevent's by construction; patching the standard library would only cost time.
    os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)


def die_with(parent_pid: int) -> None:
    """End this process with the one that started it, where the system can do that."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # gone already
        sys.exit(1)
