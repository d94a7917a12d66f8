"""The load process: `python -m harness.load.worker JOB.json` plays one cell's load and records it.

Rows and summary go to the files that the job names, one JSON line of progress per second to stdout, and
nothing else; what Locust, scenarios and we have to say goes to stderr. SIGINT and SIGTERM end it at once,
with what there is, and exit code 0. Knows no server process and no plan.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from harness.contracts import Engine, LoadJob, LoadSummary, Scenario
from harness.errors import LoadError
from harness.load import signals
from harness.load.process import carry_out, say, write_whole
from harness.load.pulse import together


def run_job(job: LoadJob, scenario: Scenario, engine: Engine, progress_fd: int) -> LoadSummary:
    """Play a job's load, blocking until its last request has ended, and write its rows and summary.

    A request of the window may run to its own timeout. Progress goes to the descriptor `progress_fd`.
    Raises what the scenario raises, UserError among it; the rows so far are written then too.
    """
    # These take most of the start, in which signals must already be held.
    from harness.load.client import endpoint
    from harness.load.play import local_runner, play
    from harness.load.receive import Receiver
    from harness.load.traffic import Outlet, Traffic

    target = endpoint(job.base_url, os.environ.get(job.api_key_env))
    with (
        open(job.rows_path, "ab", buffering=0) as rows,
        open(job.begun_path, "ab", buffering=0) as begun,
        Receiver() as receiver,
    ):
        traffic = Traffic(job, scenario, engine, Outlet(begun.write, rows.write))
        with signals.interrupts(traffic.interrupt):
            runner = local_runner(traffic, target, receiver)
            summary = play(traffic, receiver, runner, lambda pulse: say(progress_fd, together([pulse])))
    write_whole(Path(job.summary_path), msgspec.json.encode(summary))
    return summary


def read_job(path: Path) -> tuple[LoadJob, Scenario, Engine]:
    """A job from its file, with its scenario and engine. Raises LoadError where there are none such."""
    return with_parts(msgspec.json.decode(path.read_bytes(), type=LoadJob))


def with_parts(job: LoadJob) -> tuple[LoadJob, Scenario, Engine]:
    """See read_job."""
    from engines import ENGINES
    from scenarios import SCENARIOS

    if job.scenario not in SCENARIOS or job.engine not in ENGINES:
        raise LoadError(f"no scenario {job.scenario} or no engine {job.engine} in this version")
    return job, SCENARIOS[job.scenario], ENGINES[job.engine]


def main(argv: list[str]) -> int:
    """Run the job in the file argv[1]; the exit code."""
    return carry_out(lambda progress_fd: run_job(*read_job(Path(argv[1])), progress_fd))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
