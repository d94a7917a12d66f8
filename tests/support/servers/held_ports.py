"""Holds a port of this machine for a server that a test starts there, or for none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """Yield a port on which nothing listens, and that no other program gets while the block lasts.

    It is bound and does not listen, so a server that names it may still listen there if it sets SO_REUSEADDR,
    as those of asyncio and of the standard library do.
    """
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holding.bind(("127.0.0.1", 0))
        yield int(holding.getsockname()[1])
