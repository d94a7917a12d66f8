"""Plays one worker's share of a job, told by its master when to begin, and sends it all that comes of it."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import gevent
import msgspec

from harness.contracts import LoadJob, LoadSummary
from harness.errors import UserError
from harness.limits import check_share_files
from harness.load.client import endpoint
from harness.load.courier import Courier
from harness.load.lag import gc_pauses
from harness.load.messages import SILENT_S, Closed, Done, Ready, State
from harness.load.play import play
from harness.load.post import Post
from harness.load.pulse import Pulse
from harness.load.receive import Receiver
from harness.load.traffic import Outlet, Traffic
from harness.load.users import user_class
from harness.load.worker import with_parts

_log = logging.getLogger(__name__)


def play_share(post: Post, runner: Any, key_env: str, tell: Callable[[str], None]) -> None:
    """Play the job that `post` was given, from ready to the last row sent.

    Raises UserError where this process may not open the files that it takes, CalledOff before the load began,
    MasterGoneError, and whatever the scenario or our own code raises; the rows so far are sent then too.
    """
    assert post.play
    number = post.play.worker
    job, scenario, engine = with_parts(msgspec.json.decode(post.play.job, type=LoadJob))
    target = endpoint(job.base_url, _key(job, key_env))
    check_share_files(job.load, number)
    courier = Courier(post.send)
    with Receiver() as receiver:
        traffic = Traffic(job, scenario, engine, Outlet(courier.begun, courier.row), worker=number)
        runner.environment.user_classes = [user_class(traffic, target, receiver)]
        post.traffic = traffic
        greenlets = [gevent.spawn(_tell_closed, post, traffic), gevent.spawn(_watch_master, post)]
        tell(f"cell {job.cell}: load worker {number + 1} of {job.load.workers}, {job.load.label}")
        try:
            summary = _play_from_go(post, runner, traffic, receiver)
        finally:
            post.traffic = None
            gevent.killall(greenlets)
            courier.flush()
    post.send(Done(msgspec.json.encode(summary), courier.begun_lines, courier.row_lines))
    failed = f", {traffic.failed} failed" if traffic.failed else ""
    tell(f"cell {job.cell}: {summary.requests} requests{failed}")


def _key(job: LoadJob, key_env: str) -> str | None:
    """The API key. Only the variable that this worker's own user named may leave this machine."""
    if job.api_key_env != key_env:
        raise UserError(
            f"the run reads its API key from {job.api_key_env}, this worker from {key_env}; "
            f"start it with --api-key-env {job.api_key_env}"
        )
    return os.environ.get(key_env)


def _play_from_go(post: Post, runner: Any, traffic: Traffic, receiver: Receiver) -> LoadSummary:
    gc.collect()
    gc.freeze()  # `play` does it again, which then takes no time between Go and the start
    began_cpu_s = time.process_time()
    with gc_pauses() as pauses:

        def report(pulse: Pulse) -> None:
            post.send(_state(pulse, receiver, time.process_time() - began_cpu_s, pauses.total_s))

        report(Pulse())
        post.send(Ready())
        post.wait(lambda: post.go)
        assert post.go
        return play(traffic, receiver, runner, report, post.go.start_ns)


def _state(pulse: Pulse, receiver: Receiver, cpu_s: float, gc_pause_s: float) -> State:
    is_kernel = receiver.stamp_source == "kernel"
    return State(
        pulse=pulse,
        stamp_source=receiver.stamp_source,
        clock_uncertainty_ns=receiver.clock.uncertainty_ns if is_kernel else None,
        cpu_s=cpu_s,
        gc_pause_s=gc_pause_s,
    )


def _tell_closed(post: Post, traffic: Traffic) -> None:
    traffic.closed.wait()
    if traffic.ended_by:
        post.send(Closed(traffic.ended_by))


def _watch_master(post: Post) -> None:
    """End the load where the master is gone: nobody would take its rows."""
    while not post.is_master_gone:
        gevent.sleep(1)
    _log.error("the master was not heard of for %g s: the load is ended", SILENT_S)
    post.interrupt()
