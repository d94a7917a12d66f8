"""Play one job's load in this process, users over ramps, warm-up, window and drain, and sum it up.

It knows neither where rows go nor who started this process.
"""

import gc
import logging
import os
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

import gevent

from harness.contracts import Load, LoadSummary, WorkerSummary
from harness.load.client.clock import LagHistogram, gc_pauses, loop_lag
from harness.load.client.http import Endpoint
from harness.load.client.receive import Receiver
from harness.load.limits import OTHER_FILES
from harness.load.play import arrivals
from harness.load.play.openloop import OpenLoop
from harness.load.play.traffic import Traffic
from harness.load.process import prepare_locust
from harness.load.pulse import Pulse

# How long a user may take to write its row and end, once its request has.
LAST_ROW_S = 5.0
# Open loop: one keeps watch, one is idle; then some more whenever none is.
FIRST_USERS = 2
MOST_USERS_AT_ONCE = 8

OnProgress = Callable[[Pulse], None]


def play(
    traffic: Traffic, receiver: Receiver, runner: Any, on_progress: OnProgress, start_ns: int | None = None
) -> LoadSummary:
    """Play the traffic's load and block until its last request has ended.

    A request of the window may run to its own timeout. `runner` is a Locust runner whose users are
    `user_class(traffic, target, receiver)`. `on_progress` hears once a second how far it is. `start_ns`: when
    to begin, so that all workers of a cell do at once (None: now). Raises what the scenario or our own code
    raised in a user.
    """
    gc.collect()
    gc.freeze()
    began_cpu_s = time.process_time()
    with gc_pauses() as pauses_s, loop_lag() as lag:
        started_ns = _play(traffic, runner, receiver, lag, on_progress, start_ns)
    if traffic.failure:
        raise traffic.failure
    worker = _of_this_process(traffic, receiver, lag, pauses_s, time.process_time() - began_cpu_s)
    return _summary(traffic, worker, started_ns)


def _play(
    traffic: Traffic,
    runner: Any,
    receiver: Receiver,
    lag: LagHistogram,
    on_progress: OnProgress,
    start_ns: int | None,
) -> int:
    """Run Locust's users over all phases of the cell. Returns the instant at which it started."""
    load = traffic.job.load
    name = runner.environment.user_classes[0].__name__
    # Users are made before the start, and wait for their instants: making thousands takes a while.
    runner.spawn_users({name: FIRST_USERS if traffic.open_loop else _users(traffic)})
    started_ns = start_ns or time.monotonic_ns()
    traffic.start(started_ns)
    with ExitStack() as stack:
        stack.callback(traffic.alarm.close)
        stack.callback(runner.quit)
        stack.callback(gevent.spawn(_report_progress, traffic, receiver, lag, on_progress).kill)
        if traffic.open_loop:
            stack.callback(gevent.spawn(_add_users, traffic, traffic.open_loop, runner, name).kill)
        _wait_for_the_end(traffic)
        gevent.joinall(traffic.users, timeout=drain_limit_s(load))
        traffic.cancel()
        gevent.joinall(traffic.users, timeout=LAST_ROW_S)
    return started_ns


def _users(traffic: Traffic) -> int:
    load = traffic.job.load
    return arrivals.share(load.concurrency or 0, load.workers, traffic.worker)


def _wait_for_the_end(traffic: Traffic) -> None:
    """Block until no request is to begin any more."""
    load, window = traffic.job.load, traffic.window
    if load.duration_s is not None:
        end_ns = _end_of_last_step(traffic, load.duration_s)
        traffic.end_window("duration", end_ns)
        if window.ended_by == "duration":
            traffic.wait_until(end_ns + int(load.ramp_down_s * 1e9))
            traffic.close("duration")
    traffic.closed.wait()


def _end_of_last_step(traffic: Traffic, step_s: float) -> int:
    """Block until the window ends by its duration, or something else has ended it. Returns that instant."""
    for step in count(1):
        end_ns = traffic.window.start_ns + int(step * step_s * 1e9)
        if not traffic.wait_until(end_ns) or not traffic.goes_on_after(step):
            break
    return end_ns


def _left_out(traffic: Traffic) -> int:
    """Return how many conversations were due before the window's end and never began, and log it."""
    if traffic.open_loop is None or traffic.window.end_ns is None:
        return 0
    missing = traffic.open_loop.left_out(traffic.window.end_ns)
    if missing:
        logging.getLogger(__name__).warning(
            "%d conversations were due before the window's end and never began", missing
        )
    return missing


def _add_users(traffic: Traffic, open_loop: OpenLoop, runner: Any, name: str) -> None:
    """Make a user, or a few at once, whenever nobody is idle, up to as many as there can be connections."""
    users, limit = FIRST_USERS, most_users()
    while True:
        open_loop.wanted.wait()
        open_loop.wanted.clear()
        if traffic.closed.is_set():
            return
        # Locust looks at all users to make one: making several at once keeps that small.
        more = min(1 + users // 8, MOST_USERS_AT_ONCE, limit - users)
        if more > 0:
            runner.spawn_users({name: more})
            users += more
        elif more == 0:
            limit -= 1  # so that it is said once
            logging.getLogger(__name__).warning(
                "all %d users that this process has file descriptors for (ulimit -n) are in use: "
                "conversations now wait for one, and are late",
                users,
            )


def most_users() -> int:
    """Return how many users can have a connection at once in this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(FIRST_USERS, (2**31 if soft == resource.RLIM_INFINITY else soft) - OTHER_FILES)


def drain_limit_s(load: Load) -> float:
    """Return the seconds after the last send in which each request has ended by itself, or by its timeout.

    Ending it earlier would make a slow answer look like a failure of the server's.
    """
    return load.timeout_s + LAST_ROW_S


def _report_progress(
    traffic: Traffic, receiver: Receiver, lag: LagHistogram, on_progress: OnProgress
) -> None:
    while True:
        gevent.sleep(1)
        receiver.clock.refresh()
        if traffic.board.is_stopped:  # what this one would measure alone is not the load
            traffic.close("failures")
        try:
            on_progress(pulse_of(traffic, lag, time.monotonic_ns()))
        except OSError:
            # Nobody listens any more: who started this process is gone.
            traffic.interrupt()
            return


def pulse_of(traffic: Traffic, lag: LagHistogram, now_ns: int) -> Pulse:
    """Return how far a traffic that has started is. It takes less than a millisecond, whatever the load."""
    assert traffic.started_ns is not None
    late_s = lag.summary_s()
    return Pulse(
        t_s=round((now_ns - traffic.started_ns) / 1e9, 1),
        requests=traffic.ok,
        failed=traffic.failed,
        in_flight=traffic.in_flight,
        phase=_phase(traffic, now_ns),
        failures=dict(traffic.failures),
        recent=traffic.recent.stretch(traffic.started_ns, now_ns),
        loop_lag_s=late_s[1] if late_s else None,
    )


def _phase(traffic: Traffic, now_ns: int) -> str:
    if traffic.closed.is_set():
        return "drain"
    window = traffic.window
    if window.ended_by:
        return "ramp-down" if window.ended_by == "duration" else "drain"
    if now_ns >= window.start_ns:
        return "window"
    is_warm_up = now_ns >= window.start_ns - int(traffic.job.load.warmup_s * 1e9)
    return "warmup" if is_warm_up else "ramp-up"


def local_runner(traffic: Traffic, target: Endpoint, receiver: Receiver) -> Any:
    """Return a Locust runner of this process alone."""
    prepare_locust()
    from locust.env import Environment

    from harness.load.play.users import user_class

    environment = Environment(user_classes=[user_class(traffic, target, receiver)])
    return environment.create_local_runner()


def _summary(traffic: Traffic, worker: WorkerSummary, started_ns: int) -> LoadSummary:
    return LoadSummary(
        started_ns=started_ns,
        window_start_ns=traffic.window.start_ns,
        window_end_ns=traffic.window.end_ns or traffic.window.start_ns,
        ended_ns=time.monotonic_ns(),
        ended_by=traffic.window.ended_by or "interrupted",
        users=traffic.open_loop.most_users if traffic.open_loop else _users(traffic),
        conversations_begun=traffic.conversations_begun,
        requests=traffic.ok + traffic.failed,
        stamp_source=worker.stamp_source,
        clock_uncertainty_ns=worker.clock_uncertainty_ns,
        stamp_lag_s=worker.stamp_lag_s,
        loop_lag_s=worker.loop_lag_s,
        cpu_s=worker.cpu_s,
        gc_pause_s=worker.gc_pause_s,
        workers=(worker,),
        left_out=_left_out(traffic),
        cut_conversations=traffic.cut_conversations,
        cut_turns=traffic.cut_turns,
    )


def _of_this_process(
    traffic: Traffic, receiver: Receiver, lag: LagHistogram, pauses_s: list[float], cpu_s: float
) -> WorkerSummary:
    is_kernel = receiver.stamp_source == "kernel"
    return WorkerSummary(
        number=traffic.worker,
        pid=os.getpid(),
        requests=traffic.ok + traffic.failed,
        stamp_source=receiver.stamp_source,
        clock_uncertainty_ns=receiver.clock.uncertainty_ns if is_kernel else None,
        stamp_lag_s=receiver.lag.summary_s() if is_kernel else None,
        loop_lag_s=lag.summary_s(),
        cpu_s=cpu_s,
        gc_pause_s=sum(pauses_s),
    )
