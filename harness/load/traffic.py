"""What the users of one load process share: the conversations, the window, the record of requests.

Under gevent, in one thread; knows no socket and no Locust.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any, Literal

import gevent
import msgspec
from gevent.event import Event

from harness.contracts import Conversation, Engine, LoadJob, RequestRow, Scenario, ScenarioOptions, Turn

STAGGER_S = 1.0

EndedBy = Literal["duration", "conversations", "interrupted"]


class Traffic:
    """Hands out conversations in order until it is closed, and writes each request's row as it ends.

    `write` takes one JSON line per row. `failure` is what a scenario or our own code raised in a user's
    greenlet: it closes the traffic, and whoever runs it must raise it again.
    """

    def __init__(
        self, job: LoadJob, scenario: Scenario, engine: Engine, write: Callable[[bytes], object]
    ) -> None:
        options: ScenarioOptions = msgspec.convert(dict(job.scenario_options), scenario.options)
        self.job = job
        self._engine = engine
        self._engine_options: Any = msgspec.convert(dict(job.engine_options), engine.options)
        self.is_scripted = options.history == "scripted"
        self.users: list[gevent.Greenlet] = []
        self.conversations_begun = 0
        self.window_start_ns = 0  # set when the warm-up begins; conversations count from here on
        self._counted = 0
        self.ok = 0
        self.failed = 0
        self.in_flight = 0
        self.closed = Event()
        self.closed_ns: int | None = None
        self.ended_by: EndedBy | None = None
        self.failure: BaseException | None = None
        self._conversations: Iterator[Conversation] = scenario.conversations(options, Random(job.seed))
        self._write = write

    def admit(self, user: gevent.Greenlet) -> tuple[int, float]:
        """A user's number, and the seconds to wait first so that users do not start in step."""
        number = len(self.users)
        self.users.append(user)
        spread_s = min(self.job.load.warmup_s, STAGGER_S)
        return number, spread_s * number / max(self.job.load.concurrency, 1)

    def next_conversation(self) -> tuple[int, Conversation] | None:
        """The next conversation and its index; None, and closed, when there are no more to begin."""
        if self.closed.is_set():
            return None
        counts = time.monotonic_ns() >= self.window_start_ns
        limit = self.job.load.conversations
        if limit is None or not counts or self._counted < limit:
            conversation = next(self._conversations, None)
            if conversation is not None:
                self.conversations_begun += 1
                self._counted += counts
                return self.conversations_begun - 1, conversation
        self.close("conversations")
        return None

    def wait_until(self, due_ns: int) -> bool:
        """Block until an instant; False if the traffic was closed before it."""
        # gevent's timers count from the loop's last look at the clock and may end early.
        while (rest_ns := due_ns - time.monotonic_ns()) > 0:
            if self.closed.wait(rest_ns / 1e9):
                break
        return not self.closed.is_set()

    def engine_fields(self, turn: Turn) -> Mapping[str, Any]:
        """What this engine's requests hold beyond the common fields."""
        return self._engine.request_fields(turn, self._engine_options)

    @contextmanager
    def request_in_flight(self) -> Iterator[None]:
        """Count a request as in flight while the block runs."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def record(self, row: RequestRow) -> None:
        """Count a request that has ended and write its row."""
        if row.outcome == "ok":
            self.ok += 1
        else:
            self.failed += 1
        self._write(msgspec.json.encode(row) + b"\n")

    def close(self, ended_by: EndedBy) -> None:
        """Let no request begin from now on. The first call's reason stays."""
        if not self.closed.is_set():
            self.ended_by = ended_by
            self.closed_ns = time.monotonic_ns()
            self.closed.set()

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
