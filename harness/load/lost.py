"""Requests that began and of whose end nothing is known, because the load process died with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.contracts import BegunRow, LoadJob, RequestRow

_Line = TypeVar("_Line")
_log = logging.getLogger(__name__)


class Ledger:
    """What has begun and not ended. Both may be told in any order; memory grows with what is open only."""

    def __init__(self) -> None:
        self._open: dict[str, BegunRow] = {}
        self._ended_first: set[str] = set()
        self.begun = 0
        self.ended = 0

    def begin(self, row: BegunRow) -> None:
        self.begun += 1
        if row.request_id in self._ended_first:
            self._ended_first.remove(row.request_id)
        else:
            self._open[row.request_id] = row

    def end(self, request_id: str) -> None:
        self.ended += 1
        if self._open.pop(request_id, None) is None:
            self._ended_first.add(request_id)

    @property
    def open(self) -> list[BegunRow]:
        """In the order in which they began."""
        return list(self._open.values())


def lost_row(begun: BegunRow, end_ns: int, error: str) -> RequestRow:
    """The record of a request whose load process is gone; whether it was sent is not known."""
    return RequestRow(
        request_id=begun.request_id,
        user=begun.user,
        conversation=begun.conversation,
        turn=begun.turn,
        outcome="lost",
        error=error,
        http_status=None,
        scheduled_ns=begun.scheduled_ns,
        sent_ns=None,
        first_content_ns=None,
        last_content_ns=None,
        end_ns=max(end_ns, begun.scheduled_ns),
        chunk_ns=(),
        input_tokens=None,
        output_tokens=None,
        cached_tokens=None,
        token_source=None,
        max_tokens=begun.max_tokens,
        finish_reason=None,
        output_text="",
        worker=begun.worker,
    )


class Ended(msgspec.Struct):
    """What counts of a RequestRow for a ledger; the rest of the line is skipped."""

    request_id: str
    end_ns: int


def append_lost(job: LoadJob) -> int:
    """Add a `lost` row to job.rows_path for each request that began and has none; how many.

    For a load process that is gone. They end at the last instant in either file, when it was heard of last. A
    last line that was cut short is removed first, any other damaged one is passed over. Doing it again adds
    nothing. Raises OSError.
    """
    rows_path, begun_path = Path(job.rows_path), Path(job.begun_path)
    for path in (rows_path, begun_path):
        _remove_cut_line(path)
    ledger = Ledger()
    heard_ns = 0
    # In step, since both grow together: nothing is held but what is open.
    for begun, ended in zip_longest(_read(begun_path, BegunRow), _read(rows_path, Ended)):
        if begun is not None:
            ledger.begin(begun)
            heard_ns = max(heard_ns, begun.scheduled_ns)
        if ended is not None:
            ledger.end(ended.request_id)
            heard_ns = max(heard_ns, ended.end_ns)
    lost = [lost_row(begun, heard_ns, f"load worker {begun.worker} was lost") for begun in ledger.open]
    if lost:
        with open(rows_path, "ab") as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in lost)
    return len(lost)


def _read(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    """The file's lines, but for damaged ones, of which their number is told."""
    if not path.is_file():
        return
    damaged = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                yield msgspec.json.decode(line, type=kind)
            except msgspec.MsgspecError:
                damaged += 1
    if damaged:
        _log.warning("%s: lines that are damaged and were passed over: %d", path, damaged)


def _remove_cut_line(path: Path) -> None:
    """Shorten a file to its last newline, looking from its end."""
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
