"""What a run without a value or a report prints: `--json` one document, `--quiet` why there is none."""

import json
import re
import signal

from bench_command import begun, bench, ended, made, quick
from waiting import wait_until


def test_a_run_that_is_interrupted_before_its_first_value_prints_its_document(tmp_path) -> None:
    place = made(tmp_path / "place")
    with begun(place, "run", *quick("reference.start_delay=60s"), "--output", "run", "--json") as process:
        wait_until(lambda: len(place.starts()) == 1, 60)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    said = json.loads(done.stdout)
    assert said["run"] == {"id": "run", "status": "interrupted"}
    assert said["exit_code"] == done.returncode
    assert (said["answers"], said["report"], said["directory"]) == ([], None, "run")
    assert done.returncode == 130


def test_a_quiet_run_says_in_one_line_why_no_cell_is_measured(tmp_path) -> None:
    done = bench(
        made(tmp_path / "place"), "run", *quick("reference.fault=exit@0"), "--output", "run", "--quiet"
    )
    assert (done.returncode, done.stdout) == (1, "run/report.html\n")
    assert re.fullmatch(r"no cell measured: .*exited with code \d+ .*\n", done.stderr)


def test_a_run_whose_report_cannot_be_written_prints_its_document(tmp_path) -> None:
    place = made(tmp_path / "place")
    with begun(place, "run", *quick(), "--output", "run", "--json") as process:
        wait_until(lambda: len(place.starts()) == 1, 60)
        (place.run_dir / "report.html").mkdir()
        done = ended(process)
    said = json.loads(done.stdout)
    assert (said["run"]["status"], said["exit_code"], done.returncode) == ("completed", 1, 1), done.stderr
    assert (said["answers"], said["report"], said["directory"]) == ([], None, "run")
    assert "the report could not be written" in done.stderr
