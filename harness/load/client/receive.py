"""Read sockets and stamp what arrives, by the kernel if it can. Creates no lasting objects."""

import platform
import socket as names
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, Self

from gevent import get_hub, monkey

from serving_bench.harness.load.client.clock import ClockMap, LagHistogram

# asm-generic/socket.h; Python's socket module does not name it. Other architectures use another number.
SO_TIMESTAMPNS = 35
_ANCILLARY_BYTES = 64
READ_BYTES = 65536
STAMPS_BEGIN_MS = 1000

# The loop waits a little before the next reads if the last round brought fewer than ENOUGH_READS: with 256
# streams of 100 tokens/s that halves the CPU time per token. It waits GATHER_SHARE of the mean time between
# two segments of a stream, at most GATHER_S, so that two of them do not meet in the kernel.
GATHER_S = 0.0005
GATHER_SHARE = 0.1
LEAST_GATHER_S = 0.00005  # the sleep itself takes as long
ENOUGH_READS = 16
PACE_PERIOD_NS = 20_000_000

Take = Callable[[bytes, int, bytes | memoryview], bool]


def plain_socket(family: int, kind: int) -> Any:
    """Return a non-blocking socket of the standard library, even if gevent has replaced the module's."""
    socket = monkey.get_original("socket", "socket")(family, kind)
    socket.setblocking(False)
    return socket


def has_kernel_stamps() -> bool:
    """Return whether SO_TIMESTAMPNS is known to be 35 and to carry two longs of 64 bits."""
    is_known = platform.machine().startswith(("x86_64", "aarch64")) and sys.maxsize > 1 << 32
    return sys.platform == "linux" and is_known


def _nothing() -> None:
    pass


class Receiver:
    """Reads for all connections of a process, and counts the reads that the kernel did not stamp.

    `streams`: how many responses are awaited or under way. `lag`: from the kernel's stamp to the reading.
    """

    def __init__(self, use_kernel: bool = True) -> None:
        self.clock = ClockMap()
        self.lag = LagHistogram()
        self.reads = 0
        self.unstamped_reads = 0
        self._use_kernel = use_kernel and has_kernel_stamps()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._keeper = plain_socket(names.AF_INET, names.SOCK_DGRAM)
        self.ask_for_stamps(self._keeper)
        self.streams = 0
        self._reads_before = 0
        self._pace_ns, self._pace_reads, self._gather_s = time.monotonic_ns(), 0, 0.0
        self._sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
        self._ended: deque[Callable[[], object]] = deque()
        loop = get_hub().loop
        self._idle = loop.idle(ref=False)
        self._prepare = loop.prepare(ref=False)
        self._prepare.start(self._before_waiting)
        self._await_stamps()

    def ask_for_stamps(self, socket: Any) -> None:
        if not self._use_kernel:
            return
        try:
            socket.setsockopt(names.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError:
            self._use_kernel = False

    def _await_stamps(self) -> None:
        """Wait until the kernel stamps: it begins some time after the first socket asked for stamps."""
        self._keeper.bind(("127.0.0.1", 0))
        for _ in range(STAMPS_BEGIN_MS if self._use_kernel else 0):
            self._keeper.sendto(b".", self._keeper.getsockname())
            self._sleep(0.001)
            with suppress(BlockingIOError):  # still on its way
                if self._keeper.recvmsg_into([self._buffer], _ANCILLARY_BYTES)[1]:
                    return

    @property
    def stamp_source(self) -> Literal["kernel", "read"]:
        return "kernel" if self._use_kernel and not self.unstamped_reads else "read"

    def reader(self, socket: Any, take: Take, end: Callable[..., object]) -> Callable[[], None]:
        """Return a watcher's callback, which reads once and passes what it got to `take`.

        `take` gets the kernel's stamp or nothing, the instant of the reading, and the bytes, which are valid
        until the next read and empty at the stream's end. `end` is called when `take` returns True, and with
        sys.exc_info() if anything raises, which gevent's hub would only print. The kernel joins waiting
        segments and keeps the youngest's stamp (tcp_try_coalesce), so smaller reads gain nothing.
        """
        # One function, for it runs once per token.
        recvmsg_into, view, buffers = socket.recvmsg_into, self._view, [self._buffer]
        monotonic_ns = time.monotonic_ns

        def on_readable() -> None:
            try:
                length, ancillary, _, _ = recvmsg_into(buffers, _ANCILLARY_BYTES)
                self.reads += 1
                if take(ancillary[0][2] if ancillary else b"", monotonic_ns(), view[:length]):
                    end()
            except BlockingIOError:
                pass
            except BaseException:
                end(*sys.exc_info())

        return on_readable

    def read(self, socket: Any) -> memoryview:
        """Return the waiting bytes, valid until the next read. Raises OSError, also BlockingIOError."""
        return self._view[: socket.recv_into(self._buffer)]

    def arrivals_ns(self, stamps_ns: Sequence[int], read_ns: Sequence[int]) -> list[int]:
        """Return the instants of reads, by the kernel's stamps (zero: none) if it stamped all of them."""
        if not self._use_kernel:
            return list(read_ns)
        if unstamped := stamps_ns.count(0):
            self.unstamped_reads += unstamped
            return list(read_ns)
        instants, lags = self.clock.all_to_monotonic_ns(stamps_ns, read_ns)
        self.lag.sample(lags)
        return instants

    def end(self, wake: Callable[[], object]) -> None:
        """Make the hub call `wake` soon, one for each round of the loop.

        The work at a response's end takes long. If many ended at once, segments of the others would wait in
        the kernel, which keeps only one stamp for them.
        """
        self._ended.append(wake)
        self._idle.start(_nothing)  # so that the loop goes on without waiting for events

    def _before_waiting(self) -> None:
        if self._ended:
            wake = self._ended.popleft()
            if not self._ended:
                self._idle.stop()
            wake()
            return
        brought = self.reads - self._reads_before
        self._reads_before = self.reads
        now_ns = time.monotonic_ns()
        if now_ns - self._pace_ns > PACE_PERIOD_NS:
            self._gather_s = self._gathering_s(now_ns)
        if 0 < brought < ENOUGH_READS and self._gather_s:
            self._sleep(self._gather_s)

    def _gathering_s(self, now_ns: int) -> float:
        """Return how long to gather, by the pace of the latest reads; 0 if it is not worth it."""
        period_s, reads = (now_ns - self._pace_ns) / 1e9, self.reads - self._pace_reads
        self._pace_ns, self._pace_reads = now_ns, self.reads
        # Without the kernel's stamps, gathering would make ours late. And few reads cost little anyway.
        if not self._use_kernel or reads * GATHER_S < period_s / 2:
            return 0.0
        gather_s = min(GATHER_S, GATHER_SHARE * self.streams * period_s / reads)
        return gather_s if gather_s >= LEAST_GATHER_S else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for watcher in (self._prepare, self._idle):
            watcher.stop()
            watcher.close()
        self._keeper.close()
