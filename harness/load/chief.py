"""Leads the workers of one cell from the first hello to the merged summary.

Blocks in gevent's loop; knows of the workers' connections only how to send.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from harness import watchdog
from harness.contracts import LoadJob, LoadSummary, WorkerSummary
from harness.errors import BenchError, LoadError
from harness.load.address import parse_address
from harness.load.crew import Crew, Member, worker_summary
from harness.load.merge import merged
from harness.load.messages import Close, End, Failed, Go, Ping, Play
from harness.load.pulse import Progress, together
from harness.load.synchronize import PingTimes, offset_before, offset_of, with_drift

CONNECT_LIMIT_S = 60.0
_READY_LIMIT_S = 60.0
_PINGS = 20
_PING_LIMIT_S = 1.0
# Workers say once a second, counted from the start, how far they are; our sums follow so long after.
_REPORT_AFTER_S = 0.2
# From the word to the start: the word must be there, and users take a while to be made (4,000: 0.2 s).
_LEAD_S, _LEAD_PER_USER_S = 0.05, 1e-4
# What a lost worker had sent may still be on its way through this process.
_LATE_S = 0.5
# How long workers may take to come to an end after one has failed.
_LEAVE_S = 5.0
_log = logging.getLogger(__name__)


class _CancelledError(LoadError):
    """A signal came before the load began."""

    exit_code = 130


class Chief:
    """Leads a crew through one cell; blocks in gevent's loop. `children`: worker processes by number."""

    def __init__(
        self,
        job: LoadJob,
        crew: Crew,
        send: Callable[[str, Any], object],
        on_progress: Callable[[Progress], object],
        children: Mapping[int, subprocess.Popen[bytes]],
        connect_limit_s: float = CONNECT_LIMIT_S,
    ) -> None:
        self.job = job
        self.crew = crew
        self.is_interrupted = False
        self._send = send
        self._on_progress = on_progress
        self._children = children
        self._connect_limit_s = connect_limit_s
        self._progress_s = time.monotonic()
        self._lost: set[int] = set()

    def lead(self) -> LoadSummary:
        """The whole cell. Raises LoadError; `dismiss` is due however it ends."""
        self.gather()
        self.brief()
        self.set_clocks()
        self.start()
        self.follow()
        return self.finish()

    @property
    def _members(self) -> list[Member]:
        return sorted(self.crew.members.values(), key=lambda member: member.number)

    def interrupt(self) -> None:
        """End the load with what there is."""
        self.is_interrupted = True
        self.tell_all(Close("interrupted"))
        self.crew.news.set()

    def tell_all(self, message: Any) -> None:
        for member in self._members:
            self._send(member.node, message)

    # --- before the load ---------------------------------------------------------------------

    def gather(self) -> None:
        """Wait until all workers are there. Raises LoadError."""
        deadline_s = time.monotonic() + self._connect_limit_s
        while len(self.crew.members) < self.crew.wanted:
            self._wait()
            if self.job.load.bind:
                self.crew.drop_gone()  # another may come instead
            self._raise_before_start()
            self._report(f"waiting for workers, {len(self.crew.members)} of {self.crew.wanted} are there")
            if time.monotonic() > deadline_s:
                raise LoadError(self._who_is_missing())

    def _who_is_missing(self) -> str:
        text = f"{len(self.crew.members)} of {self.crew.wanted} load workers connected within "
        text += f"{self._connect_limit_s:.0f} s"
        if self.crew.refused:
            text += f" ({'; '.join(dict.fromkeys(self.crew.refused))})"
        if self.job.load.bind:
            port = parse_address("load.bind", self.job.load.bind).port
            text += f"; start the others with `bench worker --master HOST:{port}` (HOST: this machine)"
        return text

    def brief(self) -> None:
        """Give each its job and wait until all are ready."""
        for member in self._members:
            self._send(member.node, Play(member.number, msgspec.json.encode(self.job)))
        deadline_s = time.monotonic() + _READY_LIMIT_S
        while not all(member.is_ready for member in self._members):
            self._wait()
            self._raise_before_start()
            if time.monotonic() > deadline_s:
                waited = [str(member.number) for member in self._members if not member.is_ready]
                raise LoadError(
                    f"load worker {', '.join(waited)} was not ready within {_READY_LIMIT_S:.0f} s"
                )

    def set_clocks(self) -> None:
        """Measure how far each worker's clock is from ours."""
        for member in self._members:
            pings = self._pings(member)
            if not pings:
                raise LoadError(f"load worker {member.number} does not answer")
            is_same_boot = member.hello.boot_id == watchdog.boot_id()
            member.offset = offset_before(pings, is_same_boot=is_same_boot)
            if member.offset.uncertainty_ns:
                _log.info(
                    "clock of load worker %d: %+d ns, within %d ns",
                    *(member.number, member.offset.offset_ns, member.offset.uncertainty_ns),
                )

    def _pings(self, member: Member) -> list[PingTimes]:
        pairs: list[PingTimes] = []
        for number in range(_PINGS):
            member.pong = None
            sent_ns = time.monotonic_ns()
            self._send(member.node, Ping(number))
            while member.pong is None and time.monotonic_ns() - sent_ns < _PING_LIMIT_S * 1e9:
                self.crew.news.wait(_PING_LIMIT_S)
                self.crew.news.clear()
            if member.pong is None or member.pong[0].number != number:
                break
            pairs.append(PingTimes(sent_ns, member.pong[0].at_ns, member.pong[1]))
        return pairs

    def start(self) -> None:
        """Let all begin at one instant."""
        users = (self.job.load.concurrency or 0) / self.crew.wanted
        start_ns = time.monotonic_ns() + int((_LEAD_S + users * _LEAD_PER_USER_S) * 1e9)
        for member in self._members:
            self._send(member.node, Go(start_ns - member.offset.offset_ns))
        # So that each report finds what the workers have just said.
        self._progress_s = start_ns / 1e9 + _REPORT_AFTER_S

    def _raise_before_start(self) -> None:
        if self.is_interrupted:
            raise _CancelledError("interrupted before the load began")
        self._raise_failure()
        for number, child in self._children.items():
            if (code := child.poll()) is not None:
                raise LoadError(f"load worker {number} ended with code {code} before the load began")
        if lost := [member for member in self._members if member.is_lost]:
            raise LoadError(
                f"load worker {lost[0].number} ({lost[0].hello.host}) was lost before the load began"
            )

    def _raise_failure(self) -> None:
        for member in self._members:
            if member.failed:
                raise _failure(member, member.failed, is_ours=bool(self._children))

    # --- the load and after it ---------------------------------------------------------------

    def follow(self) -> None:
        """Wait until every worker has ended or is lost. Raises LoadError where one fails or all are lost."""
        closing: set[str] = set()
        while not all(member.has_ended for member in self._members):
            self._wait()
            self._raise_failure()
            self._notice_deaths()
            self._close_others(closing)
            self._report()
        self._raise_failure()

    def _notice_deaths(self) -> None:
        for member in self._members:
            child = self._children.get(member.number)
            quiet_s = (time.monotonic_ns() - member.heard_ns) / 1e9
            if child and child.poll() is not None and quiet_s > _LATE_S:
                member.is_dead = True
            if member.is_lost and member.number not in self._lost:
                self._lost.add(member.number)
                how = f"ended with code {child.returncode}" if member.is_dead and child else "silent"
                _log.error("load worker %d (%s) is lost: %s", member.number, member.hello.host, how)

    def _close_others(self, done: set[str]) -> None:
        """One that too many failures stopped stops all: what the others would measure is not the load."""
        if "failures" not in done and any(
            m.closed and m.closed.ended_by == "failures" for m in self._members
        ):
            done.add("failures")
            self.tell_all(Close("failures"))

    def finish(self) -> LoadSummary:
        """Put all together. Raises LoadError where no worker has come to its end."""
        for member in self._members:
            # One clock needs no second look.
            if member.summary and member.offset.uncertainty_ns and (pings := self._pings(member)):
                member.offset = with_drift(member.offset, offset_of(pings))
        self.crew.write_lost()
        summaries = [m.summary for m in self._members if m.summary and not self._has_left(m)]
        if not summaries:
            raise LoadError(f"all {self.crew.wanted} load workers were lost")
        return merged(summaries, [self._summary_of(member) for member in self._members])

    def _has_left(self, member: Member) -> bool:
        """It was ended where it runs, by a signal that was not for the whole load."""
        return not self.is_interrupted and bool(member.summary and member.summary.ended_by == "interrupted")

    def _summary_of(self, member: Member) -> WorkerSummary:
        said = worker_summary(member)
        # The load without it is as good as with one that was killed; the others have gone on.
        return (
            replace(said, lost_ns=member.summary.ended_ns)
            if self._has_left(member) and member.summary
            else said
        )

    def dismiss(self) -> None:
        """Let the workers go; after a failure they come to an end first."""
        if any(not member.has_ended for member in self._members):
            self.tell_all(Close("interrupted"))
            deadline_s = time.monotonic() + _LEAVE_S
            while not all(member.has_ended for member in self._members) and time.monotonic() < deadline_s:
                self._wait()
                self._notice_deaths()
            self.crew.write_lost()
        self.tell_all(End())

    def _wait(self) -> None:
        self.crew.news.wait(0.1)
        self.crew.news.clear()

    def _report(self, phase: str | None = None) -> None:
        """Say how far all are, about once a second. Nobody listening ends the load."""
        if time.monotonic() - self._progress_s < 1.0:
            return
        self._progress_s = time.monotonic()
        try:
            self._on_progress(progress_of(self._members, phase))
        except OSError:
            self.interrupt()


def progress_of(members: Sequence[Member], phase: str | None) -> Progress:
    """How far all workers are, as they have said."""
    states = [(member.state.pulse, member.is_lost) for member in members if member.state]
    here = [pulse for pulse, is_lost in states if not is_lost]
    return together(here, [pulse for pulse, is_lost in states if is_lost], phase)


def _failure(member: Member, failed: Failed, *, is_ours: bool) -> BenchError:
    where = "" if is_ours else f"load worker {member.number} on {member.hello.host}: "
    error = LoadError(where + failed.line)
    error.exit_code = failed.exit_code if failed.exit_code > 0 else 1
    return error
