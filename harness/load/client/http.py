"""One user's side of HTTP/1.1: it sends a request and makes an exchange of whatever comes.

A request is sent once more if the kept connection had just been closed. It decodes nothing and knows no
engine. There are no proxies and no redirects.
"""

import time
from typing import Self

import gevent

from harness.contracts import Outcome
from harness.load.client.connection import Connection, Endpoint, endpoint
from harness.load.client.framing import FramingError
from harness.load.client.receive import Receiver
from harness.load.client.response import Exchange, ExchangeError, Response

__all__ = ["Client", "Endpoint", "endpoint"]

# A server that closed an idle connection just before our request reached it lets us know within a round
# trip. One that breaks later may have worked on the request, and that is a failure: sending it again
# would hide it. Where a round trip takes longer than this, the failure is reported, not hidden.
CLOSED_BEFORE_S = 0.05


def _was_closed_before(response: Response) -> bool:
    """Return whether a broken connection was closed before the server can have worked on the request."""
    if response.raw or response.sent_ns is None:
        return False
    return (response.closed_ns or time.monotonic_ns()) - response.sent_ns < CLOSED_BEFORE_S * 1e9


class Client:
    """One user's side: at most one connection, kept open between requests. A context manager."""

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
            if not response.framing.is_complete:  # else it waits only for its turn to be decoded
                outcome, error = "timeout", f"not finished after {timeout_s:g} s"
        finally:
            timer.close()
            if not response.framing.keeps_alive:
                self.close()
        arrivals_ns = self._receiver.arrivals_ns(response.stamps, response.read_ns)
        return response.exchange(outcome, error, arrivals_ns, self._receiver.stamp_source)

    def close(self) -> None:
        """Close the connection, if there is one. The next request opens another."""
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
                response.is_resent, response.closed_ns = True, None
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

    def __exit__(self, *_: object) -> None:
        self.close()
