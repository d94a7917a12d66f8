"""Runs whose files are lost, cut or no run's at all: an error that names the file, never a number."""

import fcntl
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from make_run import S, all_failed_run, empty_run, full_run, one_cell_run, row

from serving_bench.harness.contracts import because, quoted
from serving_bench.harness.errors import StoreError
from serving_bench.harness.run.session import sole_writer
from serving_bench.harness.store import store
from serving_bench.reports import open_run, write_report
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.outputs.tables import tables_of
from serving_bench.reports.page.several_runs import index_page, index_rows


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return one_cell_run(tmp_path / "run", [row(k, (102 + k) * S) for k in range(5)]).path


def test_a_completed_cell_without_its_requests_is_damaged(run):
    (run / "cells" / "000" / "requests.parquet").unlink()
    with pytest.raises(StoreError, match=r"cells/000/requests\.parquet: damaged: no regular file there$"):
        open_run(run)
    assert index_rows(run)[0].problem == "cells/000/requests.parquet: damaged: no regular file there"


def test_a_cell_is_judged_by_its_own_record_and_not_a_starts(tmp_path):
    path = one_cell_run(tmp_path / "failed", [], status="failed", error=quoted("no request succeeded")).path
    assert open_run(path).planned_cells[0].status == "failed"
    next(path.glob("starts/*/start.json")).unlink()
    assert open_run(path).planned_cells[0].status == "failed"
    whole = one_cell_run(tmp_path / "whole", [row(1, 103 * S)]).path
    start = next(iter(store.read_starts(whole)))
    store.write_record(whole / "starts" / start.name / "start.json", replace(start, status="failed"))
    (whole / "cells/000/requests.parquet").unlink()
    with pytest.raises(StoreError, match=r"requests\.parquet: damaged: no regular file there"):
        open_run(whole)


def test_a_failed_cell_may_have_no_requests(tmp_path):
    path = all_failed_run(tmp_path / "run")
    (path / "cells" / "000" / "requests.parquet").unlink()
    assert len(open_run(path).requests) == 0


@pytest.mark.parametrize("name", ["output_tokens", "chunk_ns", "outcome"])
def test_a_column_that_is_not_there_is_missed(run, name):
    path = run / "cells" / "000" / "requests.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([name]), path)
    with pytest.raises(StoreError, match=rf"requests\.parquet: damaged: no column {name}$"):
        tables_of(open_run(run))


@pytest.mark.parametrize("text", ["[]", "{}", '"x"', "3", '{"name": "my-app"}', '{"schema_version": "x"}'])
def test_json_that_is_no_runs_record_is_said_so(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(StoreError, match=r"run\.json: damaged \("):
        open_run(run)
    assert index_rows(run)[0].problem.startswith("run.json: damaged (")


def test_a_newer_bench_is_told_apart_from_that(run):
    (run / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(
        StoreError, match=r"was written by a newer bench \(schema 99\); this one reads 6 to 12; update bench"
    ):
        open_run(run)


# --- a run that goes on ----------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A cell in flight, the others to come, no end on record."""
    path = full_run(tmp_path / "run")
    record = store.read_run(path)
    store.write_record(path / "run.json", replace(record, status="running", ended_at=None))
    (path / "cells" / "001" / "cell.json").unlink()
    return path


def said(path: Path) -> str:
    page = write_report(path).read_text(encoding="utf-8")
    index = index_page(path.parent, index_rows(path), path.parent)
    return re.sub("<[^>]+>", "", page + index) + markdown_text(open_run(path))


def test_a_run_that_is_measured_now_is_still_running(begun):
    with sole_writer(begun):
        text = said(begun)
        assert open_run(begun).planned_cells[1].reason is None
    assert "This run is still running. bench writes the report again when it ends." in text
    assert ", still running" in text
    assert "**This run is still running**" in text
    for words in ("run was cut short", "the run ended"):
        assert words not in text


def test_a_run_whose_bench_was_killed_is_cut_short(begun):
    with sole_writer(begun):
        pass
    text = said(begun)
    assert "This run was cut short. bench run --resume " in text
    assert "the run ended while it was being measured" in text
    assert "still running" not in text


def test_a_run_that_was_interrupted_when_all_was_measured_is_not_called_cut_short(tmp_path):
    path = one_cell_run(tmp_path / "run", [row(k, (102 + k) * S) for k in range(5)]).path
    record = store.read_run(path)
    store.write_record(path / "run.json", replace(record, status="interrupted"))
    text = said(path)
    assert "This run was interrupted when all its cells were measured. bench run --resume " in text
    assert "**This run was interrupted when all its cells were measured** (interrupted)." in text
    assert "1 of 1, interrupted" in text
    assert "run was cut short" not in text
    assert "of 1, cut short" not in text


def test_looking_leaves_the_lock_free(begun):
    assert not store.is_going_on(begun, "running")  # it has no lock file
    with sole_writer(begun):
        assert store.is_going_on(begun, "running")
        assert not store.is_going_on(begun, "interrupted")
    with (begun / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert not store.is_going_on(begun, "running")


def test_what_is_to_come_is_not_yet_measured(tmp_path):
    path = empty_run(tmp_path / "run")
    store.write_record(path / "run.json", replace(store.read_run(path), status="running"))
    with sole_writer(path):
        assert open_run(path).planned_cells[0].reason == because("not_yet")
    assert open_run(path).planned_cells[0].reason == because("not_started")


def test_only_a_completed_cell_has_a_validity(begun):
    table = tables_of(open_run(begun))["cells"].set_index("number")
    assert table.loc[1, "status"] == "in flight"
    assert table.loc[5, "status"] == "failed"
    assert table["validity"].isna().tolist() == (table["status"] != "completed").tolist()
