"""Read something at a fixed rate in a thread, and measure the idle state before and after a server."""

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from serving_bench.harness.contracts import mean_power_w
from serving_bench.harness.errors import UserError

Row = TypeVar("Row", covariant=True)
Value = TypeVar("Value")
Number = TypeVar("Number", int, float)
ANSWER_LIMIT_S = 5.0  # of one sample: a driver that hangs must not hang bench
# Reads per second of an idle machine: the step of an energy counter is seen within 10 ms.
_IDLE_HZ = 100.0
_IDLE_S = {"host": 0.3, "device": 1.0}


class Reader(Protocol[Row]):
    """Takes one sample at a time. `notes`: why values are missing, by field."""

    notes: dict[str, str]

    def read(self, *, is_mark: bool = False) -> Sequence[Row]:
        """Return the rows of a sample; at a mark, with the fields that are too slow for every one."""


class Sampling(Generic[Row]):
    """A thread that collects a reader's rows, `hz` times a second, while the `with` block runs.

    An exception from the reader is kept in `error`.
    """

    def __init__(self, reader: Reader[Row], hz: float = 10.0) -> None:
        self._reader = reader
        self._period_s = 1.0 / hz
        self._rows: list[Row] = []
        self._instants_ns: list[int] = []
        self._failures: list[str] = []
        self._missed = 0
        self._cpu_s = self._marks_cpu_s = 0.0
        self._late_marks: list[threading.Event] = []
        self.notes = reader.notes
        self._stop = threading.Event()

    def mark(self) -> None:
        """Take a sample with the fields that are too slow for every one. Blocks for up to ANSWER_LIMIT_S."""
        if not all(returned.is_set() for returned in self._late_marks):
            return
        returned = threading.Event()

        def take() -> float:
            self._sample(is_mark=True)
            returned.set()
            return time.thread_time()

        try:
            self._marks_cpu_s += within(ANSWER_LIMIT_S, take)
        except TimeoutError as hung:
            self._late_marks.append(returned)
            self._failures.append(f"a sample at a mark: {hung}")

    def rows(self) -> list[Row]:
        return list(self._rows)

    def last(self, count: int = 1) -> list[Row]:
        """Return the newest rows, at most `count`, without copying the others."""
        return self._rows[-count:]

    @property
    def error(self) -> str | None:
        """Return how many samples could not be read, and the first failure; None if all could be read."""
        count = len(self._failures)
        return f"{count} samples could not be read; the first: {self._failures[0]}" if count else None

    def timing(self) -> dict[str, Any]:
        """Return the sampler's own cost and regularity so far, as start.json has them.

        `missed` are samples that were due while another still ran. `cpu_s` counts its thread and its marks.
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
        self._thread = QuietThread(target=self._run, name="sampler", daemon=True)
        self._thread.start()
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
            self._sample()
            self._cpu_s = time.thread_time()
            late = int((time.monotonic() - due_s) / self._period_s)  # due again while this one ran
            self._missed += late
            due_s += (late + 1) * self._period_s

    def _sample(self, *, is_mark: bool = False) -> None:
        try:
            self._rows.extend(self._reader.read(is_mark=is_mark))
        except Exception as failure:
            self._failures.append(f"{type(failure).__name__}: {failure}")


class QuietThread(threading.Thread):
    """A thread that takes no signals: one that arrives there would not wake the main thread."""

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        super().run()


def within(limit_s: float, ask: Callable[[], Value]) -> Value:
    """Return `ask()`, called in a thread of its own. Raise what it raises, or TimeoutError after limit_s.

    The thread may stay behind, since nothing can stop a call that hangs in a driver.
    """
    answer = Future[Value]()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as failure:
            answer.set_exception(failure)

    asking = QuietThread(target=run, name="bounded", daemon=True)
    asking.start()
    asking.join(limit_s)
    if not answer.done():
        raise TimeoutError(f"no answer within {limit_s:g} s")
    return answer.result()


@dataclass(frozen=True)
class Use:
    """What devices or the machine use at one moment, or on average. `note` says why power is not known."""

    used_bytes: int | None
    power_w: float | None = None
    note: str | None = None
    energy_j: float | None = None


@dataclass(frozen=True)
class Memory:
    """A way to measure the memory of the machine or of some devices. `read` raises UserError if it cannot."""

    kind: Literal["host", "device"]
    read: Callable[[], Sequence[Use]]

    def measure(self, duration_s: float | None = None) -> Use:
        """Return the median memory and the mean power in use over duration_s. Blocks.

        A card is measured for longer than a CPU: after work it takes some seconds to lower its clocks, and
        only then is it idle.
        """
        duration_s = _IDLE_S[self.kind] if duration_s is None else duration_s
        seen = []
        for _ in range(max(1, round(_IDLE_HZ * duration_s))):
            uses = self.read()
            seen.append((time.monotonic_ns(), uses))
            time.sleep(1.0 / _IDLE_HZ)
        used = [total(use.used_bytes for use in uses) for _, uses in seen]
        each = zip(*(uses for _, uses in seen), strict=True)
        power_w = total(_mean_power_w([t_ns for t_ns, _ in seen], uses) for uses in each)
        notes = dict.fromkeys(use.note for _, uses in seen for use in uses if use.note)
        note = "; ".join(notes) or "the energy counter of the CPU stood still"
        sizes = [size for size in used if size is not None]
        used_bytes = int(median(sizes)) if len(sizes) == len(used) else None
        return Use(used_bytes, power_w, None if power_w is not None else note)

    def wait(self, baseline_bytes: int, timeout_s: float) -> tuple[bool, int | None]:
        """Wait up to timeout_s until about the baseline is in use. Return whether it is, and the bytes."""
        deadline = time.monotonic() + timeout_s
        most_bytes = baseline_bytes + tolerance_bytes(baseline_bytes)
        with suppress(UserError):
            while (used_bytes := total(use.used_bytes for use in self.read())) is not None:
                if used_bytes <= most_bytes or time.monotonic() >= deadline:
                    return used_bytes <= most_bytes, used_bytes
                time.sleep(0.1)
        return False, None


def tolerance_bytes(baseline_bytes: int) -> int:
    """Return how far above its baseline memory may be and still count as back: 2 % or 128 MiB."""
    return max(128 << 20, int(0.02 * baseline_bytes))


def total(values: Iterable[Number | None]) -> Number | None:
    """Return the sum, or None if one of the values is not known."""
    numbers = list(values)
    present = [value for value in numbers if value is not None]
    return sum(present) if len(present) == len(numbers) else None


def _mean_power_w(instants_ns: Sequence[int], uses: Sequence[Use]) -> float | None:
    by_energy = mean_power_w(list(zip(instants_ns, (use.energy_j for use in uses), strict=True)))
    powers = [use.power_w for use in uses if use.power_w is not None]
    return mean(powers) if by_energy is None and len(powers) == len(uses) else by_energy
