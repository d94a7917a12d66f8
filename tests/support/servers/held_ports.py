"""Reserves a port of this machine for a server that a test starts there, or for none."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """Yield a port on which nothing listens, and which no other program gets during the block.

    The port is bound but not listened on, so a server can still listen there if it sets SO_REUSEADDR, as
    those of asyncio and of the standard library do.
    """
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holding.bind(("127.0.0.1", 0))
        yield int(holding.getsockname()[1])
