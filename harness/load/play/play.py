"""Play one job's load in this process: start users, go through ramps, warm-up, window, drain; sum up."""

import gc
import logging
import os
import select
import time
from contextlib import ExitStack
from itertools import count
from typing import Any

import gevent
import msgspec

from serving_bench.harness.contracts import Load, LoadSummary, WorkerSummary
from serving_bench.harness.load.client.clock import LagHistogram, LoopLag, gc_pauses, loop_lag
from serving_bench.harness.load.client.receive import Receiver
from serving_bench.harness.load.limits import OTHER_FILES, raise_file_limit
from serving_bench.harness.load.play import arrivals
from serving_bench.harness.load.play.traffic import Traffic
from serving_bench.harness.load.play.waits import OpenLoop
from serving_bench.harness.load.pulse import Progress

# How long a user may take to write its row and end after its request has ended.
LAST_ROW_S = 5.0
# An open loop begins with one user that watches for the next conversation, and an idle one. Whenever none is
# idle, more are added.
FIRST_USERS = 2
MOST_USERS_AT_ONCE = 8

_log = logging.getLogger(__name__)


def play(
    traffic: Traffic,
    receiver: Receiver,
    runner: Any,
    progress_fd: int,
    start_ns: int | None,
) -> LoadSummary:
    """Play the traffic's load from `start_ns` on (None: now) and block until its last request has ended.

    Writes its progress to progress_fd. `runner` is a Locust runner of users `user_class(traffic, target,
    receiver)`. Raises what the scenario or our own code raised in a user.
    """
    load, open_loop = traffic.job.load, traffic.open_loop
    users = FIRST_USERS if open_loop else arrivals.share(load.concurrency or 0, load.workers, traffic.worker)
    name = runner.environment.user_classes[0].__name__
    gc.collect()
    gc.freeze()
    began_cpu_s = time.process_time()
    with gc_pauses() as pauses_s, ExitStack() as stack:
        # Users are made before the start, and wait for their instants: making thousands takes a while.
        runner.spawn_users({name: users})
        started_ns = start_ns or time.monotonic_ns()
        lag = stack.enter_context(loop_lag(started_ns))
        traffic.start(started_ns)
        stack.callback(traffic.alarm.close)
        stack.callback(runner.quit)
        stack.callback(gevent.spawn(_report_progress, traffic, receiver, lag, progress_fd).kill)
        if open_loop:
            stack.callback(gevent.spawn(_add_users, traffic, open_loop, runner, name).kill)
        _wait_for_the_end(traffic)
        gevent.joinall(traffic.users, timeout=drain_limit_s(load))
        traffic.cancel()
        gevent.joinall(traffic.users, timeout=LAST_ROW_S)
    if traffic.failure:
        raise traffic.failure
    used: dict[str, Any] = {"cpu_s": time.process_time() - began_cpu_s, "gc_pause_s": sum(pauses_s)}
    return _summary(traffic, receiver, lag, started_ns, open_loop.most_users if open_loop else users, used)


def _summary(
    traffic: Traffic, receiver: Receiver, lag: LoopLag, started_ns: int, users: int, used: dict[str, Any]
) -> LoadSummary:
    """Return what this process reports about the cell and itself. `used`: its CPU and collector time."""
    window, open_loop, is_kernel = traffic.window, traffic.open_loop, receiver.stamp_source == "kernel"
    window_end_ns = window.end_ns or window.start_ns
    own_loads = {
        "requests": traffic.ok + traffic.failed,
        "stamp_source": receiver.stamp_source,
        "clock_uncertainty_ns": receiver.clock.uncertainty_ns if is_kernel else None,
        "stamp_lag_s": receiver.lag.summary_s() if is_kernel else None,
        "loop_lag_s": lag.summary_s(),
        "stalled_s": lag.stalled_s(window.start_ns, window_end_ns),
        **used,
    }
    left_out = open_loop.left_out(window_end_ns) if open_loop else 0
    if left_out:
        _log.warning("%d conversations were due before the window's end and never began", left_out)
    return LoadSummary(
        started_ns=started_ns,
        window_start_ns=window.start_ns,
        window_end_ns=window_end_ns,
        ended_ns=time.monotonic_ns(),
        ended_by=window.ended_by or "interrupted",
        users=users,
        conversations_begun=traffic.conversations_begun,
        workers=(WorkerSummary(number=traffic.worker, pid=os.getpid(), **own_loads),),
        left_out=left_out,
        cut_conversations=traffic.cut_conversations,
        cut_turns=traffic.cut_turns,
        **own_loads,
    )


def _wait_for_the_end(traffic: Traffic) -> None:
    load, window = traffic.job.load, traffic.window
    if load.duration_s is not None:
        for step in count(1):
            end_ns = window.start_ns + int(step * load.duration_s * 1e9)
            if not traffic.wait_until(end_ns) or not traffic.goes_on_after(step):
                break
        traffic.end_window("duration", end_ns)
        if window.ended_by == "duration":
            traffic.wait_until(end_ns + int(load.ramp_down_s * 1e9))
            traffic.close("duration")
    traffic.closed.wait()


def _add_users(traffic: Traffic, open_loop: OpenLoop, runner: Any, name: str) -> None:
    users, limit = FIRST_USERS, max(FIRST_USERS, (raise_file_limit() - OTHER_FILES) // traffic.width)
    while True:
        open_loop.wanted.wait()
        open_loop.wanted.clear()
        if traffic.closed.is_set():
            return
        # Locust goes through all users to make one, so make several at once.
        more = min(1 + users // 8, MOST_USERS_AT_ONCE, limit - users)
        if more > 0:
            runner.spawn_users({name: more})
            users += more
        elif more == 0:
            limit -= 1  # so that it is said once
            _log.warning(
                "all %d users that this process has file descriptors for (ulimit -n) are in use: "
                "conversations now wait for one, and are late",
                users,
            )


def drain_limit_s(load: Load) -> float:
    """Return within how many seconds of the last send every request has ended, if only by its timeout."""
    return load.timeout_s + LAST_ROW_S


def report(progress: Progress, progress_fd: int) -> None:
    """Write the progress as a JSON line. Raises OSError if nobody can read it any more."""
    # Drop the line rather than hold up every stream while nobody reads.
    if select.select([], [progress_fd], [], 0)[1]:
        os.write(progress_fd, msgspec.json.encode(progress) + b"\n")


def _report_progress(traffic: Traffic, receiver: Receiver, lag: LagHistogram, progress_fd: int) -> None:
    while True:
        gevent.sleep(1)
        receiver.clock.refresh()
        if traffic.board.is_stopped:  # another worker gave up: the rest is not the whole load
            traffic.close("failures")
        try:
            report(_pulse(traffic, lag, time.monotonic_ns()), progress_fd)
        except OSError:
            # Nobody listens any more: the parent process is gone.
            traffic.interrupt()
            return


def _pulse(traffic: Traffic, lag: LagHistogram, now_ns: int) -> Progress:
    started_ns, late_s = traffic.window.cell_start_ns or now_ns, lag.summary_s()
    return Progress(
        t_s=round((now_ns - started_ns) / 1e9, 1),
        requests=traffic.ok,
        failed=traffic.failed,
        in_flight=traffic.in_flight,
        phase=_phase(traffic, now_ns),
        failures=dict(traffic.failures),
        stretch=traffic.recent.stretch(started_ns, now_ns),
        loop_lag_s=late_s[1] if late_s else None,
    )


def _phase(traffic: Traffic, now_ns: int) -> str:
    window = traffic.window
    if traffic.closed.is_set() or window.ended_by not in (None, "duration"):
        return "drain"
    if window.ended_by:
        return "ramp-down"
    if now_ns >= window.start_ns:
        return "window"
    is_warm_up = now_ns >= window.start_ns - int(traffic.job.load.warmup_s * 1e9)
    return "warmup" if is_warm_up else "ramp-up"
