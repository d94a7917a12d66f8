"""Whether this system gives a load its file descriptors: each user has a connection, on both ends."""

from __future__ import annotations

import resource
from collections.abc import Iterable

from harness.contracts import Load, PlannedStart
from harness.errors import UserError

# Files of a load process or a server beyond its connections.
_OTHER_FILES = 64


def check_files(starts: Iterable[PlannedStart]) -> None:
    """Raise UserError where a closed loop needs more open files than a process may have here.

    An open loop cannot know how many it will need: there, conversations wait, and are late.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return
    for start in starts:
        for cell in start.cells:
            needed = files_needed(cell.load, has_server_here=start.deployment.terms.base_url is None)
            if needed > hard:
                raise UserError(_message(cell.load, needed, hard))


def files_needed(load: Load, *, has_server_here: bool) -> int:
    """Open files of the process that needs the most: the server, else a load process."""
    users = load.concurrency or 0
    return _OTHER_FILES + (users if has_server_here else -(-users // load.workers))


def _message(load: Load, needed: int, hard: int) -> str:
    return (
        f"load.concurrency={load.concurrency}: one process needs {needed} open files, and this system allows "
        f"{hard}; raise the limit (as root: `ulimit -n {needed}` in the shell that starts bench), or give "
        f"load.concurrency={max(1, hard - _OTHER_FILES)} or less"
    )
