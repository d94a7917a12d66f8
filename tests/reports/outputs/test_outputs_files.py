"""CSV, Parquet and JSON of a run: read back as they were, inert in a spreadsheet, without secrets."""

from __future__ import annotations

import csv
import io
import json

import pandas as pd
import pytest
from make_run import HOSTILE, S, all_failed_run, every_load_run, failed_row, full_run, one_cell_run
from repeated_run import repeated_run, three
from typer.testing import CliRunner

from harness.cli.app import app
from reports import TABLES, open_run, tables_of
from reports.outputs.tables import json_text
from reports.outputs.writing import Asked, csv_text, write_output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(repeated_run(tmp_path_factory.mktemp("three"), three()))


def read_back(text: str, like: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), dtype=dict(like.dtypes.items()))


@pytest.mark.parametrize("name", ["values", "verdicts", "starts", "objectives"])
def test_csv_is_read_back_as_it_was(run, name):
    frame = tables_of(run)[name]
    pd.testing.assert_frame_equal(read_back(csv_text(frame), frame), frame, check_dtype=False)


def test_csv_keeps_lines_quotes_and_commas_in_their_field(tmp_path):
    frame = tables_of(open_run(full_run(tmp_path)))["skips"]
    [head, row] = csv.reader(io.StringIO(csv_text(frame)))
    assert head == ["what", "reason"]
    assert row == ["tgi awq", f"no such pair {HOSTILE}"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1"])
def test_csv_has_no_formula(text):
    [_, [said, quantization]] = csv.reader(
        io.StringIO(csv_text(pd.DataFrame({"text": [text], "quantization": ["-"]})), newline="")
    )
    assert said == "'" + text.replace("\r", "\n")
    assert quantization == "-"


def test_numbers_below_zero_stay_numbers():
    assert csv_text(pd.DataFrame({"value": [-1.5]})) == "value\n-1.5\n"


def test_parquet_is_read_back_as_it_was(run, tmp_path):
    for _ in write_output(run.path, Asked("parquet", output=f"{tmp_path}/")):
        pass
    for name, frame in tables_of(run).items():
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), frame)


def test_requests_have_no_secrets(tmp_path):
    token = "sk-verysecretvalue0123456789"
    made = one_cell_run(tmp_path, [failed_row(0, 103 * S, error=f"refused: Bearer {token}")])
    text = CliRunner().invoke(app, ["report", str(made.path), "--table", "requests"]).stdout
    assert "refused: Bearer" in text
    assert token not in text


def test_json_has_no_number_that_json_does_not_know(tmp_path):
    for make in (all_failed_run, every_load_run):
        text = json_text(open_run(make(tmp_path / make.__name__)))

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        found = json.loads(text, parse_constant=refuse)
        assert list(found["tables"]) == list(TABLES)


def test_json_has_the_answer_with_its_marks_and_null_for_what_is_missing(run):
    found = json.loads(json_text(run))
    assert found["format"] == 2
    assert "1.25x" in " ".join(found["answer"]["sentences"])
    ids = {row["check"] for row in found["tables"]["findings"]}
    assert set(found["answer"]["marks"]) <= ids
    p99 = [row for row in found["tables"]["values"] if row["metric"] == "ttft_s.p99"]
    assert {row["value"] for row in p99} == {None}
    assert all(row["why"] for row in p99)


def test_json_has_the_same_rows_as_the_tables(run):
    found = json.loads(json_text(run))["tables"]
    for name, frame in tables_of(run).items():
        assert len(found[name]) == len(frame)
    first = found["verdicts"][0]
    assert first["ratio"] == tables_of(run)["verdicts"].iloc[0]["ratio"]
