"""SIGINT and SIGTERM of a load process: none is missed, from before its imports to after its last byte.

Imports little: a load process calls `hold` before anything else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM)


def hold() -> None:
    """Keep SIGINT and SIGTERM pending until `interrupts`; children inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


@contextmanager
def interrupts(on_signal: Callable[[], object]) -> Iterator[None]:
    """Call `on_signal` in gevent's loop for each SIGINT and SIGTERM that comes, or came while held.

    Afterwards they are held again: what ended by itself may say so undisturbed.
    """
    import gevent

    handlers = [gevent.signal_handler(number, on_signal) for number in ENDING]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield
    finally:
        hold()
        for handler in handlers:
            handler.cancel()
