"""Replays what real servers answered (tests/data/*/*.http, with their headers) over a real socket.

A stream is sent as it came, with an HTTP chunk for each event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from served import served

# Headers that the replay sets itself.
_FRAMING = {"content-length", "transfer-encoding", "date"}


@dataclass(frozen=True)
class Capture:
    """An answer of a real server, without its framing."""

    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = self.body.decode().split("\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def captured(path: Path) -> Capture:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    return Capture(int(first.split()[1]), headers.get("content-type", ""), body, headers)


def send(handler: BaseHTTPRequestHandler, said: Capture) -> None:
    handler.send_response(said.status)
    for name, value in {"content-type": said.kind, **said.headers}.items():
        if name not in _FRAMING and value:
            handler.send_header(name, value)
    if "event-stream" not in said.kind:
        handler.send_header("content-length", str(len(said.body)))
        handler.end_headers()
        handler.wfile.write(b"" if handler.command == "HEAD" else said.body)
        return
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for event in filter(None, said.body.split(b"\n\n")):
        handler.wfile.write(b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event))
    handler.wfile.write(b"0\r\n\r\n")


@dataclass
class Replay:
    """A server that replays captures.

    `answers`: by path the capture's name, or several in turn. `changed`: other bodies for some paths.
    `bodies`: what it was sent.
    """

    folder: Path
    answers: dict[str, str | Iterator[str]]
    port: int = 0
    bodies: list[Any] = field(default_factory=list)
    changed: dict[str, bytes] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def replaying(replay: Replay) -> Iterator[Replay]:
    with served(handler_of(replay)) as replay.port:
        yield replay


def handler_of(replay: Replay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            name = replay.answers.get(self.path)
            name = name if isinstance(name, str | None) else next(name)
            said = captured(replay.folder / f"{name}.http") if name else Capture(404, "", b"")
            send(self, replace(said, body=replay.changed.get(self.path, said.body)))

        def do_POST(self) -> None:
            replay.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

    return Handler
