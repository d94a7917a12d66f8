"""What the users of one load process share: the conversations, the window, the record of requests.

Under gevent, in one thread; knows no socket and no Locust.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import gevent
import msgspec
from gevent.event import Event

from harness.contracts import (
    FEWEST_REQUESTS,
    LAST_REQUESTS,
    BegunRow,
    Conversation,
    EndedBy,
    Engine,
    LoadJob,
    RequestRow,
    Scenario,
    ScenarioOptions,
    Turn,
)
from harness.load.board import Board
from harness.load.play import arrivals
from harness.load.play.alarm import Alarm
from harness.load.play.openloop import Beginning, OpenLoop, planned
from harness.load.pulse import Recent


@dataclass(frozen=True)
class Outlet:
    """Where the record goes: each takes one JSON line, of a BegunRow or a RequestRow."""

    begun: Callable[[bytes], object]
    row: Callable[[bytes], object]


class Traffic:
    """Hands out conversations in order until it is closed, and writes each request as it begins and ends.

    `worker` is this load process's number; with several, all draw the same conversations and instants, and
    each plays every load.workers-th: the numbers of conversations and users are unique over all of them.
    `failure` is what a scenario or our own code raised in a user's greenlet: it closes the traffic, and
    whoever runs it must raise it again.
    """

    def __init__(
        self,
        job: LoadJob,
        scenario: Scenario,
        engine: Engine,
        outlet: Outlet,
        board: Board | None = None,
        worker: int = 0,
    ) -> None:
        options: ScenarioOptions = msgspec.convert(dict(job.scenario_options), scenario.options)
        self.job = job
        self.worker = worker
        self.board = board or Board()
        self.alarm = Alarm()
        self._engine = engine
        self._engine_options: Any = msgspec.convert(dict(job.engine_options), engine.options)
        self.is_scripted = options.history == "scripted"
        self.users: list[gevent.Greenlet] = []
        self.conversations_begun = 0
        self.started_ns: int | None = None
        self.window_start_ns = 0  # conversations count from here on
        self.window_end_ns: int | None = None
        self._counted = 0
        self.ok = 0
        self.failed = 0
        self.failures: Counter[str] = Counter()  # by outcome
        self.recent = Recent(job.load)
        self.in_flight = 0
        self.closed = Event()
        self.ended_by: EndedBy | None = None
        self.failure: BaseException | None = None
        self._last_failed: deque[bool] = deque(maxlen=LAST_REQUESTS)
        self._conversations: Iterator[Conversation] = scenario.conversations(options, Random(job.seed))
        self.open_loop = None if job.load.kind == "closed" else OpenLoop(self.wait_until, self.closed)
        self._outlet = outlet

    def start(self, started_ns: int) -> None:
        """Fix the instants of the whole cell, which begins at `started_ns`."""
        self.started_ns = started_ns
        self.window_start_ns = started_ns + _ns(arrivals.phases(self.job.load).window_start_s)
        if self.open_loop:
            load, seed = self.job.load, self.job.seed
            self.open_loop.beginnings = planned(load, seed, self._conversations, started_ns, self.worker)

    def admit(self, user: gevent.Greenlet) -> tuple[int, int, float]:
        """A user's number, and when in a closed loop it begins and ends (infinity: not before all do)."""
        number = self.worker + len(self.users) * self.job.load.workers
        self.users.append(user)
        if self.started_ns is None or self.open_loop:  # Locust's own command line decides, or arrivals do
            return number, time.monotonic_ns(), float("inf")
        load = self.job.load
        begins_ns = self.started_ns + _ns(arrivals.user_begins_s(load, number))
        return number, begins_ns, self.started_ns + arrivals.user_ends_s(load, number) * 1e9

    def next_conversation(self) -> Beginning | None:
        """The next conversation, in open loop once it is due; None, and closed, when none is to begin."""
        if self.closed.is_set():
            return None
        begun = self.open_loop.take(len(self.users)) if self.open_loop else self._next_in_turn()
        if begun is None or begun.conversation is None:
            if begun and begun.due_ns is not None:  # exactly then, however late we are
                self.end_window("conversations", begun.due_ns)
            self.close("conversations")
            return None
        self.conversations_begun += 1
        return begun

    def _next_in_turn(self) -> Beginning | None:
        """The next one of a closed loop; load.conversations is shared out among the workers."""
        counts = time.monotonic_ns() >= self.window_start_ns
        load = self.job.load
        if load.conversations is not None and counts:
            if self._counted >= arrivals.share(load.conversations, load.workers, self.worker):
                return None
            self._counted += 1
        number = self.worker + self.conversations_begun * load.workers
        skipped = self.worker if self.conversations_begun == 0 else load.workers - 1
        conversation = next(islice(self._conversations, skipped, None), None)
        return Beginning(number, conversation, None) if conversation else None

    def wait_until(self, due_ns: int) -> bool:
        """Block until an instant; False if the traffic was closed before it."""
        if not self.closed.is_set():
            self.alarm.wait(due_ns)
        return not self.closed.is_set()

    def engine_fields(self, turn: Turn) -> Mapping[str, Any]:
        """What this engine's requests hold beyond the common fields."""
        return self._engine.request_fields(turn, self._engine_options, self.job.fairness)

    @contextmanager
    def request_in_flight(self) -> Iterator[None]:
        """Count a request as in flight while the block runs."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def begin(self, row: BegunRow) -> None:
        """Write that a request is about to be sent, so that it is missed if this process dies."""
        self._outlet.begun(msgspec.json.encode(row) + b"\n")

    def record(self, row: RequestRow) -> None:
        """Count a request that has ended and write its row; close where too many of the last ones failed."""
        if row.outcome == "ok":
            self.ok += 1
            self.recent.add(row)
        else:
            self.failed += 1
            self.failures[row.outcome] += 1
        self._outlet.row(msgspec.json.encode(row) + b"\n")
        if row.outcome != "cancelled":
            self._last_failed.append(row.outcome != "ok")
            self._check_failures()

    def _check_failures(self) -> None:
        most, seen = self.job.load.max_failed_share, len(self._last_failed)
        if most is None or seen < FEWEST_REQUESTS or self.closed.is_set():
            return
        failed = sum(self._last_failed)
        if failed > most * seen:
            logging.getLogger(__name__).error("stopped: %d of the last %d requests failed", failed, seen)
            self.board.stop()
            self.close("failures")

    def end_window(self, ended_by: EndedBy, ended_ns: int) -> None:
        """The window has ended; what is sent from now on is outside of it. The first call's reason stays."""
        if self.ended_by is None:
            self.ended_by = ended_by
            self.window_end_ns = max(ended_ns, self.window_start_ns)

    def close(self, ended_by: EndedBy) -> None:
        """Let no request begin from now on."""
        if not self.closed.is_set():
            self.end_window(ended_by, time.monotonic_ns())
            self.closed.set()
            self.alarm.wake_all()
            if self.open_loop:
                self.open_loop.release()

    def cancel(self) -> None:
        """End the requests in flight, whose rows become `cancelled`; does not wait for them."""
        gevent.killall(list(self.users), block=False)

    def interrupt(self) -> None:
        """Close and cancel."""
        self.close("interrupted")
        self.cancel()

    def fail(self, failure: BaseException) -> None:
        """Stop everything because of an error that is not a server's."""
        self.failure = self.failure or failure
        self.interrupt()


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
