"""Name the other programs that used the processor most between two scans of all processes.

A program is shown by its name and pid, never by its arguments, which may hold secrets. A scan takes some
milliseconds, so it belongs before or after a window, never into it.
"""

import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import psutil

from serving_bench.harness.contracts import FOREIGN_SHARE, LOOK_S, Fact, because
from serving_bench.harness.sampling.host import foreign_use
from serving_bench.harness.sampling.process_tree import Reading, readings

MOST = 3
# A program that used less than this share of the processor is not named.
LEAST_SHARE = 0.02
# The kernel keeps this much of a name; psutil completes a longer one from the arguments. A program may put
# its arguments into its name, too, so only the first word of it is shown.
_NAME_LENGTH = 15
_NAME = re.compile(r"[\w.+-]+", re.ASCII)


@dataclass(frozen=True)
class Scan:
    """All processes at `t_ns` (CLOCK_MONOTONIC), by their pids."""

    t_ns: int
    by_pid: Mapping[int, Reading]


@dataclass(frozen=True)
class Program:
    """A foreign process, and the share of all cores that it and its children that ended used."""

    name: str
    pid: int
    share: float


def busy_now() -> Fact | None:
    """Look around for LOOK_S while bench itself is idle. Return what other programs used, and which used
    most; None if that is too little to change a result. Blocks."""
    before, share_since = scan(), foreign_use()
    time.sleep(LOOK_S)
    share = share_since()
    return named(share, before, scan()) if share is not None and too_much(share) else None


def too_much(share: float | None) -> Fact | None:
    """Return that others used this share of the processor; None if that is little or not known."""
    if share is None or share <= FOREIGN_SHARE:
        return None
    return because("foreign_load", percent=100 * share)


def scan() -> Scan:
    """Read all processes of this system that can be read. Blocks for about 30 us each."""
    return Scan(time.monotonic_ns(), dict(readings(psutil.pids())))


def named(share: float, before: Scan, after: Scan, own_pids: Collection[int] = ()) -> Fact:
    """Return that others used this share of the processor, with the busiest programs between two scans.

    Leaves out this process, the `own_pids`, and all their descendants.
    """
    shares = shares_between(before, after, own_pids)
    of_small = sum(each for each in shares.values() if each < LEAST_SHARE)
    return used_by(share, busiest(shares)[:MOST], of_small)


def busiest(shares: Mapping[int, float]) -> list[Program]:
    """Return the programs that used LEAST_SHARE or more, the busiest first."""
    heaviest = sorted((pid for pid in shares if shares[pid] >= LEAST_SHARE), key=lambda pid: -shares[pid])
    return [Program(name, pid, shares[pid]) for pid in heaviest if (name := _name(pid))]


def used_by(share: float, programs: Collection[Program], of_small: float = 0.0) -> Fact:
    """Return that others used this share of the processor, and which programs used most of it.

    Without programs, that each used too little to be named, if `of_small` (their share together) is
    LEAST_SHARE or more; else that none is visible.
    """
    if not programs and of_small >= LEAST_SHARE:
        return because("foreign_load_by_many", percent=100 * share, least=100 * LEAST_SHARE)
    if not programs:
        return because("foreign_load_unseen", percent=100 * share)
    *others, last = (f"{each.name} (process {each.pid}, {100 * each.share:.0f} %)" for each in programs)
    names = f"{', '.join(others)}{' and ' * bool(others)}{last}"
    return because("foreign_load_by", percent=100 * share, programs=names)


def shares_between(
    before: Scan, after: Scan, own_pids: Collection[int] = (), cores: int = os.cpu_count() or 1
) -> dict[int, float]:
    """Return the share of all cores that each foreign process used between two scans, by its pid.

    Leaves out this process, the `own_pids`, and all their descendants.
    """
    passed_s = (after.t_ns - before.t_ns) / 1e9
    used_s = _used_s(before, after, cores)
    theirs = used_s.keys() - _descendants(after, {os.getpid(), *own_pids})
    return {pid: used_s[pid] / (passed_s * cores) for pid in theirs} if passed_s else {}


def _used_s(before: Scan, after: Scan, cores: int) -> dict[int, float]:
    """Return the CPU seconds of each process that still runs, and of its children that ended meanwhile."""
    most_s = cores * (after.t_ns - before.t_ns) / 1e9
    earlier_s, used_by_pid = _ended_s(before, after), {}
    for pid, now in after.by_pid.items():
        was = before.by_pid[pid] if _lives_on(pid, before, after) else None
        own_s = now.own[0] - (was.own[0] if was else 0.0)
        children_s = now.children[0] - (was.children[0] if was else 0.0) - earlier_s[pid]
        # If that is more time than there was, it includes children of others that this process took over.
        used_by_pid[pid] = own_s + (children_s if 0 < children_s <= most_s - own_s else 0.0)
    return used_by_pid


def _ended_s(before: Scan, after: Scan) -> Mapping[int, float]:
    """Return what processes that have ended had used before the first scan, by the ancestor that waited for
    them. At the second scan it is among the time of that ancestor's children."""
    seconds: defaultdict[int, float] = defaultdict(float)
    for pid, was in before.by_pid.items():
        if _lives_on(pid, before, after):
            continue
        parent, passed = was.parent, {pid}  # a pid that was reused during the scan could make a cycle
        while parent in before.by_pid.keys() - passed and not _lives_on(parent, before, after):
            passed.add(parent)
            parent = before.by_pid[parent].parent
        seconds[parent] += was.own[0] + was.children[0]
    return seconds


def _lives_on(pid: int, before: Scan, after: Scan) -> bool:
    was, now = before.by_pid.get(pid), after.by_pid.get(pid)
    return was is not None and now is not None and was.started == now.started


def _descendants(scanned: Scan, roots: Collection[int]) -> set[int]:
    family = set(roots)
    while more := {pid for pid, each in scanned.by_pid.items() if each.parent in family} - family:
        family |= more
    return family


def _name(pid: int) -> str | None:
    try:
        name = _NAME.match(psutil.Process(pid).name()[:_NAME_LENGTH])
    except psutil.Error:
        return None
    return name[0] if name else "a program"
