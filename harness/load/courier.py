"""Brings a worker's lines to its master: what begins before it is sent, rows in batches.

Knows no connection: `send` takes a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from harness.load.messages import Begun, Rows

# A worker that dies takes up to so much of finished rows with it: they become `lost`.
ROWS_S = 0.25
ROWS_BYTES = 256 * 1024


class Courier:
    """Sends lines; `flush` when there are no more. Counts the lines of either kind.

    What begins is handed to the connection at once, before its request is sent, so that it is not missed if
    this process dies; rows can wait.
    """

    def __init__(self, send: Callable[[Any], object]) -> None:
        self._send = send
        self._rows: list[bytes] = []
        self._rows_bytes = 0
        self.begun_lines = 0
        self.row_lines = 0

    def begun(self, line: bytes) -> None:
        self.begun_lines += 1
        self._send(Begun(line))

    def row(self, line: bytes) -> None:
        if not self._rows:
            gevent.spawn_later(ROWS_S, self.flush)
        self._rows.append(line)
        self.row_lines += 1
        self._rows_bytes += len(line)
        if self._rows_bytes >= ROWS_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what there is, at once."""
        lines, self._rows, self._rows_bytes = self._rows, [], 0
        if lines:
            self._send(Rows(b"".join(lines)))
