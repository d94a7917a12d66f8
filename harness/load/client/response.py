"""Keep one response as it grows, and make an exchange of it.

While it grows, this runs in gevent's hub, so it only appends.
"""

import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serving_bench.harness.contracts import Outcome
from serving_bench.harness.load.client.framing import LAST_CHUNK_START, Framing, FramingError
from serving_bench.harness.load.client.receive import Receiver

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
_NO_STAMP = bytes(16)
_S = 1_000_000_000


class ExchangeError(Exception):
    """Why an exchange cannot go on: an outcome and a reason. The client turns it into an Exchange."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome: Outcome = outcome


@dataclass(frozen=True)
class Exchange:
    """One request and its response, as far as the transport knows.

    `read_ns`: when each read arrived; `read_ends`: the offset in the body where it ends. `end_ns`: when the
    last byte arrived, or the attempt ended. `outcome` is ok whatever the HTTP status. `raw`: all bytes with
    the headers.
    """

    outcome: Outcome
    error: str | None
    raw: bytearray
    sent_ns: int | None
    end_ns: int
    is_resent: bool
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    read_ns: Sequence[int] = ()
    read_ends: Sequence[int] = ()


class Response:
    """A response as it grows: its bytes in one buffer, and four numbers of each read in a flat array.

    They are the kernel's stamp (zeros if none), the instant of the read, and the offset where it ends.
    """

    __slots__ = ("_marks", "closed_ns", "framing", "is_resent", "raw", "sent_ns")

    def __init__(self) -> None:
        self.sent_ns: int | None = None
        self.closed_ns: int | None = None
        self.is_resent = False
        self.raw = bytearray()
        self.framing = Framing(self.raw)
        self._marks = array("q")

    def add(self, stamp: bytes, read_ns: int, data: bytes | memoryview) -> bool:
        """Keep what arrived (nothing at the end) and the kernel's timespec if any. Return as `close` does."""
        if not data:
            return self.close(read_ns)
        marks = self._marks
        marks.frombytes(stamp or _NO_STAMP)
        marks.append(read_ns)
        self.raw += data
        size = len(self.raw)
        marks.append(size)
        if size > MAX_RESPONSE_BYTES:
            raise ExchangeError("protocol_error", f"the response is longer than {MAX_RESPONSE_BYTES} bytes")
        framing = self.framing
        if framing.is_chunked and self.raw.find(LAST_CHUNK_START, framing.searched) < 0:
            framing.searched = size - 2  # as `advance` does, without the call: this runs once per token
            return False
        return framing.advance()

    def close(self, now_ns: int) -> bool:
        """Note that the connection has ended. Return whether the response is complete.

        Raises ExchangeError or FramingError.
        """
        self.closed_ns = now_ns
        if self.framing.close():
            return True
        where = (
            f"after {len(self.raw)} bytes, before the response's end" if self.raw else "without a response"
        )
        raise ExchangeError("reset", f"the server closed the connection {where}")

    def was_closed_within(self, seconds: float) -> bool:
        """Return whether the connection broke within that time of the sending, before anything came."""
        if self.raw or self.sent_ns is None:
            return False
        return (self.closed_ns or time.monotonic_ns()) - self.sent_ns < seconds * 1e9

    def exchange(self, outcome: Outcome, error: str | None, receiver: Receiver) -> Exchange:
        """Return the exchange, with the instants of its reads from the receiver."""
        try:
            self.framing.check()
        except FramingError as wrong:
            # The bad framing may be why the server, or bench, waited.
            if outcome in ("timeout", "reset"):
                outcome, error = "protocol_error", str(wrong)
        marks = self._marks
        stamps_ns = [seconds * _S + rest for seconds, rest in zip(marks[0::4], marks[1::4], strict=True)]
        arrivals_ns = receiver.arrivals_ns(stamps_ns, marks[2::4])
        if outcome == "ok" and self._is_too_early(arrivals_ns, receiver):
            receiver.clock.refresh()  # the time of day may have been set back
            arrivals_ns = receiver.arrivals_ns(stamps_ns, marks[2::4])
            if self._is_too_early(arrivals_ns, receiver):
                outcome, error = "protocol_error", "the answer began to arrive before its request was sent"
        last_ns = arrivals_ns[-1] if self.framing.is_complete and arrivals_ns else time.monotonic_ns()
        return Exchange(
            status=self.framing.status,
            headers=self.framing.headers,
            body=self.framing.body(),
            raw=self.raw,
            read_ns=arrivals_ns,
            read_ends=self.framing.body_offsets(marks[3::4]),
            sent_ns=self.sent_ns,
            end_ns=self.closed_ns or last_ns,
            outcome=outcome,
            error=error,
            is_resent=self.is_resent,
        )

    def _is_too_early(self, arrivals_ns: Sequence[int], receiver: Receiver) -> bool:
        latest_ns = (self.sent_ns or 0) - receiver.clock.uncertainty_ns
        return self.framing.status == 200 and min(arrivals_ns[:1], default=latest_ns) < latest_ns

    def unread(self, outcome: Outcome, error: str) -> Exchange:
        """Return the exchange of a response that could not be read: its bytes, and no content. If bench ended
        it, its outcome stays `cancelled`."""
        outcome = outcome if outcome == "cancelled" else "protocol_error"
        return Exchange(outcome, error, self.raw, self.sent_ns, time.monotonic_ns(), self.is_resent)


def unreadable(wrong: Exception) -> str:
    """Return the error of a response that bench failed to read."""
    return f"{type(wrong).__name__}: {wrong}"[:200]
