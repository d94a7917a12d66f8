"""What a run is called, where it may be written, and what of it is on record."""

import fcntl
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from begun_run import begin, settings_of, write_begun
from echoes import ECHOES, KEY
from make_run import start_record, write_start

from serving_bench.harness.cli.commands import jobs, measuring
from serving_bench.harness.cli.commands.jobs import Job
from serving_bench.harness.contracts import quoted, secrets_in
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.run import recorded, session
from serving_bench.harness.settings import config
from serving_bench.harness.settings.keys import listed_keys
from serving_bench.harness.settings.sections import is_slo
from serving_bench.harness.store import store
from serving_bench.harness.store.records import with_units


@pytest.fixture
def begun(tmp_path):
    """A run's directory, record and plan; nothing is measured yet."""
    return begin(tmp_path / "run")


def test_a_new_run_has_its_plan_and_settings_on_record(begun):
    directory, _, planned = begun
    read = store.read_run(directory)
    assert (read.status, read.run_id, read.ended_at) == ("running", "run", None)
    assert [start.deployment.label for start in read.plan.starts] == [
        s.deployment.label for s in planned.starts
    ]
    assert read.environment
    assert plan.make(config.settings(recorded.choices_of(read))) == planned


@pytest.mark.parametrize("value", ['"a,b"', '"it\'s"', '"a b"', '"x=1"', '"1"', '""', "'\"'", '"[1]"'])
def test_settings_on_record_parse_again(tmp_path, value):
    settings = settings_of("engine=reference", f"reference.label={value}", "load.warmup=500ms")
    write_begun(tmp_path / "run", settings, plan.make(settings))
    assert config.settings(recorded.choices_of(store.read_run(tmp_path / "run"))) == settings


@pytest.mark.parametrize(
    ("was", "now"), [("5", "5s"), ("5.5", "5.5s"), ('"5"', "5s"), ("1e2", "100s"), ("500ms", "500ms")]
)
def test_a_bare_number_on_record_is_still_a_duration_in_seconds(tmp_path, was, now):
    settings = settings_of("engine=reference", f"load.duration={now}", "load.warmup=0", "load.concurrency=2")
    directory = tmp_path / "run"
    write_begun(directory, settings, plan.make(settings))
    path = directory / "run.json"
    record = json.loads(path.read_text())
    record["settings"]["load.duration"] = [was]
    path.write_text(json.dumps(record))
    read = config.settings(recorded.choices_of(store.read_run(directory)))
    assert read.loads == settings.loads
    assert (read.given["load.warmup"], read.given["load.concurrency"]) == (("0",), ("2",))


def test_every_duration_that_was_once_bare_is_read(tmp_path):
    names = [key for key, (_, takes, _) in listed_keys().items() if takes.startswith("a duration")]
    asked = {key: ["5"] for key in names if not is_slo(key)}
    assert with_units(asked) == dict.fromkeys(asked, ("5s",))
    assert with_units({"load.rate": ["5"], "slo.ttft_s.p95": ["5"]}) == {
        "load.rate": ["5"], "slo.ttft_s.p95": ["5"],
    }  # fmt: skip


def test_a_secret_on_the_command_line_is_on_no_record(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setattr(sys, "argv", ["bench", "run", *(f"note={echo(KEY)}" for echo in ECHOES.values())])
    directory, record, _ = begin(tmp_path / "run")
    assert "SOME_API_KEY" not in (directory / "run.json").read_text()
    assert len(record.argv) == 2 + len(ECHOES)
    assert not [*secrets_in((directory / "run.json").read_bytes(), {"KEY": KEY})]


@pytest.mark.parametrize(
    ("words", "is_read"),
    [
        (("engine=reference",), False),
        (("engine=openai", "engine.base_url=http://127.0.0.1:1/v1", "model=m"), False),
        (("engine=reference,llama_cpp",), True),
    ],
)
def test_how_fast_memory_is_read_is_on_record_where_a_server_of_bench_reads_weights(tmp_path, words, is_read):
    settings = settings_of(*words)
    assert ("memory" in write_begun(tmp_path, settings, plan.make(settings)).environment) == is_read


def test_a_run_that_was_killed_after_its_last_cell_is_ended(begun):
    directory, record, _ = begun
    session.end(directory, replace(record, stopped_because=quoted("narrow enough")))
    read = store.read_run(directory)
    assert (read.status, read.stopped_because) == ("completed", quoted("narrow enough"))
    session.end(directory, replace(read, status="completed", ended_at="then"))
    assert store.read_run(directory) == read, "one that has its end keeps it"


def test_directories_sort_by_time_and_are_new(tmp_path):
    made = [session.new_run_dir(tmp_path / "results", "chat_multi_turn") for _ in range(4)]
    assert made[0].name.endswith("-chat_multi_turn")
    assert len({path for path in made if path.is_dir()}) == 4
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}, "requests hold what users said"


def test_a_run_is_measured_by_one_bench_at_a_time(tmp_path):
    with (
        session.sole_writer(tmp_path / "run"),
        pytest.raises(UserError, match=r"another bench \(process \d+ .*\) is measuring this run"),
        session.sole_writer(tmp_path / "run"),
    ):
        pytest.fail("two benches hold one run")


def test_a_lock_that_was_removed_before_it_was_taken_keeps_nobody_out(tmp_path, monkeypatch):
    """One bench removes its new folder between another's opening of the lock and its taking it."""
    directory, flock = tmp_path / "run", fcntl.flock

    def removed_before(lock, how):
        monkeypatch.undo()
        shutil.rmtree(directory)
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with session.sole_writer(directory):
        assert (directory / ".lock").exists()
        with pytest.raises(UserError, match="another bench"), session.sole_writer(directory):
            pytest.fail("two benches hold one run")


def test_each_folder_that_was_made_for_a_run_that_failed_is_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    for output in (Path("n1/n2/n3"), Path("kept/n1/n2"), Path("kept"), None):
        with pytest.raises(RuntimeError), session.new_directory(output):
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [".lock"]


def test_no_link_in_a_strangers_run_leads_to_another_file(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(other)
    with pytest.raises(StoreError, match=r"run/\.lock: strange"), session.sole_writer(tmp_path / "run"):
        pytest.fail("a link was followed")
    assert other.read_text() == "mine"


def test_output_must_be_new_or_empty(tmp_path):
    session.check_output(tmp_path / "new" / "below")
    session.check_output(tmp_path)
    (tmp_path / "file").write_text("x")
    for wrong in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="--output"):
            session.check_output(wrong)
    with pytest.raises(UserError, match=r"exists and is not empty; give a new or an empty one$"):
        session.check_output(tmp_path)
    assert (tmp_path / "file").read_text() == "x"
    assert [each.name for each in tmp_path.iterdir()] == ["file"], "asking leaves nothing behind"


def test_what_a_killed_bench_leaves_before_and_beside_a_run_is_no_hindrance(tmp_path):
    with session.sole_writer(tmp_path):
        pass
    session.check_output(tmp_path)
    (tmp_path / "cells" / "001").mkdir(parents=True)
    for name in (".reserve", "cells/001/load.board", f"run.json.{'a' * 16}.part"):
        (tmp_path / name).write_text("x")
    with session.sole_writer(tmp_path):
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_output_that_holds_a_run_is_gone_on_with(begun):
    directory, _, _ = begun
    with pytest.raises(UserError, match=rf"not empty; continue its run with --resume {directory}$"):
        session.check_output(directory)


def test_a_folder_where_results_cannot_be_made_is_refused(monkeypatch):
    monkeypatch.chdir("/proc")
    with pytest.raises(
        UserError,
        match=r"^results: no file can be made in /proc \(.*\); give --output DIR in a directory ",
    ):
        session.check_output(None)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_no_other_bench_can_see_the_check_of_an_output(tmp_path):
    seen = set()
    with ThreadPoolExecutor() as pool:
        checks = pool.submit(lambda: [session.check_output(tmp_path) for _ in range(300)])
        while not checks.done():
            seen |= {path.name for path in tmp_path.iterdir()}
    checks.result()
    assert seen == set()


def test_output_where_nothing_can_be_made_is_refused(tmp_path):
    missing = Path("/proc/no/run")
    with pytest.raises(
        UserError, match=r"^--output /proc/no/run: no file can be made in /proc \(.*\); give one in "
    ):
        session.check_output(missing)


def test_a_look_is_told_by_the_starts_that_it_saw_whether_they_failed_or_not(begun):
    directory, record, planned = begun
    first, second, *_ = planned.starts
    write_start(directory, start_record(first, 0), [])
    session.end(directory, record)
    # It goes on: what failed is measured again, on a start of its own.
    write_start(directory, start_record(second, 0), [])
    session.end(directory, replace(store.read_run(directory), status="running"))
    assert store.read_run(directory).looks == (1, 2)
    session.end(directory, replace(store.read_run(directory), status="interrupted"))
    assert store.read_run(directory).looks == (1, 2), "nothing new was seen"


def test_a_run_is_held_before_it_is_read_what_it_lacks(begun, monkeypatch):
    directory, _, _ = begun

    def left(*_) -> Job:
        with pytest.raises(UserError, match="another bench"), session.sole_writer(directory):
            pytest.fail("a second resume could read the same missing cells")
        raise UserError("read")

    monkeypatch.setattr(jobs, "left_of", left)
    with pytest.raises(UserError, match=r"^read$"):
        measuring.run(resume=directory)
    with session.sole_writer(directory):
        pass
