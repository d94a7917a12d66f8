"""An open HTTP/1.1 connection, plain or TLS, that only stamps while an answer streams.

A libev watcher calls a plain function in gevent's hub for each read. The user's greenlet is woken once, at
the end of the response. It decodes nothing and knows no engine.
"""

import os
import socket as names
import ssl
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from gevent import get_hub
from gevent import socket as gevent_socket
from gevent.hub import Waiter

from harness.errors import UserError
from harness.load.client.receive import Receiver, Take, TlsRecords, plain_socket
from harness.load.client.response import ExchangeError, Response


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
    """Return the chat completions endpoint under `base_url`. Raises UserError for what cannot be sent."""
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
    """An open connection. It has one exchange at a time."""

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

        def end(*failure: Any) -> None:
            watcher.stop()
            if failure and response.closed_ns is None:
                response.closed_ns = time.monotonic_ns()
            self._receiver.end(partial(waiter.throw, *failure) if failure else partial(waiter.switch, None))

        watcher.start(self._receiver.reader(self._socket, self._taking(response), end))
        self._receiver.streams += 1
        try:
            data = self._tls.encrypt(request) if self._tls else request
            if response.sent_ns is None:  # else this is the second try, which counts from the first
                response.sent_ns = time.monotonic_ns()
            self._send(data, response)
            waiter.get()
        except OSError as error:
            raise ExchangeError("reset", f"the connection broke: {error}") from error
        finally:
            self._receiver.streams -= 1
            watcher.stop()
            watcher.close()

    def is_idle(self) -> bool:
        """Return whether another request may be sent: it is open, and nothing came unasked."""
        try:
            data = self._receiver.read(self._socket)
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

    def _taking(self, response: Response) -> Take:
        """Return what is done with what a read brings. It returns True once the response is complete."""
        if not self._tls:
            return response.add
        tls = self._tls

        def take_records(stamp: bytes, read_ns: int, data: bytes | memoryview) -> bool:
            if not data:
                return response.close(read_ns)
            tls.feed(data)
            try:
                plain, is_closed = tls.decrypt()
            except ssl.SSLError as error:
                raise ExchangeError("protocol_error", f"TLS: {error}") from error
            if plain and response.add(stamp, read_ns, plain):
                return True
            return response.close(read_ns) if is_closed else False

        return take_records

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
                data = self._receiver.read(self._socket)
            except BlockingIOError:
                continue
            if not data:
                raise ExchangeError("reset", "the server closed the connection")
            return data


def _connect(endpoint: Endpoint) -> Any:
    """Return a connected socket to the first address that answers. Raises ExchangeError."""
    where, failure = f"{endpoint.host}:{endpoint.port}", "no address"
    try:
        addresses = gevent_socket.getaddrinfo(endpoint.host, endpoint.port, 0, names.SOCK_STREAM)
    except OSError as error:
        raise ExchangeError("connect_error", f"{where}: {error}") from error
    for family, kind, _, _, address in addresses:
        try:
            return _connected(family, kind, address)
        except OSError as error:  # of making the socket too: no such family here, no descriptor left
            failure = str(error)
    raise ExchangeError("connect_error", f"{where}: {failure}")


def _connected(family: int, kind: int, address: Any) -> Any:
    socket = plain_socket(family, kind)
    try:
        _finish_connecting(socket, address)
    except BaseException:
        socket.close()
        raise
    return socket


def _finish_connecting(socket: Any, address: Any) -> None:
    socket.setsockopt(names.IPPROTO_TCP, names.TCP_NODELAY, 1)
    try:
        socket.connect(address)
    except BlockingIOError:
        gevent_socket.wait_write(socket.fileno())
        if number := socket.getsockopt(names.SOL_SOCKET, names.SO_ERROR):
            raise OSError(number, os.strerror(number)) from None
