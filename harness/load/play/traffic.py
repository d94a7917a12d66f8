"""Share the conversations, the window and the record of requests among the users of a load process."""

import logging
import time
from collections import Counter, deque
from itertools import islice
from random import Random
from typing import Any, BinaryIO

import gevent
import msgspec
from gevent.event import Event

from serving_bench.harness import contracts
from serving_bench.harness.load.answer import APIS
from serving_bench.harness.load.play import arrivals
from serving_bench.harness.load.play.arrivals import Beginning
from serving_bench.harness.load.play.waits import Alarm, OpenLoop
from serving_bench.harness.load.play.window import Board, Window
from serving_bench.harness.load.pulse import Recent

# How often to look whether the first worker has decided. It decides at about the same instant.
_LOOK_S = 0.001


class Traffic:
    """Hands out conversations in order until it is closed.

    Writes a JSON line to `begun` for each request that begins, and one to `rows` for each that has ended.
    Several workers draw the same conversations and instants; each plays every load.workers-th. A `failure`
    in a user's greenlet closes the traffic, and whoever runs the traffic must raise it again.
    """

    def __init__(
        self,
        job: contracts.LoadJob,
        scenario: contracts.Scenario,
        engine: contracts.Engine,
        *,
        begun: BinaryIO,
        rows: BinaryIO,
        board: Board | None = None,
        worker: int = 0,
    ) -> None:
        options: contracts.ScenarioOptions = msgspec.convert(dict(job.scenario_options), scenario.options)
        self.job = job
        self.worker = worker
        self.board = board or Board()
        self.window = Window(job.load, worker, self.board, job.steps_to_first)
        self.alarm = Alarm()
        self._begun, self._rows = begun, rows
        self.engine, self.api = engine, APIS[engine.api]
        self.engine_options: Any = msgspec.convert(dict(job.engine_options), engine.options)
        self.is_scripted = options.history == "scripted"
        self._ends_itself = scenario.ends_itself
        self.width = options.width
        self.users: list[gevent.Greenlet] = []
        self.conversations_begun = self.cut_conversations = self.cut_turns = 0
        self._counted = 0  # conversations that load.conversations counts
        self._playing = 0
        self._has_run_out = False
        self.ok = self.failed = self.in_flight = 0
        self.failures: Counter[str] = Counter()  # by outcome
        self.recent = Recent(job.load)
        self.closed = Event()
        self.failure: BaseException | None = None
        self._last_failed: deque[bool] = deque(maxlen=contracts.LAST_REQUESTS)
        self._conversations = scenario.conversations(options, Random(job.seed))
        is_open = job.load.kind != "closed"
        self.open_loop = OpenLoop(self.alarm, self.window, self.closed) if is_open else None

    def start(self, started_ns: int) -> None:
        self.window.begin(started_ns)
        if self.open_loop:
            load, seed = self.job.load, self.job.seed
            self.open_loop.beginnings = arrivals.planned(load, seed, self._conversations, self.worker)

    def wait_until(self, due_ns: int) -> bool:
        """Wait until an instant. Return False if the traffic was closed before it."""
        return self.alarm.wait_unless(self.closed, due_ns)

    def admit(self, user: gevent.Greenlet) -> tuple[int, int]:
        """Add a user. Return its number and, in a closed loop, when it begins."""
        number = self.worker + len(self.users) * self.job.load.workers
        self.users.append(user)
        start_ns = self.window.cell_start_ns
        if start_ns is None or self.open_loop:  # Locust's own command line decides, or arrivals do
            return number, time.monotonic_ns()
        return number, start_ns + arrivals.ns(arrivals.user_begins_s(self.job.load, number))

    def next_conversation(self) -> Beginning | None:
        """Wait until the next conversation is due and return it, if any.

        The caller must call `conversation_ends` when it has ended.
        """
        if self.closed.is_set() or self._has_run_out:
            return None
        begun = self.open_loop.take(len(self.users)) if self.open_loop else self._next_in_turn()
        if begun and begun.conversation:
            self.conversations_begun += 1
            self._playing += 1
            return begun
        if not self.closed.is_set():
            self._has_run_out = True
            # The window ends exactly then, however late we are. Only a batch's ends with its last answer.
            if begun and begun.due_ns is not None and self.job.load.kind != "batch":
                self.end_window("conversations", begun.due_ns)
            self._finish()
        return None

    def _next_in_turn(self) -> Beginning | None:
        """Return a closed loop's next conversation. The workers divide load.conversations among them."""
        load = self.job.load
        if load.conversations is not None and time.monotonic_ns() >= self.window.start_ns:
            if self._counted >= arrivals.share(load.conversations, load.workers, self.worker):
                return None
            self._counted += 1
        number = self.worker + self.conversations_begun * load.workers
        skipped = self.worker if self.conversations_begun == 0 else load.workers - 1
        return Beginning(number, next(islice(self._conversations, skipped, None), None))

    def conversation_ends(self, turns_left: int) -> None:
        """Note that a conversation has ended. `turns_left`: how many it still had, if bench ended it."""
        self._playing -= 1
        if turns_left and self.window.ended_by == "conversations":
            self.cut_conversations += 1
            self.cut_turns += turns_left
        self._finish()

    def _finish(self) -> None:
        # If no conversation is left to begin, the window ends once enough is measured. The load ends once
        # nobody talks any more.
        if self._has_run_out and not self.closed.is_set():
            if not self._playing:
                self.close("conversations")
            elif self.window.has_enough and self.job.load.kind != "batch":
                self.end_window("conversations", time.monotonic_ns())

    def goes_on_after(self, step: int) -> bool:
        """Return whether the window goes on after a step. Blocks until the first worker has decided that."""
        while (decided := self.window.goes_on_after(step)) is None and not self.closed.is_set():
            gevent.sleep(_LOOK_S)
        return bool(decided)

    def end_window(self, ended_by: contracts.EndedBy, ended_ns: int) -> None:
        """End the window: requests sent from `ended_ns` on are outside of it. Only the first call counts."""
        if self.window.ended_by is not None:
            return
        if ended_by == "duration" and self._has_run_out:
            ended_by = "conversations"
        self.window.end(ended_by, ended_ns)
        if ended_by == "conversations":
            gevent.spawn(self._close_after_grace, ended_ns)

    def _close_after_grace(self, ended_ns: int) -> None:
        window_s = max(0.0, (ended_ns - self.window.start_ns) / 1e9)
        grace_ns = arrivals.ns(arrivals.grace_s(self.job.load, window_s))
        self.wait_until(max(ended_ns, self.window.start_ns) + grace_ns)
        self.close("conversations")

    def close(self, ended_by: contracts.EndedBy) -> None:
        """Let no request begin from now on."""
        if not self.closed.is_set():
            self.closed.set()
            self.end_window(ended_by, time.monotonic_ns())
            self.alarm.wake_all()
            if self.open_loop:
                self.open_loop.release()

    def cancel(self) -> None:
        """End the requests in flight; their rows become `cancelled`. Does not wait for them."""
        gevent.killall(list(self.users), block=False)

    def interrupt(self) -> None:
        self.close("interrupted")
        self.cancel()

    def fail(self, failure: BaseException) -> None:
        self.failure = self.failure or failure
        self.interrupt()

    def fields(self, turn: contracts.Turn) -> dict[str, Any]:
        """Return the engine's own fields of a turn's request."""
        fields = contracts.fields_of(
            self.engine, turn, self.engine_options, self.job.fairness, ends_itself=self._ends_itself
        )
        if turn.adapter is not None:
            fields |= self.engine.adapter_fields(turn.adapter, self.job.adapters.index(turn.adapter))
        return fields

    def begin(self, row: contracts.BegunRow) -> None:
        """Write that a request is about to be sent, so that it is known as lost if this process dies."""
        self.in_flight += 1
        self._begun.write(msgspec.json.encode(row) + b"\n")

    def record(self, row: contracts.RequestRow) -> None:
        """Count a request that has ended, write its row, and close if too many of the last ones failed."""
        self.in_flight -= 1
        if row.outcome == "ok":
            self.ok += 1
            self.recent.add(row)
        elif row.is_failed:
            self.failed += 1
            self.failures[row.outcome] += 1
        self._rows.write(msgspec.json.encode(row) + b"\n")
        if row.outcome != "cancelled":
            if row.outcome != "left":
                self._last_failed.append(row.is_failed)
                self._check_failures()
            self.window.count(row)
            self._finish()

    def _check_failures(self) -> None:
        most, seen = self.job.load.max_failed_share, len(self._last_failed)
        if most is None or seen < contracts.FEWEST_REQUESTS or self.closed.is_set():
            return
        failed = sum(self._last_failed)
        if failed > most * seen:
            logging.getLogger(__name__).error("stopped: %d of the last %d requests failed", failed, seen)
            self.board.is_stopped = 1
            self.close("failures")
