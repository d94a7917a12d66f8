"""Runs that are killed, interrupted at their end, or lose their folder; and one of own prompts."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from bench_command import Place, begun, bench, ended, kill_in_second_cell, quick, side_by_side
from waiting import wait_until

from serving_bench.harness.store import checksums, store


def requests_of(place: Place, cell: int) -> list[dict[str, Any]]:
    return store.read_requests(store.cell_dir(place.run_dir, cell)).to_pylist()


def own_prompts(place: Place) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 3},
        {"prompt": "four"},
    ]
    (place.path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = quick("load.warmup=0s", "load.conversations=4", "scenario.output_tokens=2")
    words += ["scenario=file", "scenario.path=chats.jsonl"]
    done = bench(place, "run", *words, "--output", "run")
    assert done.returncode == 0, done.stderr
    asked = [(row["conversation"], row["max_tokens"], row["output_tokens"]) for row in requests_of(place, 1)]
    assert asked == [(0, 3, 3), (1, 2, 2), (2, 3, 3), (3, 2, 2)]
    assert place.cells()[1]["summary"]["ended_by"] == "conversations"


def lose_the_folder(place: Place) -> None:
    with begun(place, "run", *quick("load.duration=2s"), "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(1) >= 1, 30)
        place.run_dir.rename(place.path / "moved")
        place.run_dir.write_text("nothing can be stored below a file")
        done = ended(process)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("run: what was measured last could not be stored: ")
    assert last.endswith("; once it can be, `bench run --resume run` measures it again")
    place.wait_until_empty()


def test_a_cell_that_cannot_be_stored_is_said_to_be_lost(stories):
    stories["lost"].result()


def interrupt_the_report(place: Place) -> None:
    with begun(place, "run", *quick(), "--output", "run") as process:
        assert process.stderr
        while "writing the report" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 0, said
    assert "finishing the report" in said
    assert place.report().endswith("</html>")


def test_ctrl_c_while_the_report_is_written_is_answered(stories):
    stories["reported"].result()


def test_own_prompts_from_a_file(stories):
    stories["file"].result()


def kill_and_resume(place: Place) -> None:
    kill_in_second_cell(place, 4)
    assert place.run()["status"] == "running"

    done = bench(place, "report", "run")
    assert done.returncode == 0, done.stderr
    assert place.report().count(">in flight<") == 1

    kept = place.run_dir / "cells" / "001"
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    done = bench(place, "run", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert (place.run_dir / "cells" / "002.attempt1" / "rows.jsonl").exists()
    cells = place.cells()
    assert [cells[number]["status"] for number in (1, 2)] == ["completed", "completed"]
    assert cells[1]["start"] != cells[2]["start"], "measured on a new start"
    assert place.run()["status"] == "completed"
    assert "This run was cut short" not in place.report()
    assert not checksums.findings(place.run_dir)
    place.wait_until_empty()

    again = bench(place, "run", "--resume", "run")
    assert (again.returncode, again.stdout) == (0, "run/report.html\n")
    more = "`bench run --resume run repeats=3` measures more"
    assert f"every cell is completed; nothing to measure; {more}\n" in again.stderr
    assert len(place.starts()) == 2


def test_kill_of_bench_leaves_nothing_and_loses_the_cell_in_flight_only(stories):
    stories["kill"].result()


STORIES = {
    "file": own_prompts,
    "kill": kill_and_resume,
    "lost": lose_the_folder,
    "reported": interrupt_the_report,
}


@pytest.fixture(scope="module")
def stories(tmp_path_factory) -> Iterator[dict[str, Future[Any]]]:
    with side_by_side(tmp_path_factory.mktemp("story"), STORIES) as begun_now:
        yield begun_now
