"""One user's HTTP/1.1 connection: sends a request, and only stamps while the answer streams.

A libev watcher calls a plain function in gevent's hub for each read; the user's greenlet is woken once,
at the end of the response. Decodes nothing and knows no engine. No proxies, no redirects.
"""

from __future__ import annotations

import os
import socket as names
import ssl
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import gevent
from gevent import get_hub
from gevent import socket as gevent_socket
from gevent.hub import Waiter

from harness.contracts import Outcome
from harness.errors import UserError
from harness.load.framing import FramingError
from harness.load.receive import Receiver, TlsRecords, plain_socket
from harness.load.response import Exchange, ExchangeError, Response

# A server that closed an idle connection just before our request reached it lets us know within a round
# trip. One that breaks later may have worked on the request, and that is a failure: sending it again
# would hide it. Where a round trip takes longer than this, the failure is reported, not hidden.
CLOSED_BEFORE_S = 0.05


@dataclass(frozen=True)
class Endpoint:
    """Where requests go. `tls` is shared by all connections: loading certificates takes long."""

    host: str
    port: int
    path: str
    host_header: str
    tls: ssl.SSLContext | None
    key: str | None = None


def endpoint(base_url: str, key: str | None = None) -> Endpoint:
    """The chat completions endpoint under `base_url`. Raises UserError for what cannot be sent."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as error:
        raise UserError(f"base_url={base_url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not base_url.isascii():
        raise UserError(f"base_url={base_url}: not a URL like http://127.0.0.1:8000/v1")
    if key and not (key.isascii() and key.isprintable()):
        raise UserError("the API key has characters that cannot stand in an HTTP header")
    path = parts.path.rstrip("/") + "/chat/completions" + (f"?{parts.query}" if parts.query else "")
    return Endpoint(
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        path=path,
        host_header=parts.netloc.rpartition("@")[2],
        tls=ssl.create_default_context() if parts.scheme == "https" else None,
        key=key or None,
    )


class Connection:
    """An open connection; one exchange at a time."""

    def __init__(self, endpoint: Endpoint, receiver: Receiver) -> None:
        self._receiver = receiver
        self._socket = _connect(endpoint)
        self._tls: TlsRecords | None = None
        try:
            receiver.ask_for_stamps(self._socket)
            if endpoint.tls:
                self._shake_hands(endpoint.tls, endpoint.host)
        except BaseException:
            self._socket.close()
            raise

    def exchange(self, request: bytes, response: Response) -> None:
        """Send `request` and block this greenlet until `response` is complete.

        Raises ExchangeError, FramingError.
        """
        waiter = Waiter()
        watcher = get_hub().loop.io(self._socket.fileno(), 1)

        def on_readable() -> None:
            # Runs in the hub, which would only print an exception and leave the user waiting for ever.
            try:
                if not self._receive(response):
                    return
            except BaseException:
                watcher.stop()
                waiter.throw(*sys.exc_info())
                return
            watcher.stop()
            waiter.switch(None)

        watcher.start(on_readable)
        try:
            data = self._tls.encrypt(request) if self._tls else request
            if response.sent_ns is None:  # else this is the second try, which counts from the first
                response.sent_ns = time.monotonic_ns()
            self._send(data, response)
            waiter.get()
        finally:
            watcher.stop()
            watcher.close()

    def is_idle(self) -> bool:
        """True if another request may be sent: open as far as one can see, and nothing unasked for on it."""
        try:
            _, data = self._receiver.read(self._socket)
            if not data or not self._tls:
                return False
            self._tls.feed(data)
            return self._tls.decrypt() == (b"", False)
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()

    def _receive(self, response: Response) -> bool:
        """Take what is there; True once the response is complete."""
        try:
            arrival_ns, data = self._receiver.read(self._socket)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ExchangeError("reset", f"the connection broke: {error}") from error
        if not data:
            return response.close(arrival_ns)
        if not self._tls:
            return response.add(arrival_ns, data)
        return self._receive_tls(self._tls, response, arrival_ns, data)

    def _receive_tls(self, tls: TlsRecords, response: Response, arrival_ns: int, data: memoryview) -> bool:
        tls.feed(data)
        try:
            plain, is_closed = tls.decrypt()
        except ssl.SSLError as error:
            raise ExchangeError("protocol_error", f"TLS: {error}") from error
        if plain and response.add(arrival_ns, plain):
            return True
        return response.close(arrival_ns) if is_closed else False

    def _send(self, data: bytes, response: Response | None = None) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                gevent_socket.wait_write(self._socket.fileno())
            except OSError as error:
                # A server may answer before it has read the request, and close: its answer counts.
                if response and response.framing.is_complete:
                    return
                raise ExchangeError("reset", f"the connection broke while sending: {error}") from error

    def _shake_hands(self, context: ssl.SSLContext, host: str) -> None:
        self._tls = TlsRecords(context, host)
        try:
            while not self._tls.shake_hands():
                self._send(self._tls.outgoing())
                self._tls.feed(self._wait_for_data())
            self._send(self._tls.outgoing())
        except (OSError, ExchangeError) as error:  # ssl.SSLError is an OSError
            raise ExchangeError("connect_error", f"TLS handshake: {error}") from error

    def _wait_for_data(self) -> memoryview:
        while True:
            gevent_socket.wait_read(self._socket.fileno())
            try:
                _, data = self._receiver.read(self._socket)
            except BlockingIOError:
                continue
            if not data:
                raise ExchangeError("reset", "the server closed the connection")
            return data


def _connect(endpoint: Endpoint) -> Any:
    """A connected socket to the first address that answers."""
    where, failure = f"{endpoint.host}:{endpoint.port}", "no address"
    try:
        addresses = gevent_socket.getaddrinfo(endpoint.host, endpoint.port, 0, names.SOCK_STREAM)
    except OSError as error:
        raise ExchangeError("connect_error", f"{where}: {error}") from error
    for family, kind, _, _, address in addresses:
        socket = plain_socket(family, kind)
        try:
            _finish_connecting(socket, address)
        except OSError as error:
            socket.close()
            failure = str(error)
        except BaseException:
            socket.close()
            raise
        else:
            return socket
    raise ExchangeError("connect_error", f"{where}: {failure}")


def _finish_connecting(socket: Any, address: Any) -> None:
    socket.setsockopt(names.IPPROTO_TCP, names.TCP_NODELAY, 1)
    try:
        socket.connect(address)
    except BlockingIOError:
        gevent_socket.wait_write(socket.fileno())
        if number := socket.getsockopt(names.SOL_SOCKET, names.SO_ERROR):
            raise OSError(number, os.strerror(number)) from None


def _was_closed_before(response: Response) -> bool:
    """True if a connection, just broken, was closed before the server can have worked on the request."""
    if response.raw or response.sent_ns is None:
        return False
    return time.monotonic_ns() - response.sent_ns < CLOSED_BEFORE_S * 1e9


class Client:
    """One user's side: at most one connection, kept alive between requests. A context manager."""

    def __init__(self, endpoint: Endpoint, receiver: Receiver) -> None:
        self._endpoint = endpoint
        self._receiver = receiver
        self._connection: Connection | None = None

    def stream(self, body: bytes, request_id: str, timeout_s: float) -> Exchange:
        """POST a JSON body and block this greenlet until the response has ended or `timeout_s` has passed.

        The time includes connecting, `sent_ns` comes after it, unless the server had just closed the kept
        connection: then the request is sent once more, on a new one, and `sent_ns` is that of the first try.
        Never raises for what a server does; a killed greenlet gets its exchange as `cancelled`, and must end
        by itself.
        """
        response = Response()
        outcome: Outcome = "ok"
        error: str | None = None
        timer = gevent.Timeout.start_new(timeout_s)
        try:
            self._exchange(self._head(len(body), request_id) + body, response)
        except ExchangeError as broken:
            outcome, error = broken.outcome, str(broken)
        except FramingError as wrong:
            outcome, error = "protocol_error", str(wrong)
        except gevent.GreenletExit:
            outcome, error = "cancelled", "bench ended the request"
        except gevent.Timeout as passed:
            if passed is not timer:
                raise
            outcome, error = "timeout", f"not finished after {timeout_s:g} s"
        finally:
            timer.close()
            if not response.framing.keeps_alive:
                self.close()
        return response.exchange(outcome, error, self._receiver.stamp_source)

    def close(self) -> None:
        """Close the connection, if there is one; the next request opens another."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _exchange(self, request: bytes, response: Response) -> None:
        if self._connection and self._connection.is_idle():
            try:
                return self._connection.exchange(request, response)
            except ExchangeError as broken:
                if broken.outcome != "reset" or not _was_closed_before(response):
                    raise
        self.close()
        self._connection = Connection(self._endpoint, self._receiver)
        return self._connection.exchange(request, response)

    def _head(self, length: int, request_id: str) -> bytes:
        lines = [
            f"POST {self._endpoint.path} HTTP/1.1",
            f"Host: {self._endpoint.host_header}",
            "User-Agent: serving-bench",
            "Accept: text/event-stream",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            f"X-Request-Id: {request_id}",
        ]
        if self._endpoint.key:
            lines.append(f"Authorization: Bearer {self._endpoint.key}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
