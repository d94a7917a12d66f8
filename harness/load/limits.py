"""Compare the file descriptors that a load needs, one for each connection, with those this system gives."""

import logging
import resource
import sys
from collections.abc import Iterable
from math import ceil

from serving_bench.harness.contracts import PlannedStart
from serving_bench.harness.errors import UserError

# How many files a load process or a server opens beyond its connections, with a margin.
OTHER_FILES = 64


def raise_file_limit() -> int:
    """Raise the limit of open files to the most that the system allows, for children, too. Return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS refuses an unlimited one
        logging.getLogger(__name__).info("file descriptors stay as they are: %s", error)
        hard = soft
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def check_files(starts: Iterable[PlannedStart]) -> None:
    """Raise UserError if a closed loop needs more open files than a process may have here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for start in starts if hard != resource.RLIM_INFINITY else ():
        has_server_here = start.deployment.terms.base_url is None
        for load, width in ((cell.load, cell.scenario.width) for cell in start.cells):
            # The server needs the most of all processes here. If it runs elsewhere, a load process does.
            sharers = 1 if has_server_here else load.workers
            needed = OTHER_FILES + ceil((load.concurrency or 0) * width / sharers)
            if needed > hard:
                most = max(1, (hard - OTHER_FILES) * sharers // width)
                raise UserError(
                    f"load.concurrency={load.concurrency}: one process needs {needed} open files, and this "
                    f"system allows {hard}; raise the limit (as root: `ulimit -n {needed}` in the shell that "
                    f"starts bench), or give load.concurrency={most} or less"
                )
