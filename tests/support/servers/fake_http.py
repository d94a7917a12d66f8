"""An HTTP server of which a test says what it answers, and learns what it was asked.

    with fake_http({"/v1/models": page({"data": []}), "/health": page({}, 503)}) as server:
        ...
    assert [each.path for each in server.requests] == ["/v1/models"]

A path that is not in the mapping is not found. One answer for all paths, or a function of the request, may
stand in the mapping's place. timeline_server.py is for tests of single bytes and of connections.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: socket

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        return self.headers.get("Authorization")


@dataclass(frozen=True)
class Answer:
    """What a request gets.

    `body`: bytes, sent with their length; or pieces, each of which is an HTTP chunk (plain bytes if `headers`
    give a length), a pause in seconds, or an event to wait for. `closes`: the connection is closed after it,
    so that pieces lack their end.
    """

    body: bytes | Sequence[bytes | float | threading.Event] = b""
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False


# A function that returns None closes the connection without an answer.
Reply = Answer | Mapping[str, Answer] | Callable[[Request], Answer | None]
NOT_FOUND = Answer(b"{}", 404)


def page(value: object, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status)


def text(content: str, status: int = 200) -> Answer:
    return Answer(content.encode(), status, "text/plain")


def stream(*events: object, end: str = "\n\n", closes: bool = False) -> Answer:
    """Return server-sent events: the data of each is a text as it is, or another value as JSON."""
    data = (event if isinstance(event, str) else json.dumps(event) for event in events)
    pieces = [f"data: {each}{end}".encode() for each in data]
    return Answer(pieces, kind="text/event-stream", closes=closes)


def chat(*texts: str, **usage: int) -> Answer:
    """Return the stream of a chat: a chunk for each text, the usage if it is given, and the end."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": each}}]} for each in texts]
    return stream(*chunks, *([{"choices": [], "usage": usage}] if usage else []), "[DONE]")


def chatting(
    answer: Callable[[str], str | int | None], refusal: str = "refused"
) -> Callable[[Request], Answer]:
    """Answer the last message of a chat with a text, the status of a refusal, or nothing until the end."""

    def reply(request: Request) -> Answer:
        content = answer(request.value["messages"][-1]["content"])
        if content is None:
            return Answer([threading.Event()])
        if isinstance(content, int):
            return page({"error": refusal}, content)
        return page({"choices": [{"message": {"role": "assistant", "content": content}}]})

    return reply


def valued(value: Callable[[str, Any], object]) -> Callable[[Request], Answer]:
    """Answer with a value of the path and the body: bytes as they are, others as JSON, None as status 500."""

    def reply(request: Request) -> Answer:
        content = value(request.path, request.value)
        return (
            Answer(content) if isinstance(content, bytes) else page(content, 500 if content is None else 200)
        )

    return reply


def files_in(folder: Path) -> Callable[[Request], Answer]:
    """Answer with the files of a folder. The page of a folder in it is its index.html."""

    def reply(request: Request) -> Answer:
        path = folder / request.path.strip("/")
        path = path / "index.html" if path.is_dir() else path
        kind = "text/html" if path.suffix == ".html" else "application/octet-stream"
        return Answer(path.read_bytes(), kind=kind) if path.is_file() else NOT_FOUND

    return reply


@dataclass
class FakeHttp:
    """A server. `reply` may be replaced while it runs. `ended` is set when its block ends."""

    reply: Reply
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def answer(self, request: Request) -> Answer | None:
        self.requests.append(request)
        if isinstance(self.reply, Answer):
            return self.reply
        if isinstance(self.reply, Mapping):
            return self.reply.get(request.path, NOT_FOUND)
        try:
            return self.reply(request)
        except Exception as failure:
            self.failures.append(failure)
            return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeHttp

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.fake.answer(Request(self.command, self.path, self.headers, body, self.connection))
        if answer is None or answer.closes:
            self.close_connection = True
        if answer is not None:
            with suppress(OSError):  # the client may be gone
                self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def send(self, answer: Answer) -> None:
        pieces = [answer.body] if isinstance(answer.body, bytes) else answer.body
        headers = {"Content-Type": answer.kind} if answer.kind else {}
        headers |= answer.headers
        if isinstance(answer.body, bytes):
            headers["Content-Length"] = str(len(answer.body))
        has_chunks = "Content-Length" not in headers
        if has_chunks:
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            self.send_piece(piece, is_chunk=has_chunks)
        if has_chunks and not answer.closes:
            self.wfile.write(b"0\r\n\r\n")

    def send_piece(self, piece: bytes | float | threading.Event, *, is_chunk: bool) -> None:
        if isinstance(piece, bytes):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunk else piece)
        elif isinstance(piece, threading.Event):
            while not (piece.wait(0.02) or self.fake.ended.is_set()):
                pass
        else:
            self.fake.ended.wait(piece)


@contextmanager
def fake_http(reply: Reply, host: str = "127.0.0.1", port: int = 0) -> Iterator[FakeHttp]:
    """Serve in threads during the block. A reply that raises fails the test."""
    fake = FakeHttp(reply)
    server = ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"fake": fake}))
    server.daemon_threads = True
    fake.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield fake
    finally:
        fake.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not fake.failures, fake.failures
