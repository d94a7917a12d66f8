"""What a cell's master knows of its workers, and where their rows go.

Hears messages and sends them; knows no process and no connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from gevent.event import Event

from harness.contracts import BegunRow, LoadSummary, RequestRow, WorkerSummary
from harness.load.lost import Ended, Ledger, lost_row
from harness.load.messages import (
    SILENT_S,
    Begun,
    Closed,
    Done,
    Failed,
    Hello,
    Pong,
    Ready,
    Refused,
    Rows,
    State,
)
from harness.load.synchronize import SAME_CLOCK, Offset, mapped_row, mapped_summary
from harness.load.traffic import Outlet

_log = logging.getLogger(__name__)

Send = Callable[[str, Any], object]


class Member:
    """One worker as the master sees it; its instants are on its own clock until `offset` is added."""

    def __init__(self, node: str, number: int, hello: Hello) -> None:
        self.node = node
        self.number = number
        self.hello = hello
        self.heard_ns = time.monotonic_ns()
        self.offset = SAME_CLOCK
        self.ledger = Ledger()
        self.pong: tuple[Pong, int] | None = None
        self.is_ready = False
        self.is_dead = False
        self.state: State | None = None
        self.closed: Closed | None = None
        self.failed: Failed | None = None
        self.summary: LoadSummary | None = None

    @property
    def is_lost(self) -> bool:
        """It ended without a word, or none came for SILENT_S."""
        if self.summary or self.failed:
            return False
        return self.is_dead or time.monotonic_ns() - self.heard_ns > SILENT_S * 1e9

    @property
    def has_ended(self) -> bool:
        return self.summary is not None or self.failed is not None or self.is_lost


class Crew:
    """The workers of one cell by node, as they come; `news` is set whenever one is heard of.

    `numbers` are those of the worker processes that the master started, by pid; without them the first
    `wanted` to come are taken.
    """

    def __init__(
        self, wanted: int, version: str, send: Send, outlet: Outlet, numbers: Mapping[int, int] | None = None
    ) -> None:
        self.wanted = wanted
        self.members: dict[str, Member] = {}
        self.refused: list[str] = []
        self.news = Event()
        self._version = version
        self._send = send
        self._outlet = outlet
        self._numbers = numbers

    def hear(self, node: str, message: Any) -> None:
        """Take in a message. Raises msgspec.MsgspecError where lines in it are not what they should be."""
        now_ns = time.monotonic_ns()
        member = self.members.get(node)
        if isinstance(message, Hello):
            if member is None:
                self._admit(node, message)
        elif member is not None:
            member.heard_ns = now_ns
            self._take(member, message, now_ns)
        self.news.set()

    def heartbeat(self, node: str) -> None:
        if node in self.members:
            self.members[node].heard_ns = time.monotonic_ns()

    def drop_gone(self) -> None:
        """Forget who has left, before anything was asked of it."""
        for member in list(self.members.values()):
            if member.failed or member.is_lost:
                _log.info("load worker %d on %s has left", member.number, member.hello.host)
                del self.members[member.node]

    def _admit(self, node: str, hello: Hello) -> None:
        if hello.version != self._version:
            line = f"{hello.host} has bench {hello.version}, the run has {self._version}; install the same"
            _log.warning("a worker is refused: %s", line)
            self.refused.append(line)
            self._send(node, Refused(line, is_final=True))
        elif len(self.members) >= self.wanted or not self._is_mine(hello):
            self._send(node, Refused(f"the run has all its load workers ({self.wanted})", is_final=False))
        else:
            number = self._free_number() if self._numbers is None else self._numbers[hello.pid]
            self.members[node] = Member(node, number, hello)
            _log.info("load worker %d is process %d on %s", number, hello.pid, hello.host)

    def _free_number(self) -> int:
        taken = {member.number for member in self.members.values()}
        return next(number for number in range(self.wanted) if number not in taken)

    def _is_mine(self, hello: Hello) -> bool:
        return self._numbers is None or hello.pid in self._numbers

    def _take(self, member: Member, message: Any, now_ns: int) -> None:
        match message:
            case Pong():
                member.pong = (message, now_ns)
            case Begun():
                self._take_begun(member, message.lines)
            case Rows():
                self._take_rows(member, message.lines)
            case Done():
                self._finish(member, message)
            case Ready():
                member.is_ready = True
            case State():
                member.state = message
            case Closed():
                member.closed = message
            case Failed():
                member.failed = message

    def _take_begun(self, member: Member, lines: bytes) -> None:
        for line in lines.splitlines():
            row = msgspec.json.decode(line, type=BegunRow)
            row = replace(row, scheduled_ns=row.scheduled_ns + member.offset.offset_ns)
            self._outlet.begun(msgspec.json.encode(row) + b"\n")
            member.ledger.begin(row)

    def _take_rows(self, member: Member, lines: bytes) -> None:
        for line in lines.splitlines():
            if offset_ns := member.offset.offset_ns:
                row = msgspec.json.decode(line, type=RequestRow)
                line = msgspec.json.encode(mapped_row(row, offset_ns))
            # On our own clock the line stays as it is: no need to take apart what may be 64 KiB long.
            ended = msgspec.json.decode(line, type=Ended)
            self._outlet.row(line + b"\n")
            member.ledger.end(ended.request_id)

    def _finish(self, member: Member, done: Done) -> None:
        ledger = member.ledger
        if (ledger.begun, ledger.ended) == (done.begun, done.rows):
            summary = msgspec.json.decode(done.summary, type=LoadSummary)
            member.summary = mapped_summary(summary, member.offset.offset_ns)
            return
        member.is_dead = True
        _log.error(
            "load worker %d sent %d requests and %d rows, of which %d and %d arrived: it counts as lost",
            *(member.number, done.begun, done.rows, ledger.begun, ledger.ended),
        )

    def write_lost(self) -> None:
        """Write what lost workers had begun as `lost`; they ended when their worker was heard of last."""
        for member in self.members.values():
            if member.summary is None:
                for begun in member.ledger.open:
                    row = lost_row(begun, member.heard_ns, f"load worker {member.number} was lost")
                    self._outlet.row(msgspec.json.encode(row) + b"\n")
                    member.ledger.end(row.request_id)


def worker_summary(member: Member) -> WorkerSummary:
    """What a worker said of itself at its end, or, if it is lost, what it had said last."""
    offset: Offset = member.offset
    if member.summary:
        return replace(
            member.summary.workers[0],
            number=member.number,
            offset_ns=offset.offset_ns,
            offset_uncertainty_ns=offset.uncertainty_ns,
        )
    state = member.state
    return WorkerSummary(
        number=member.number,
        host=member.hello.host,
        pid=member.hello.pid,
        requests=member.ledger.ended,
        stamp_source=state.stamp_source if state else "read",
        clock_uncertainty_ns=state.clock_uncertainty_ns if state else None,
        stamp_lag_s=None,
        loop_lag_s=None,
        cpu_s=state.cpu_s if state else 0.0,
        gc_pause_s=state.gc_pause_s if state else 0.0,
        offset_ns=offset.offset_ns,
        offset_uncertainty_ns=offset.uncertainty_ns,
        lost_ns=member.heard_ns,
    )
