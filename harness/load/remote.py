"""A load process of several: `python -m harness.load.remote HOST:PORT` plays its share of one cell.

It waits for a master to listen there, does what it says, sends it every row, and exits when all has arrived:
0 played, 1 or 2 could not be played, 3 this cell has its workers, 4 the master will never want this one, 130
ended by a signal. What a person wants to see goes to stdout, a line each; the rest to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
import os
import socket as names
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket

from harness import watchdog
from harness.errors import BenchError, UserError
from harness.load import signals
from harness.load.address import Address, parse_address
from harness.load.messages import FROM_MASTER, INTERRUPTED, NEVER_NEEDED, NOT_NEEDED, Failed, Hello
from harness.load.post import CalledOff, MasterGoneError, Post
from harness.load.process import die_with, prepare_locust, raise_file_limit, take_stdout, write_unless_full

# How often to look whether a master listens: at first as one is being started, then as one will be.
_LOOK_S, _LOOK_LATER_S, _FIRST_LOOKS_S = 0.02, 0.5, 5.0
_LEFT = "it was interrupted before the load began"
_log = logging.getLogger(__name__)


def serve(address: Address, key_env: str, tell: Callable[[str], None]) -> int:
    """Play one cell for the master at an address, once there is one; the exit code."""
    # What imports Locust: now, so that all is there when a master comes.
    importlib.import_module("harness.load.share")
    post = Post()
    with signals.interrupts(post.signal):
        try:
            _wait_for_master(address, post, tell)
            return _with_master(address, key_env, post, tell)
        except CalledOff:
            return INTERRUPTED if post.is_signalled else NOT_NEEDED
        except BenchError as error:
            tell(str(error))
            return NEVER_NEEDED if isinstance(error, UserError) else error.exit_code


def _wait_for_master(address: Address, post: Post, tell: Callable[[str], None]) -> None:
    began_s = time.monotonic()
    has_told = False
    while True:
        if post.is_interrupted:
            raise CalledOff
        try:
            socket.create_connection((address.host, address.port), timeout=2.0).close()
            return
        except names.gaierror as error:
            raise UserError(f"--master {address}: {error.strerror}") from error
        except OSError:
            is_later = time.monotonic() - began_s > _FIRST_LOOKS_S
        if not has_told and time.monotonic() - began_s > _LOOK_LATER_S:
            has_told = True
            tell(f"waiting for a run at {address}")
        gevent.sleep(_LOOK_LATER_S if is_later else _LOOK_S)


def _with_master(address: Address, key_env: str, post: Post, tell: Callable[[str], None]) -> int:
    """Connect, play, and stay until the master has all."""
    from harness.load import runners

    connecting = gevent.spawn(runners.make_worker, address.host, address.port)
    connecting.rawlink(lambda _: post.news.set())
    post.heard_now()
    post.wait(connecting.ready)
    runner = connecting.get()
    post.send = lambda message: runners.send(runner, message)
    try:
        runners.hear(runner, FROM_MASTER, post.hear)
        runner.environment.events.heartbeat_received.add_listener(lambda **_: post.heard_now())
        post.heard_now()
        post.send(Hello(_version(), names.gethostname(), os.getpid(), watchdog.boot_id()))
        try:
            post.wait(lambda: post.play or post.refused or post.has_ended)
        except CalledOff:
            post.send(Failed(_LEFT, INTERRUPTED))
            raise
        if post.refused:
            tell(post.refused.line)
            return NEVER_NEEDED if post.refused.is_final else NOT_NEEDED
        if not post.play:
            return NOT_NEEDED
        return _answer(post, runner, key_env, tell)
    finally:
        runner.close()


def _version() -> str:
    return importlib.metadata.version("serving-bench")


def _answer(post: Post, runner: Any, key_env: str, tell: Callable[[str], None]) -> int:
    """Play the job that was given, or say why not; the exit code."""
    from harness.load.share import play_share

    code = 0
    try:
        play_share(post, runner, key_env, tell)
    except MasterGoneError:
        raise
    except CalledOff:
        code = NOT_NEEDED
        post.send(Failed(_LEFT, INTERRUPTED))
    except BenchError as error:
        code = error.exit_code
        tell(str(error))
        post.send(Failed(str(error), code))
    except Exception as error:
        code = 1
        _log.error("the job cannot be played", exc_info=error)
        line = f"{type(error).__name__}: {error}"
        tell(line)
        post.send(Failed(line, code))
    post.wait(lambda: post.has_ended, while_interrupted=True)
    return INTERRUPTED if post.is_signalled else code


def main(argv: list[str]) -> int:
    """Serve one cell; the exit code. Takes stdout."""
    signals.hold()
    said_fd = take_stdout()
    parser = argparse.ArgumentParser(prog="python -m harness.load.remote")
    parser.add_argument("master", metavar="HOST:PORT")
    parser.add_argument("--api-key-env", default="OPENAI_API_KEY")
    parser.add_argument("--parent", type=int, help="process to die with")
    options = parser.parse_args(argv[1:])
    if options.parent:
        die_with(options.parent)
    raise_file_limit()
    prepare_locust()
    address = parse_address("--master", options.master)
    return serve(address, options.api_key_env, lambda line: write_unless_full(said_fd, f"{line}\n".encode()))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
