"""What a load process does with its own streams, signals and files. It imports little."""

import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from harness.errors import BenchError
from harness.load.limits import raise_file_limit

ENDING = (signal.SIGINT, signal.SIGTERM)
LOG_FORMAT = "%(asctime)s %(name)s: %(message)s"


def carry_out(work: Callable[[int], object]) -> int:
    """Do what a load process is for and return its exit code. A BenchError is one line on stderr.

    `work` takes the descriptor of stdout, which nobody else writes to from now on.
    """
    hold_signals()
    progress_fd = _take_stdout()
    raise_file_limit()
    try:
        work(progress_fd)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _take_stdout() -> int:
    """Return a descriptor of this process's stdout. From now on, whoever else prints writes to stderr."""
    # Our reader takes each line for JSON, and a print in a scenario or a library must not end the cell.
    # Not undone at the end: what is printed on the way out must not come between either.
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return descriptor


def say(descriptor: int, progress: object) -> None:
    """Write a line of progress. Raises OSError if nobody reads any more."""
    # Drop the line rather than hold up every stream while nobody reads.
    if select.select([], [descriptor], [], 0)[1]:
        os.write(descriptor, msgspec.json.encode(progress) + b"\n")


def hold_signals() -> None:
    """Keep SIGINT and SIGTERM pending until `interrupts`, so that none is missed during the imports."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


@contextmanager
def interrupts(on_signal: Callable[[], object]) -> Iterator[None]:
    """Call `on_signal` in gevent's loop for each SIGINT and SIGTERM that comes, or came while held.

    Afterwards they are ignored: a load that has ended may say so undisturbed.
    """
    import gevent

    handlers = [gevent.signal_handler(number, on_signal) for number in ENDING]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield
    finally:
        hold_signals()
        for handler in handlers:
            handler.cancel()
        for number in ENDING:  # holding is not enough: threads that were made meanwhile do not hold them
            signal.signal(number, signal.SIG_IGN)


def prepare_locust() -> None:
    """Make ready for Locust's import: it must not patch the standard library, and it logs to stderr."""
    # Our client is gevent's by construction; patching the standard library would only cost time.
    os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)
