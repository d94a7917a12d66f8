"""Whether this system gives a load its file descriptors: each user has a connection, on both ends."""

from __future__ import annotations

import resource
from collections.abc import Iterable

from harness.contracts import Load, PlannedStart
from harness.errors import UserError
from harness.load.arrivals import share

# Open files of a load process or a server beyond its connections, and then some.
OTHER_FILES = 64


def check_files(starts: Iterable[PlannedStart]) -> None:
    """Raise UserError where a closed loop needs more open files than a process may have here.

    An open loop cannot know how many it will need: there, conversations wait, and are late.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return
    for start in starts:
        for cell in start.cells:
            has_server_here = start.deployment.terms.base_url is None
            needed = files_needed(cell.load, has_server_here=has_server_here)
            if needed > hard:
                raise UserError(_message(cell.load, needed, hard, has_server_here=has_server_here))


def check_share_files(load: Load, worker: int) -> None:
    """Raise UserError where this process may not have a connection for each user of one worker's share."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OTHER_FILES + share(load.concurrency or 0, load.workers, worker)
    if soft != resource.RLIM_INFINITY and needed > soft:
        raise UserError(_message(load, needed, soft, has_server_here=False))


def files_needed(load: Load, *, has_server_here: bool) -> int:
    """Open files of the process of this machine that needs the most: the server, else a load process, where
    they are not those of other machines."""
    users = load.concurrency or 0
    if has_server_here:
        return OTHER_FILES + users
    return OTHER_FILES + (0 if load.bind else -(-users // load.workers))


def _message(load: Load, needed: int, limit: int, *, has_server_here: bool) -> str:
    users = max(1, limit - OTHER_FILES) * (1 if has_server_here else load.workers)
    return (
        f"load.concurrency={load.concurrency}: one process needs {needed} open files, and this system allows "
        f"{limit}; raise the limit (as root: `ulimit -n {needed}` in the shell that starts bench), or give "
        f"load.concurrency={users} or less"
    )
