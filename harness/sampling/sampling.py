"""A thread that reads something at a fixed rate, and the idle state before and after a server.

Instants are CLOCK_MONOTONIC nanoseconds. Knows neither what is read nor who asks.
"""

import itertools
import signal
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

Row = TypeVar("Row")
Value = TypeVar("Value")
ANSWER_LIMIT_S = 5.0  # of one sample: a driver that hangs must not hang bench


@dataclass(frozen=True)
class Idle:
    """What devices or a machine used before a server was there: memory, and power on average.

    `power_note` says why that is not known.
    """

    used_bytes: int | None
    power_w: float | None
    power_note: str | None = None


@dataclass(frozen=True)
class BaselineReturn:
    """Whether memory came back to the baseline, and how far above it it was at the last look."""

    returned: bool
    difference_bytes: int | None


class Sampling(Generic[Row]):
    """Rows of `read()`, `hz` times a second, from entering the `with` block to leaving it.

    `read_at_mark` gives the rows of a mark (default: `read`). An exception from either is kept in `error`,
    its sample left out, and sampling goes on. `notes` is what the reader has to say of missing values.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Row]],
        hz: float = 10.0,
        *,
        read_at_mark: Callable[[], Sequence[Row]] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self._read = read
        self._read_at_mark = read_at_mark or read
        self._period_s = 1.0 / hz
        self._rows: list[Row] = []
        self._instants_ns: list[int] = []
        self._failures: list[str] = []
        self._missed = 0
        self._cpu_s = 0.0
        self._marks_cpu_s = 0.0
        self._late_marks: list[threading.Event] = []
        self._notes = notes if notes is not None else {}
        self._stop = threading.Event()

    def mark(self) -> None:
        """Take a sample with what is too costly for each one: a phase of the start begins.

        Blocks for that sample, ANSWER_LIMIT_S at most. While one that came too late has not returned, none is
        taken.
        """
        if not all(returned.is_set() for returned in self._late_marks):
            return
        returned = threading.Event()

        def take() -> float:
            self._sample(self._read_at_mark)
            returned.set()
            return time.thread_time()

        try:
            self._marks_cpu_s += within(ANSWER_LIMIT_S, take)
        except TimeoutError as hung:
            self._late_marks.append(returned)
            self._failures.append(f"a sample at a mark: {hung}")

    def rows(self) -> list[Row]:
        """Return all rows so far, while sampling goes on, too."""
        return list(self._rows)

    def last(self, count: int = 1) -> list[Row]:
        """Return the newest rows, `count` at most, without a copy of all the others."""
        return self._rows[-count:]

    @property
    def notes(self) -> dict[str, str]:
        """Why values are missing, by field."""
        return dict(self._notes)

    @property
    def error(self) -> str | None:
        """The first failure and how many there were; None if all samples could be read."""
        count = len(self._failures)
        return f"{count} samples could not be read; the first: {self._failures[0]}" if count else None

    def timing(self) -> dict[str, Any]:
        """Return the sampler's own cost and regularity so far, as start.json has them.

        `missed` are samples that were due while another still ran. The intervals are None before the second
        sample. `cpu_s` is of its thread and of marks.
        """
        instants = list(self._instants_ns)
        gaps = sorted((b - a) / 1e9 for a, b in itertools.pairwise(instants))
        return {
            "samples": len(instants),
            "missed": self._missed,
            "interval_p99_s": gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))] if gaps else None,
            "interval_max_s": gaps[-1] if gaps else None,
            "cpu_s": self._cpu_s + self._marks_cpu_s,
        }

    def __enter__(self) -> Self:
        self._thread = quiet_thread(self._run, "sampler")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_LIMIT_S)
        if self._thread.is_alive():
            self._failures.append(f"a sample did not return within {ANSWER_LIMIT_S:g} s")

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            self._instants_ns.append(time.monotonic_ns())
            self._sample(self._read)
            self._cpu_s = time.thread_time()
            late = int((time.monotonic() - due_s) / self._period_s)  # due again while this one ran
            self._missed += late
            due_s += (late + 1) * self._period_s

    def _sample(self, read: Callable[[], Sequence[Row]]) -> None:
        try:
            self._rows.extend(read())
        except Exception as failure:
            self._failures.append(f"{type(failure).__name__}: {failure}")


def quiet_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread that takes no signals: one that lands there would not wake the main thread."""

    def run_without_signals() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        run()

    thread = threading.Thread(target=run_without_signals, name=name, daemon=True)
    thread.start()
    return thread


def within(limit_s: float, ask: Callable[[], Value]) -> Value:
    """Return `ask()`, called in a thread of its own, or raise what it raises. Block for up to limit_s.

    Raises TimeoutError after that and leaves the thread behind: what hangs in a driver cannot be stopped.
    """
    answer = Future[Value]()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as failure:
            answer.set_exception(failure)

    quiet_thread(run, "bounded").join(limit_s)
    if not answer.done():
        raise TimeoutError(f"no answer within {limit_s:g} s")
    return answer.result()


def observe(read: Callable[[], Value], hz: float, duration_s: float) -> list[tuple[int, Value]]:
    """Return what `read()` gave over duration_s, each with the instant at which it had been read. Block."""
    seen = []
    for _ in range(max(1, round(hz * duration_s))):
        value = read()
        seen.append((time.monotonic_ns(), value))
        time.sleep(1.0 / hz)
    return seen


def median_bytes(values: Sequence[int | None]) -> int | None:
    """Return the median, None if one of the values is not known."""
    known = [value for value in values if value is not None]
    return int(statistics.median(known)) if len(known) == len(values) > 0 else None


def wait_until_back(
    read: Callable[[], int | None], baseline_bytes: int, tolerance_bytes: int, timeout_s: float
) -> BaselineReturn:
    """Block until `read()` is at most baseline + tolerance, for up to timeout_s, unless it is None."""
    deadline = time.monotonic() + timeout_s
    while (value := read()) is not None:
        difference = value - baseline_bytes
        if difference <= tolerance_bytes or time.monotonic() >= deadline:
            return BaselineReturn(difference <= tolerance_bytes, difference)
        time.sleep(0.1)
    return BaselineReturn(False, None)
