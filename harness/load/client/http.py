"""Send requests of one user over HTTP/1.1, plain or TLS, and only stamp reads while an answer streams.

A libev watcher calls a plain function in gevent's hub for each read; the user's greenlet is woken at the end.
"""

import os
import socket as names
import ssl
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent import get_hub
from gevent import socket as gevent_socket
from gevent.hub import Waiter

from serving_bench.harness.contracts import Outcome, masked_urls
from serving_bench.harness.errors import UserError
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.api import Api
from serving_bench.harness.load.client.framing import FramingError
from serving_bench.harness.load.client.receive import READ_BYTES, Receiver, Take, plain_socket
from serving_bench.harness.load.client.response import Exchange, ExchangeError, Response, unreadable

# If a server closed an idle connection just before the request, bench knows within a round trip. If the
# connection breaks later, the server may have worked on the request, and sending it again would hide that.
CLOSED_BEFORE_S = 0.05


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and the header lines that the API wants, including its key.

    All connections share `tls`, since loading certificates takes long.
    """

    host: str
    port: int
    path: str
    host_header: str
    tls: ssl.SSLContext | None
    key: str | None = field(default=None, repr=False)
    headers: tuple[str, ...] = field(default=(), repr=False)


def endpoint(base_url: str, key: str | None = None, api: Api = openai.API, model: str = "") -> Endpoint:
    """Return the endpoint of chats under `base_url`. Raises UserError for an unusable URL or key."""
    refused = UserError(f"base_url={masked_urls(base_url)}: not a URL like http://127.0.0.1:8000/v1")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise refused from None  # the ValueError may quote a password
    if parts.scheme not in ("http", "https") or not parts.hostname or not base_url.isascii():
        raise refused
    if key and not (key.isascii() and key.isprintable()):
        raise UserError("the API key has characters that cannot stand in an HTTP header")
    is_tls = parts.scheme == "https"
    path, _, own_query = api.path_of(model).partition("?")
    query = "&".join(filter(None, (own_query, parts.query)))
    return Endpoint(
        host=parts.hostname,
        port=port or (443 if is_tls else 80),
        path=parts.path.rstrip("/") + path + (f"?{query}" if query else ""),
        host_header=parts.netloc.rpartition("@")[2],
        tls=ssl.create_default_context() if is_tls else None,
        key=key or None,
        headers=tuple(f"{name}: {value}" for name, value in api.headers_with(key).items()),
    )


class Client:
    """One user's side: at most one connection, kept open between requests, until `close`."""

    def __init__(self, endpoint: Endpoint, receiver: Receiver) -> None:
        self.receiver = receiver
        self._endpoint = endpoint
        self._connection: _Connection | None = None

    def stream(
        self, body: bytes, request_id: str, timeout_s: float, leave_after_s: float | None = None
    ) -> Exchange:
        """Send a JSON body by POST. Blocks this greenlet until the response has ended, or for `timeout_s`.

        After `leave_after_s` from the sending it closes the connection, and the outcome is `left`. Never
        raises for what a server does. `sent_ns` comes after connecting. If the server had just closed the
        kept connection, the request is sent again, but `sent_ns` stays that of the first try. A killed
        greenlet gets its exchange as `cancelled`, and must end by itself.
        """
        response = Response()
        outcome: Outcome = "ok"
        error: str | None = None
        timer, leaving = gevent.Timeout.start_new(timeout_s), gevent.Timeout(leave_after_s)
        try:
            self._exchange(self._head(len(body), request_id) + body, response, leaving)
            if self._connection and response.framing.keeps_alive:
                response.raw += self._connection.unasked() or b""
            response.framing.check_end()
        except ExchangeError as broken:
            outcome, error = broken.outcome, str(broken)
        except FramingError as wrong:
            outcome, error = "protocol_error", str(wrong)
        except gevent.GreenletExit:
            outcome, error = "cancelled", "bench ended the request"
        except gevent.Timeout as passed:
            if passed not in (timer, leaving):
                raise
            if not response.framing.is_complete:  # else it only waits for its turn to be decoded
                outcome, error = "timeout", f"not finished after {timeout_s:g} s"
                if passed is leaving:
                    outcome, error = "left", f"the user went away after {leave_after_s:g} s"
        except Exception as wrong:  # a bug that a server's bytes trigger fails only this request
            outcome, error = "protocol_error", unreadable(wrong)
        finally:
            timer.close()
            leaving.close()
            if not response.framing.keeps_alive:
                self.close()
        try:
            exchange = response.exchange(outcome, error, self.receiver)
        except Exception as wrong:
            exchange = response.unread(outcome, unreadable(wrong))
        if exchange.outcome != "ok":
            self.close()
        return exchange

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _exchange(self, request: bytes, response: Response, leaving: gevent.Timeout) -> None:
        if self._connection and self._connection.unasked() == b"":
            try:
                return self._connection.exchange(request, response, leaving)
            except ExchangeError as broken:
                if broken.outcome != "reset" or not response.was_closed_within(CLOSED_BEFORE_S):
                    raise
                response.is_resent, response.closed_ns = True, None
        self.close()
        self._connection = _Connection(self._endpoint, self.receiver)
        return self._connection.exchange(request, response, leaving)

    def _head(self, length: int, request_id: str) -> bytes:
        lines = [
            f"POST {self._endpoint.path} HTTP/1.1",
            f"Host: {self._endpoint.host_header}",
            "User-Agent: serving-bench",
            "Accept: text/event-stream",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            f"X-Request-Id: {request_id}",
            *self._endpoint.headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Connection:
    """An open connection. bench moves the bytes of TLS itself, so that the kernel's stamps survive."""

    def __init__(self, endpoint: Endpoint, receiver: Receiver) -> None:
        self._receiver = receiver
        self._socket = _connected(endpoint)
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            receiver.ask_for_stamps(self._socket)
            if endpoint.tls:
                self._shake_hands(endpoint.tls, endpoint.host)
        except BaseException:
            self._socket.close()
            raise

    def exchange(self, request: bytes, response: Response, leaving: gevent.Timeout) -> None:
        """Send `request`, start `leaving`, and block until `response` is complete.

        Raises ExchangeError, FramingError, and the timeout.
        """
        waiter = Waiter()
        watcher = get_hub().loop.io(self._socket.fileno(), 1)

        def end(*failure: Any) -> None:
            watcher.stop()
            if failure and response.closed_ns is None:
                response.closed_ns = time.monotonic_ns()
            self._receiver.end(partial(waiter.throw, *failure) if failure else partial(waiter.switch, None))

        take = self._taking_records(response) if self._tls else response.add
        watcher.start(self._receiver.reader(self._socket, take, end))
        self._receiver.streams += 1
        try:
            if self._tls:
                self._tls.write(request)
                request = self._outgoing.read()
            if response.sent_ns is None:  # else this is the second try, which counts from the first
                response.sent_ns = time.monotonic_ns()
                leaving.start()
            self._send(request, response)
            waiter.get()
        except OSError as error:
            raise ExchangeError("reset", f"the connection broke: {error}") from error
        finally:
            self._receiver.streams -= 1
            watcher.stop()
            watcher.close()

    def unasked(self) -> bytes | None:
        """Return what has arrived and is no part of a response. None if the connection has ended."""
        try:
            data = self._receiver.read(self._socket)
            plain, is_closed = self._decrypted(data) if data and self._tls else (bytes(data), not data)
            return None if is_closed and not plain else plain
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def close(self) -> None:
        self._socket.close()

    def _taking_records(self, response: Response) -> Take:
        def take(stamp: bytes, read_ns: int, data: bytes | memoryview) -> bool:
            try:
                plain, is_closed = self._decrypted(data) if data else (b"", True)
            except ssl.SSLError as error:
                raise ExchangeError("protocol_error", f"TLS: {error}") from error
            if plain and response.add(stamp, read_ns, plain):
                return True
            return is_closed and response.close(read_ns)

        return take

    def _decrypted(self, data: bytes | memoryview) -> tuple[bytes, bool]:
        """Return what the records so far hold, and whether the peer has announced its end."""
        assert self._tls
        self._incoming.write(data)
        plain = bytearray()
        with suppress(ssl.SSLWantReadError):
            with suppress(ssl.SSLZeroReturnError):
                while more := self._tls.read(READ_BYTES):
                    plain += more
            return bytes(plain), True
        return bytes(plain), False

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
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            while not self._has_shaken_hands(self._tls):
                gevent_socket.wait_read(self._socket.fileno())
                with suppress(BlockingIOError):
                    if not (data := self._receiver.read(self._socket)):
                        raise ExchangeError("reset", "the server closed the connection")
                    self._incoming.write(data)
        except (OSError, ExchangeError) as error:  # ssl.SSLError is an OSError
            raise ExchangeError("connect_error", f"TLS handshake: {error}") from error

    def _has_shaken_hands(self, tls: ssl.SSLObject) -> bool:
        is_done = False
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            is_done = True
        self._send(self._outgoing.read())
        return is_done


def _connected(endpoint: Endpoint) -> Any:
    """Return a connected socket to the first address that answers. Raises ExchangeError."""
    failure: object = "no address"
    try:
        addresses = gevent_socket.getaddrinfo(endpoint.host, endpoint.port, 0, names.SOCK_STREAM)
    except OSError as error:
        addresses, failure = [], error
    for family, kind, _, _, address in addresses:
        try:
            with ExitStack() as stack:
                socket = plain_socket(family, kind)
                stack.callback(socket.close)
                socket.setsockopt(names.IPPROTO_TCP, names.TCP_NODELAY, 1)
                with suppress(BlockingIOError):
                    socket.connect(address)
                gevent_socket.wait_write(socket.fileno())
                if number := socket.getsockopt(names.SOL_SOCKET, names.SO_ERROR):
                    raise OSError(number, os.strerror(number))
                stack.pop_all()
                return socket
        except OSError as error:  # making the socket can fail, too: unknown family, no descriptor left
            failure = error
    raise ExchangeError("connect_error", f"{endpoint.host}:{endpoint.port}: {failure}")
