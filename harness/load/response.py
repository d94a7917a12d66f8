"""One response as it grows, and the exchange that comes of it: bytes and when they arrived.

Knows no socket; runs in gevent's hub while a stream runs, so it only appends.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.contracts import Outcome
from harness.load.framing import Framing

MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class ExchangeError(Exception):
    """The exchange cannot go on: an outcome and why. The client makes an Exchange of it."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome: Outcome = outcome


@dataclass(frozen=True)
class Exchange:
    """One request and what came of it, as far as the transport knows.

    `read_ns` and `read_lengths`: when each read arrived that brought bytes of the body, and how many.
    `end_ns`: arrival of the response's last byte, or the end of the attempt. `outcome` is ok whatever the
    HTTP status, as long as the response is complete. `raw`: all bytes as they came, headers included.
    """

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    raw: bytes
    read_ns: tuple[int, ...]
    read_lengths: tuple[int, ...]
    sent_ns: int | None
    end_ns: int
    outcome: Outcome
    error: str | None
    stamp_source: Literal["kernel", "read"]


class Response:
    """A response as it grows: bytes in one buffer, (arrival, offset) of each read in two flat arrays."""

    def __init__(self) -> None:
        self.sent_ns: int | None = None
        self.end_ns: int | None = None
        self.raw = bytearray()
        self.framing = Framing(self.raw)
        self._arrivals = array("q")
        self._offsets = array("q")

    def add(self, arrival_ns: int, data: bytes | memoryview) -> bool:
        """Keep what arrived; True once the response is complete. Raises ExchangeError, FramingError."""
        self.raw += data
        self._arrivals.append(arrival_ns)
        self._offsets.append(len(self.raw))
        if len(self.raw) > MAX_RESPONSE_BYTES:
            raise ExchangeError("protocol_error", f"the response is longer than {MAX_RESPONSE_BYTES} bytes")
        if self.framing.advance():
            self.end_ns = arrival_ns
            return True
        return False

    def close(self, now_ns: int) -> bool:
        """The server has ended the connection; True if that ends the response. Raises ExchangeError."""
        if self.framing.close():
            self.end_ns = now_ns
            return True
        where = (
            f"after {len(self.raw)} bytes, before the response's end" if self.raw else "without a response"
        )
        raise ExchangeError("reset", f"the server closed the connection {where}")

    def exchange(self, outcome: Outcome, error: str | None, source: Literal["kernel", "read"]) -> Exchange:
        offsets = self.framing.body_offsets(self._offsets)
        lengths = [offset - before for before, offset in zip([0, *offsets], offsets, strict=False)]
        reads = [(at, length) for at, length in zip(self._arrivals, lengths, strict=True) if length]
        return Exchange(
            status=self.framing.status,
            headers=self.framing.headers,
            body=self.framing.body(),
            raw=bytes(self.raw) if outcome != "ok" else b"",
            read_ns=tuple(at for at, _ in reads),
            read_lengths=tuple(length for _, length in reads),
            sent_ns=self.sent_ns,
            end_ns=self.end_ns or time.monotonic_ns(),
            outcome=outcome,
            error=error,
            stamp_source=source,
        )
