"""`bench run --json` prints one document, also of a run that has no value or no report."""

from __future__ import annotations

import json
import signal

from bench_command import begun, ended, made, quick
from waiting import wait_until


def test_a_run_that_is_interrupted_before_its_first_value_prints_its_document(tmp_path) -> None:
    place = made(tmp_path / "place")
    with begun(place, "run", *quick("reference.start_delay=60s"), "--output", "run", "--json") as process:
        wait_until(lambda: len(place.starts()) == 1, 60)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    said = json.loads(done.stdout)
    assert (said["run"], said["status"], said["exit_code"]) == ("run", "interrupted", done.returncode)
    assert (said["answers"], said["report"], said["directory"]) == ([], None, "run")
    assert done.returncode == 130


def test_a_run_whose_report_cannot_be_written_prints_its_document(tmp_path) -> None:
    place = made(tmp_path / "place")
    with begun(place, "run", *quick(), "--output", "run", "--json") as process:
        wait_until(lambda: len(place.starts()) == 1, 60)
        (place.run_dir / "report.html").mkdir()
        done = ended(process)
    said = json.loads(done.stdout)
    assert (said["status"], said["exit_code"], done.returncode) == ("completed", 1, 1), done.stderr
    assert (said["answers"], said["report"], said["directory"]) == ([], None, "run")
    assert "the report could not be written" in done.stderr
