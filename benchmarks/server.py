"""The reference server on a core of its own."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pinned

from harness.errors import ServerError
from harness.selftest.selftest import Reference

SERVER_CORE = 0
_LIMIT_S = 10.0


@contextmanager
def serving(
    reference: Reference,
    scratch: Path,
    *,
    ttft_s: float,
    itl_s: float,
    slots: int,
    priority: pinned.Priority = "real-time",
) -> Iterator[str]:
    """The reference server's base URL while the block runs; its sends.bin in `scratch` is whole after it."""
    spec = reference.spec(scratch, ttft_s=ttft_s, itl_s=itl_s, slots=slots)
    with pinned.serving(spec.argv, SERVER_CORE, scratch / "server.log", priority):
        _wait_until_it_listens(urlsplit(spec.base_url).port or 0, scratch / "server.log")
        yield spec.base_url


def _wait_until_it_listens(port: int, log: Path) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not _listens(port):
        if time.monotonic() > deadline:
            raise ServerError(f"the reference server did not listen within {_LIMIT_S:g} s: {log.read_text()}")
        time.sleep(0.01)


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
