"""Locust's master and worker as bench uses them: connection, heartbeats and live statistics.

Importing this imports Locust, which monkey-patches the standard library unless told not to. What is played,
when, and what is kept of it goes in messages of our own (messages.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import msgspec
from locust.env import Environment
from locust.exception import RPCError
from locust.runners import MasterRunner, WorkerRunner

from harness.load.messages import from_data, name_of, to_data

# How long a last message may take to leave, to a peer that may be gone.
_LINGER_MS = 2000
_log = logging.getLogger(__name__)


class Master(MasterRunner):  # type: ignore[misc] # Locust's types are not followed
    """Hears workers until it is closed; whatever they send, it goes on."""

    def client_listener(self) -> None:
        # Locust's own ends for ever at the first message that is not one.
        while True:
            try:
                client_id, message = self.server.recv_from_client()
                self.handle_message(client_id, message)
            except Exception as error:
                _log.warning(
                    "a message that is none of ours is left out: %s: %s", type(error).__name__, error
                )
                gevent.sleep(0.01)

    def close(self) -> None:
        """Stop listening, and end the connections once what was sent has left.

        At once, since who was let go may come back for the next cell, and must not find this master.
        """
        self.greenlet.kill(block=True)
        self.server.close(linger=_LINGER_MS)


class Worker(WorkerRunner):  # type: ignore[misc] # Locust's types are not followed
    """Runs users when it is told to by its own process; the connection outlives them."""

    def start(self, user_count: int, spawn_rate: float, wait: bool = False, user_classes: Any = None) -> None:
        self.start_worker({kind.__name__: user_count for kind in self.user_classes})

    def quit(self) -> None:
        self.stop()

    def close(self) -> None:
        """End the connection once what was sent has left."""
        self.greenlet.kill(block=True)
        self.client.close(linger=_LINGER_MS)


def make_master(host: str, port: int) -> Master:
    """Listen at an address of this machine. Raises OSError where that cannot be."""
    environment = Environment(user_classes=[])
    try:
        runner = Master(environment, _in_url(host), port)
    except SystemExit:  # how some versions of Locust say that the port is taken
        raise OSError("Address already in use") from None
    except RPCError as error:
        raise OSError(str(error).removeprefix("Socket bind failure: ")) from error
    environment.runner = runner
    return runner


def make_worker(host: str, port: int) -> Worker:
    """Connect to a master; blocks until it answers."""
    environment = Environment(user_classes=[])
    environment.runner = runner = Worker(environment, _in_url(host), port)
    # No limit: at one, Locust's `send` sleeps for seconds, and all streams of this process with it.
    runner.client.socket.sndhwm = 0
    return runner


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def hear(runner: Any, kinds: tuple[type, ...], listener: Callable[[str, Any], object]) -> None:
    """Call `listener(node, message)` with each message of these kinds; a malformed one is a line of log."""

    def handle(kind: type, node: str, data: Any) -> None:
        try:
            listener(node, from_data(kind, data))
        except (msgspec.MsgspecError, ValueError) as error:
            _log.warning("a message of %s is left out: %s: %s", node, kind.__name__, error)

    def register(kind: type) -> None:
        runner.register_message(name_of(kind), lambda environment, msg: handle(kind, msg.node_id, msg.data))

    for kind in kinds:
        register(kind)


def send(runner: Any, message: Any, node: str | None = None) -> None:
    """To the master, or to one worker."""
    runner.send_message(name_of(type(message)), to_data(message), node)
