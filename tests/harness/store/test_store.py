"""What is written to a results directory is read back as it was, and damage is one line."""

import json
import time
from dataclasses import replace

import make_run
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from begun_run import bare_site
from make_run import S

from serving_bench.harness.contracts import GuardFinding, Load, quoted
from serving_bench.harness.contracts.sentences import stored
from serving_bench.harness.errors import StoreError
from serving_bench.harness.run.session import begin
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.store import request_table, store
from serving_bench.harness.store.quality_table import read_items, read_quality


@pytest.fixture
def run(tmp_path):
    return make_run.one_cell_run(tmp_path / "run", [make_run.row(1, 103 * S)])


def complaint(call, *arguments) -> str:
    with pytest.raises(StoreError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_are_read_back_equal(tmp_path):
    plan = make_run.plan_of([make_run.deployment("reference", "-")], [Load(concurrency=2)])
    record = make_run.run_record(plan)
    store.write_record(tmp_path / "run.json", record)
    start = make_run.start_record(
        plan.starts[0], S, error=quoted("it \u2028 said\n\x00"), log_tail="é", exit_code=None
    )
    make_run.write_start(tmp_path, start)
    summary = make_run.summary(100 * S, stamp_lag_s=None)
    make_run.write_cell(
        tmp_path, plan.starts[0].cells[0], plan.starts[0], [], summary, reasons=(quoted("a"), quoted("b"))
    )
    read = store.read_run(tmp_path)
    assert replace(read, settings={key: tuple(values) for key, values in read.settings.items()}) == record
    assert store.read_starts(tmp_path) == [start]
    [cell] = store.read_cells(tmp_path)
    assert (cell.summary, cell.reasons, cell.load) == (
        summary,
        (quoted("a"), quoted("b")),
        Load(concurrency=2),
    )
    assert not list(tmp_path.rglob("*.part"))


def test_what_failed_is_kept_without_what_moves_a_terminal(tmp_path):
    hostile = "it\x1b]52;c;x\x07 said\x9b2J\r\b\nwinner: evil \u202e"
    start = make_run.plan_of([make_run.deployment("reference", "-")], [Load(concurrency=2)]).starts[0]
    make_run.write_start(tmp_path, make_run.start_record(start, S, error=quoted(hostile), log_tail=hostile))
    summary = make_run.summary(100 * S)
    make_run.write_cell(
        tmp_path, start.cells[0], start, [], summary, error=quoted(hostile), reasons=(quoted(hostile),)
    )
    one_line = "it ]52;c;x  said 2J   winner: evil  "
    [read], [cell] = store.read_starts(tmp_path), store.read_cells(tmp_path)
    assert (str(read.error), read.log_tail) == (one_line, one_line.replace("   w", "  \nw"))
    assert (cell.error, cell.reasons) == (quoted(one_line), (quoted(one_line),))
    path = tmp_path / "starts" / start.name / "start.json"
    assert json.loads(path.read_bytes())["error"] == {"kind": "quoted", "text": one_line}


def test_each_fact_of_a_kept_record_is_on_disk_at_once(run):
    kept = store.Kept(run.path / "run.json", replace(store.read_run(run.path), status="running"))
    assert store.read_run(run.path).status == "running"
    kept.update(status="interrupted")
    assert store.read_run(run.path) == kept.record
    assert kept.record.status == "interrupted"


def test_request_rows_are_read_back_with_unknown_values_as_null(tmp_path):
    chunks = tuple(10**15 + k * 7 for k in range(3))
    known = make_run.row(1, 10**15, chunk_ns=chunks)
    never_sent = replace(
        make_run.failed_row(2, 5), sent_ns=None, outcome="connect_error", http_status=None, raw_response=None
    )
    make_run.write_requests(tmp_path, [known, never_sent], None)
    rows = store.read_requests(tmp_path).to_pylist()
    assert [row.pop("in_window") for row in rows] == [None, None]
    as_written = [json.loads(msgspec.json.encode(row)) for row in (never_sent, known)]
    assert rows == as_written, "in the order of sending, or of being due"
    assert rows[0]["chunk_ns"] == []
    assert rows[0]["sent_ns"] is None


def test_a_request_is_in_the_window_by_when_it_was_sent(tmp_path):
    summary = make_run.summary(0, warmup_s=2, duration_s=8)
    at = [2 * S - 1, 2 * S, 10 * S - 1, 10 * S]
    rows = [make_run.row(k, sent) for k, sent in enumerate(at)]
    rows.append(replace(make_run.failed_row(9, S), scheduled_ns=3 * S, sent_ns=None))
    make_run.write_requests(tmp_path, rows, summary)
    table = store.read_requests(tmp_path)
    found = dict(zip(table["request_id"].to_pylist(), table["in_window"].to_pylist(), strict=True))
    assert found == {"r0": False, "r1": True, "r2": True, "r3": False, "r9": True}


def test_instants_are_stored_as_deltas(tmp_path):
    make_run.write_requests(tmp_path, [make_run.row(1, S)], None)
    group = pq.ParquetFile(tmp_path / "requests.parquet").metadata.row_group(0)
    encodings = {group.column(k).path_in_schema: group.column(k).encodings for k in range(group.num_columns)}
    for column in ("sent_ns", "end_ns", "chunk_ns.list.element"):
        assert "DELTA_BINARY_PACKED" in encodings[column], column


def test_no_requests_and_some_columns(tmp_path):
    assert store.read_requests(tmp_path).schema == store.REQUEST_SCHEMA
    assert store.read_requests(tmp_path, ["turn"]).num_rows == 0
    make_run.write_requests(tmp_path, [], None)
    assert store.read_requests(tmp_path).schema == store.REQUEST_SCHEMA
    assert store.read_requests(tmp_path, ["turn", "outcome"]).column_names == ["turn", "outcome"]


def test_last_line_cut_by_a_kill_is_left_out(tmp_path):
    lines = [msgspec.json.encode(make_run.row(k, k * S)) for k in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    assert [row.request_id for row in request_table.read_rows(path)] == ["r0", "r1"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert request_table.read_rows(path) == [make_run.row(k, k * S) for k in range(3)]
    path.write_bytes(lines[0][:20])
    assert request_table.read_rows(path) == []
    assert request_table.read_rows(tmp_path / "absent") == []


def test_samples_are_a_column_per_field_and_none_is_no_file(tmp_path):
    samples = [HostSample(k, 10, 0.5, 4, 1, 0, None, 100, 50.0) for k in range(2)]
    store.write_samples(tmp_path / "host.parquet", samples)
    table = store.read_samples(tmp_path / "host.parquet")
    assert table is not None
    assert table["t_ns"].to_pylist() == [0, 1]
    store.write_samples(tmp_path / "device.parquet", [])
    assert store.read_samples(tmp_path / "device.parquet") is None


def test_a_device_where_a_table_should_be_is_no_missing_one(tmp_path):
    readers = {
        "host.parquet": store.read_samples, "quality.parquet": read_quality, "tasks.parquet": read_items,
        "requests.parquet": lambda path: store.read_requests(path.parent),
        "cell.json": lambda path: store.read_cells(tmp_path),
    }  # fmt: skip
    folder = tmp_path / "cells/001"
    folder.mkdir(parents=True)
    for name, read in readers.items():
        (folder / name).symlink_to("/dev/zero")
        with pytest.raises(StoreError, match=rf"{name}: damaged: not a regular file$"):
            read(folder / name)


def test_a_table_of_answers_without_one_of_its_columns_is_damaged(tmp_path):
    path = tmp_path / "tasks.parquet"
    pq.write_table(pa.table({"task": ["qa"]}), path)
    with pytest.raises(StoreError, match=r"tasks\.parquet: damaged: no column item$"):
        read_items(path)


@pytest.mark.parametrize(
    ("version", "age", "remedy"), [(99, "a newer", "update bench"), (5, "an older", "measure it again")]
)
def test_another_schema_is_refused(run, version, age, remedy):
    path = run.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version, "plan": "another"}))
    said = f"was written by {age} bench (schema {version}); this one reads 6 to 12; {remedy}"
    assert said in complaint(store.read_run, run.path)


@pytest.mark.parametrize("version", [6, 7, 8, 9, 10, 11])
def test_a_run_of_a_format_before_is_read_and_goes_on_in_this_one(run, version):
    path = run.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))
    record = store.read_run(run.path)
    assert record.schema_version == version
    assert store.SCHEMA_VERSION == 12
    assert begin(run.path, record, bare_site(run.path)).record.schema_version == store.SCHEMA_VERSION
    assert store.read_run(run.path).schema_version == store.SCHEMA_VERSION


def test_facts_of_a_device_of_the_format_before_are_read(run):
    facts = (
        {"kind": "foreign_process", "were": "another process was", "device": 0, "holding": ""},
        {"kind": "memory_not_back", "above_gib": 1.0, "memory": "host"},
    )
    path = run.path / "cells" / "000" / "cell.json"
    guard = [{"kind": each["kind"], "fact": each, "when": "before", "validity": "suspect"} for each in facts]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"guard": guard}))
    assert [str(each.fact) for each in store.read_cells(run.path)[0].guard] == [
        "another process was on device 0",
        "1.00 GiB more host memory was in use than before the first start",
    ]


def test_the_reasons_of_a_format_before_are_read_as_texts(run):
    path = run.path / "cells" / "000" / "cell.json"
    seen = {"kind": "foreign_load", "text": "busy", "when": "during", "validity": "suspect", "share": 0.6}
    reasons = ["busy (during the window)", "\x1b[2J"]
    changes = {"error": "it died", "reasons": reasons, "guard": [seen]}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    [cell] = store.read_cells(run.path)
    assert (cell.error, cell.reasons) == (quoted("it died"), (quoted(reasons[0]), quoted(" [2J")))
    assert cell.guard == (GuardFinding("foreign_load", quoted("busy"), "during", "suspect", 0.6),)


@pytest.mark.parametrize("error", [{}, {"kind": "none"}, {"kind": "requests_failed", "failed": 1}, [], 7])
def test_a_fact_that_has_no_sentence_is_damage(run, error):
    path = run.path / "cells" / "000" / "cell.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": error}))
    assert "damaged" in complaint(store.read_cells, run.path)


def test_a_table_without_one_of_its_columns_is_damaged(run):
    path = run.path / "cells" / "000" / "requests.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["worker"]), path)
    assert "damaged: no column worker" in complaint(store.read_requests, path.parent)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "null", '{"schema_version": 1}', '{"schema_version": []}', "\xff"]
)
def test_a_damaged_run_is_one_line(run, content):
    (run.path / "run.json").write_bytes(content.encode("latin-1"))
    assert str(run.path / "run.json") in complaint(store.read_run, run.path)


def test_thousands_of_strange_folders_cost_little(run):
    [cell] = store.read_cells(run.path)
    for number in range(2000):
        (run.path / f"cells/{number:07d}").mkdir()
        (run.path / f"cells/{number + 10:03d}.attempt1.aside").mkdir()
    began_s = time.process_time()
    assert store.read_cells(run.path) == [cell]
    assert time.process_time() - began_s < 2


def test_a_margin_below_zero_is_damage(run):
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    record["compare"]["margin_share"] = -1
    path.write_text(json.dumps(record))
    assert "margin_share: -1.0 is below 0" in complaint(store.read_run, run.path)


@pytest.mark.parametrize("number", [1 << 61, -(1 << 61) - 1, 10**400])
def test_an_instant_whose_distance_to_others_no_column_takes_is_damaged(run, number):
    path = run.path / "cells/000/cell.json"
    record = json.loads(path.read_text())
    record["summary"]["window_end_ns"] = number
    path.write_text(json.dumps(record))
    assert "window_end_ns: a number beyond 62 bits" in complaint(store.read_cells, run.path)


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**400])
def test_a_plan_with_a_number_that_no_column_takes_is_damaged(run, number):
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    record["plan"]["starts"][0]["cells"][0]["seed"] = number
    path.write_text(json.dumps(record))
    assert "a number beyond 64 bits" in complaint(store.read_run, run.path)
    record["plan"]["starts"][0]["cells"][0]["seed"] = min(max(number, -(1 << 63)), (1 << 63) - 1)
    path.write_text(json.dumps(record))
    store.read_run(run.path)


def test_damaged_starts_and_cells_are_one_line(run):
    [start], [cell] = run.path.glob("starts/*/start.json"), run.path.glob("cells/*/cell.json")
    start.write_text("{")
    cell.write_text('{"number": "one"}')
    assert str(start) in complaint(store.read_starts, run.path)
    assert str(cell) in complaint(store.read_cells, run.path)


def test_a_directory_without_a_run_names_what_is_missing(tmp_path):
    assert "run.json is missing" in complaint(store.read_run, tmp_path)


def test_each_earlier_attempt_at_a_cell_is_kept(tmp_path):
    for attempt in ("first", "second", "third"):
        (store.begin_cell(tmp_path, 7) / "who").write_text(attempt)
    kept = {path.parent.name: path.read_text() for path in tmp_path.rglob("who")}
    assert kept == {"007": "third", "007.attempt1": "first", "007.attempt2": "second"}
    assert store.read_cells(tmp_path) == []


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_swap_of_attempts_that_was_cut_short_loses_no_cell(run, renamed):
    """As a kill leaves it after one or two of the three renames."""
    path = store.cell_dir(run.path, 0)
    [before] = store.read_cells(run.path)
    attempt = store.begin_cell(run.path, 0)
    busy = GuardFinding(
        "foreign_load", quoted("other programs used 80 % of the processor"), "during", "suspect"
    )
    before = replace(before, validity="suspect", guard=(busy,))
    store.write_record(path / "cell.json", before)
    better = replace(before, validity="valid", guard=(), reasons=(quoted("measured again"),))
    store.write_record(attempt / "cell.json", better)
    aside = path.rename(f"{attempt}.aside")
    if renamed == 2:
        attempt.rename(path)
    assert store.read_cells(run.path) == [better]
    assert (store.cell_dir(run.path, 0) / "cell.json").is_file()
    third = store.begin_cell(run.path, 0)
    assert third.name == "000.attempt2"
    assert not aside.exists()
    assert json.loads((attempt / "cell.json").read_text())["reasons"] == [*map(stored, before.reasons)]
    store.write_record(third / "cell.json", better)
    assert not store.settle(third, better)
    assert store.read_cells(run.path) == [better]


def disturbed(kind: str, share: float, when: str = "during") -> GuardFinding:
    return GuardFinding(kind, quoted("in words"), when, "suspect", share)


LIGHT, HEAVY = disturbed("foreign_load", 0.16), disturbed("foreign_load", 0.8)
LOOKED = disturbed("foreign_load", 0.9, "before")
STOLEN, THROTTLED = disturbed("steal", 0.1), disturbed("throttled", 0.9)


@pytest.mark.parametrize(
    ("first", "second", "is_second_better"),
    [
        ([LIGHT], [HEAVY], False),
        ([HEAVY], [LIGHT], True),
        ([HEAVY], [LIGHT, LOOKED], True),
        ([LIGHT], [LIGHT], False),
        ([STOLEN], [HEAVY], False),
        ([STOLEN, HEAVY], [LIGHT], True),
        ([HEAVY], [THROTTLED], True),  # its own heat does not count
        ([THROTTLED], [], False),
        ([LIGHT], [LIGHT, HEAVY], False),
        ([], [], False),
    ],
)
def test_of_two_attempts_the_less_disturbed_one_stays_whichever_came_first(
    run, first, second, is_second_better
):
    path = store.cell_dir(run.path, 0)
    [cell] = store.read_cells(run.path)
    store.write_record(path / "cell.json", replace(cell, validity="suspect", guard=tuple(first)))
    attempt = store.begin_cell(run.path, 0)
    again = replace(cell, validity="suspect", guard=tuple(second))
    store.write_record(attempt / "cell.json", again)
    assert store.settle(attempt, again) == is_second_better
    assert list(store.read_cells(run.path)[0].guard) == (second if is_second_better else first)


@pytest.mark.parametrize(
    ("first", "second", "is_second_better"),
    [
        ({"validity": "suspect"}, {"guard": ()}, True),
        ({"guard": ()}, {"guard": ()}, False),
        ({"status": "failed"}, {"status": "failed", "error": "again"}, True),
        ({"status": "interrupted"}, {"status": "completed", "validity": "invalid"}, True),
        ({"validity": "invalid"}, {"status": "failed"}, False),
    ],
)
def test_an_attempt_that_is_worth_more_stays_and_a_new_failure_replaces_an_old_one(
    run, first, second, is_second_better
):
    [cell] = store.read_cells(run.path)
    assert replace(cell, **second).replaces(replace(cell, **first)) == is_second_better
