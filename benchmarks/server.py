"""Runs the reference server on a core of its own."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pinned

from serving_bench.harness.contracts import NativeSpec
from serving_bench.harness.errors import MissingError, ServerError, UserError
from serving_bench.harness.install import install
from serving_bench.harness.selftest import selftest
from serving_bench.harness.selftest.selftest import Reference

SERVER_CORE, CLIENT_CORE = 0, 1
_LIMIT_S = 10.0


def find(program: Literal["native", "python"]) -> Reference:
    """Return the reference server. Raises UserError on a single core, and MissingError if it is not built."""
    if len(os.sched_getaffinity(0)) < 2:
        raise UserError("the server and the client each need a core of their own; this machine gives one")
    found = selftest.find_reference(program, install.cache_dir())
    if found is None:
        raise MissingError(f"the native reference server is not built; run `{selftest.BUILD}`")
    return found


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
    """Yield the reference server's base URL. Its sends.bin in `scratch` is complete after the block."""
    spec = reference.spec(scratch, ttft_s=ttft_s, itl_s=itl_s, slots=slots)
    with listening(spec, scratch, priority):
        yield spec.base_url


@contextmanager
def listening(spec: NativeSpec, scratch: Path, priority: pinned.Priority) -> Iterator[None]:
    """Start a server, wait until it listens, and stop it after the block.

    Raises ServerError if it does not listen within 10 s.
    """
    with pinned.serving(spec.argv, SERVER_CORE, scratch / "server.log", priority):
        _wait_until_it_listens(urlsplit(spec.base_url).port or 0, scratch / "server.log")
        yield


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
