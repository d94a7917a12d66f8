"""Replays what real servers answered (tests/data/*/*.http, with their headers) over a real socket.

A stream is sent as it came, with an HTTP chunk for each event.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fake_http import Answer, Request, fake_http

# Headers that the replay sets itself.
_FRAMING = {"content-length", "content-type", "transfer-encoding", "date"}


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


def answer_of(capture: Capture) -> Answer:
    is_stream = "event-stream" in capture.kind
    events = [event + b"\n\n" for event in capture.body.split(b"\n\n") if event]
    headers = {name: value for name, value in capture.headers.items() if name not in _FRAMING and value}
    body = events if is_stream else capture.body
    return Answer(body, capture.status, capture.kind, headers)


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

    def reply(self, request: Request) -> Answer:
        if request.body:
            self.bodies.append(request.value)
        name = self.answers.get(request.path)
        name = name if isinstance(name, str | None) else next(name)
        if name is None:
            return Answer(status=404)
        capture = captured(self.folder / f"{name}.http")
        return answer_of(replace(capture, body=self.changed.get(request.path, capture.body)))


@contextmanager
def replaying(replay: Replay) -> Iterator[Replay]:
    with fake_http(replay.reply) as server:
        replay.port = server.port
        yield replay
