"""Starts the real reference servers for tests, and talks to them over sockets that show every byte."""

import http.client
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from progress_lines import KeptLines

from serving_bench.engines.reference.engine import ENGINE
from serving_bench.harness.contracts import InstallSpec
from serving_bench.harness.errors import MissingError
from serving_bench.harness.install import install

SERVER = ROOT / "engines" / "inside" / "reference" / "reference_server.py"
PYTHON = (sys.executable, "-P", str(SERVER))
LIMIT_S = 20.0
FAST = ("--ttft-s=0", "--itl-s=0")
MESSAGES = [{"role": "user", "content": "hello there"}]
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    port: int

    def end(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.process.wait(LIMIT_S)


def native_program(factory: pytest.TempPathFactory) -> Path:
    """Return the compiled server, built once for all tests. Skip the test if there is no compiler."""
    spec = ENGINE.install("native", "cpu")
    assert isinstance(spec, InstallSpec)
    try:
        install.compiler()
    except MissingError as error:
        pytest.skip(str(error))
    program = factory.getbasetemp() / "reference-native"
    if not program.exists():
        install.build(spec.sources, program, KeptLines())
    return program


def command_of(program: str, factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the words that start the `python` or the `native` server, without its arguments."""
    return PYTHON if program == "python" else (str(native_program(factory)),)


@contextmanager
def spawned(argv: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def start_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    assert select.select([process.stdout], [], [], LIMIT_S)[0], "the server said nothing"
    return process.stdout.readline()


@contextmanager
def serving(*arguments: object, command: tuple[str, ...] = PYTHON) -> Iterator[Server]:
    with spawned((*command, *map(str, arguments))) as process:
        line = start_line(process)
        assert line.startswith("listening on http://127.0.0.1:"), (line, process.stderr)
        yield Server(process, int(line.rpartition(":")[2]))


@contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        yield connection
    finally:
        connection.close()


def body(**fields: Any) -> bytes:
    """Return a chat request for 8 streamed tokens."""
    request = {"model": "m", "messages": MESSAGES, "max_tokens": 8, "stream": True}
    return json.dumps(request | fields).encode()


def ask(
    connection: http.client.HTTPConnection, content: bytes, request_id: str = "r1"
) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
    connection.request("POST", "/v1/chat/completions", content, headers)
    return connection.getresponse()


def whole(port: int, content: bytes) -> tuple[int, Any]:
    with connected(port) as connection:
        response = ask(connection, content)
        return response.status, json.loads(response.read())


def page(port: int, path: str) -> str:
    with connected(port) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()


def events(response: http.client.HTTPResponse) -> list[tuple[int, str]]:
    """Return (arrival in ns, data) of each event."""
    lines = iter(response.readline, b"")
    stamped = ((time.monotonic_ns(), line.decode().strip()) for line in lines)
    return [(arrived_ns, line.removeprefix("data: ")) for arrived_ns, line in stamped if line]


def content_of(data: str) -> str | None:
    choices = json.loads(data)["choices"] if data != "[DONE]" else []
    return choices[0]["delta"].get("content") if choices else None


def text_of(stream: list[tuple[int, str]]) -> str:
    return "".join(content_of(data) or "" for _, data in stream)


def sent_raw(port: int, content: bytes, limit_s: float = LIMIT_S) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=limit_s)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: r1\r\n"
    client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return client


def received(client: socket.socket) -> tuple[bytes, str]:
    """Return all that arrives, and how it ended: closed, reset, or still open after the socket's timeout."""
    parts: list[bytes] = []
    with client:
        try:
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            return b"".join(parts), "reset"
        except TimeoutError:
            return b"".join(parts), "open"
    return b"".join(parts), "closed"


def struck(fault: str, limit_s: float = LIMIT_S) -> tuple[bytes, str]:
    """Return what a server with this fault answers, and how it ended."""
    with serving(*FAST, f"--fault={fault}") as server:
        content = body(stream_options={"include_usage": True})
        return received(sent_raw(server.port, content, limit_s))


def contents(answer: bytes | bytearray) -> int:
    return answer.count(b'"delta":{"content":')
