"""Reads sockets and stamps what arrives: with the kernel's receive time where there is one.

Runs in gevent's hub while streams run, so it makes no objects that last. Knows no HTTP.
"""

from __future__ import annotations

import platform
import socket as names
import ssl
import struct
import sys
import time
from types import TracebackType
from typing import Any, Literal, Self

from gevent import monkey

from harness.load.clock import ClockMap
from harness.load.lag import LagHistogram

# asm-generic/socket.h; Python's socket module does not name it. Other architectures use another number.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = 64
READ_BYTES = 65536


def plain_socket(family: int, kind: int) -> Any:
    """A non-blocking socket of the standard library's, also where gevent has replaced the module's."""
    socket = monkey.get_original("socket", "socket")(family, kind)
    socket.setblocking(False)
    return socket


def has_kernel_stamps() -> bool:
    """True where SO_TIMESTAMPNS is known to be 35 and to carry two longs."""
    return sys.platform == "linux" and platform.machine().startswith(("x86_64", "i686", "aarch64", "arm"))


class Receiver:
    """Reads for all connections of a process; counts the reads that the kernel did not stamp.

    `lag`: from the kernel's stamp to the moment at which we read the bytes.
    """

    def __init__(self, use_kernel: bool = True) -> None:
        self.clock = ClockMap()
        self.lag = LagHistogram()
        self.stamped_reads = 0
        self.unstamped_reads = 0
        self._use_kernel = use_kernel and has_kernel_stamps()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        # The kernel starts to stamp some time after the first socket asks for it: one that asks all the time.
        self._keeper = plain_socket(names.AF_INET, names.SOCK_DGRAM)
        self.ask_for_stamps(self._keeper)

    def ask_for_stamps(self, socket: Any) -> None:
        """Have the kernel stamp what `socket` receives, where it can."""
        if not self._use_kernel:
            return
        try:
            socket.setsockopt(names.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError:
            self._use_kernel = False

    @property
    def stamp_source(self) -> Literal["kernel", "read"]:
        """`kernel` only if every read was stamped by it."""
        return "kernel" if self._use_kernel and not self.unstamped_reads else "read"

    def read(self, socket: Any) -> tuple[int, memoryview]:
        """What is there and when it arrived; empty at the end of the stream.

        The view is good until the next read. One stamp per read: the last segment's. Raises
        BlockingIOError if nothing is there.
        """
        length, ancillary, _, _ = socket.recvmsg_into([self._buffer], _ANCILLARY_BYTES)
        now_ns = time.monotonic_ns()
        if not length:
            return now_ns, self._view[:0]
        for level, kind, data in ancillary:
            if level == names.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
                seconds, rest_ns = _TIMESPEC.unpack(data)
                arrival_ns = self.clock.to_monotonic_ns(seconds * 1_000_000_000 + rest_ns, now_ns)
                self.lag.add(now_ns - arrival_ns)
                self.stamped_reads += 1
                return arrival_ns, self._view[:length]
        self.unstamped_reads += 1
        return now_ns, self._view[:length]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.close()


class TlsRecords:
    """TLS over bytes that somebody else moves, so that the kernel's stamps survive it."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def shake_hands(self) -> bool:
        """True once done; else send `outgoing`, feed what comes, and call again. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: memoryview) -> None:
        self._incoming.write(data)

    def outgoing(self) -> bytes:
        return self._outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self) -> tuple[bytes, bool]:
        """All that the fed records hold, and whether the peer has said that it ends."""
        plain = bytearray()
        while True:
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                return bytes(plain), False
            except ssl.SSLZeroReturnError:
                return bytes(plain), True
            if not data:
                return bytes(plain), True
            plain += data
