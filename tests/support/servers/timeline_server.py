"""A raw socket server for tests: a function plays each connection and writes the bytes it wants."""

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

LIMIT_S = 20.0
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def event(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def finish(reason: str = "stop", **more: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(*texts: str, **usage: Any) -> bytes:
    """Return a complete good response."""
    events = [event(content=text) for text in texts]
    return CHUNKED + b"".join(map(chunk, [*events, finish(**usage), DONE])) + LAST_CHUNK


@dataclass
class Link:
    """The server's end of one connection. `requests`: (head, body) of each request that came on it."""

    socket: socket.socket
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)

    def request(self) -> bytes | None:
        """Read one request. Return its body, or None if the client has closed."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = self.socket.recv(65536)
            if not data:
                return None
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0]) if head[:3] != b"GET" else 0
        while len(body) < length:
            body += self.socket.recv(65536)
        self.requests.append((head, body))
        return body

    def send(self, data: bytes) -> int:
        """Send all of the data. Return the instant just before."""
        now_ns = time.monotonic_ns()
        self.socket.sendall(data)
        return now_ns

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@dataclass
class Server:
    port: int
    links: list[Link] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def steps(*each: bytes | threading.Event | Callable[[Link], object]) -> Callable[[Link], None]:
    """Play a connection step by step: send bytes, wait for an event, or call a function (`Link.request`)."""

    def play(link: Link) -> None:
        for step in each:
            if isinstance(step, bytes):
                link.send(step)
            elif isinstance(step, threading.Event):
                step.wait(LIMIT_S)
            else:
                step(link)

    return play


def wait_until_ns(due_ns: int) -> None:
    while (rest_ns := due_ns - time.monotonic_ns()) > 0:
        threading.Event().wait(rest_ns / 1e9)


@contextmanager
def serving(play: Callable[[Link], object], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Accept connections and play each in its own thread. Fail the test if `play` failed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        threads: list[threading.Thread] = []

        def handle(connection: socket.socket) -> None:
            # The client may be gone already, in any test.
            with suppress(OSError), connection:
                connection.settimeout(LIMIT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                wrapped = tls.wrap_socket(connection, server_side=True) if tls else connection
                with wrapped:
                    link = Link(wrapped)
                    server.links.append(link)
                    try:
                        play(link)
                    except (AssertionError, ValueError, IndexError, KeyError) as failure:
                        server.failures.append(failure)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=handle, args=(connection,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for link in server.links:
                with suppress(OSError):
                    link.socket.shutdown(socket.SHUT_RDWR)
            for thread in [acceptor, *threads]:
                thread.join(LIMIT_S)
    assert not server.failures, server.failures
