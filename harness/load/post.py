"""A worker's end of the connection to its master: what was said, and whether anybody is still there.

Knows no connection: `hear` is called with messages, and `send` takes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from harness.errors import LoadError
from harness.load.messages import SILENT_S, Close, End, Go, Ping, Play, Pong, Refused
from harness.load.traffic import Traffic


class MasterGoneError(LoadError):
    """The connection's other end said nothing more."""


class CalledOff(BaseException):
    """A signal, here or at the master, came before the load began."""


class Post:
    """A worker's end of the connection: what its master has said, and what is answered at once.

    `traffic` is what is being played; `send` does nothing until there is a connection.
    """

    def __init__(self) -> None:
        self.send: Callable[[Any], object] = lambda message: None
        self.news = Event()
        self.heard_now()
        self.refused: Refused | None = None
        self.play: Play | None = None
        self.go: Go | None = None
        self.has_ended = False
        self.is_interrupted = False
        self.is_signalled = False
        self.traffic: Traffic | None = None

    def heard_now(self) -> None:
        """The master has given a sign of life."""
        self.heard_ns = time.monotonic_ns()

    @property
    def is_master_gone(self) -> bool:
        return time.monotonic_ns() - self.heard_ns > SILENT_S * 1e9

    def hear(self, _node: str, message: Any) -> None:
        at_ns = time.monotonic_ns()
        self.heard_ns = at_ns
        match message:
            case Ping():
                self.send(Pong(message.number, at_ns))
            case Play():
                self.play = message
            case Go():
                self.go = message
            case Refused():
                self.refused = message
            case End():
                self.has_ended = True
            case Close(ended_by="failures") if self.traffic:
                self.traffic.close("failures")
            case Close():
                self.interrupt()
        self.news.set()

    def signal(self) -> None:
        """A signal of this process."""
        self.is_signalled = True
        self.interrupt()

    def interrupt(self) -> None:
        """End what is played with what there is, and begin nothing."""
        self.is_interrupted = True
        if self.traffic:
            self.traffic.interrupt()
        self.news.set()

    def wait(self, condition: Callable[[], object], *, while_interrupted: bool = False) -> None:
        """Block until it holds. Raises MasterGoneError, and CalledOff unless told to wait on."""
        while not condition():
            if self.is_interrupted and not while_interrupted:
                raise CalledOff
            if self.is_master_gone:
                raise MasterGoneError(f"the master was not heard of for {SILENT_S:g} s")
            self.news.wait(0.1)
            self.news.clear()
