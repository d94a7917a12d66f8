"""CSV, Parquet and JSON of a run: read back as they were, inert in a spreadsheet, without secrets."""

import csv
import io
import json

import pandas as pd
import pytest
from make_run import HOSTILE, S, all_failed_run, every_load_run, failed_row, one_cell_run
from repeated_run import repeated_run, three
from typer.testing import CliRunner

from serving_bench.harness.cli.app import app
from serving_bench.reports import open_run, tables_of
from serving_bench.reports.outputs.as_json import json_text
from serving_bench.reports.outputs.writing import Asked, csv_text, write_output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(repeated_run(tmp_path_factory.mktemp("three"), three()))


def test_csv_and_parquet_are_read_back_as_they_were(run, tmp_path):
    assert len(list(write_output(run.path, Asked("parquet", output=f"{tmp_path}/")))) == len(tables_of(run))
    for name, frame in tables_of(run).items():
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), frame)
        if name in ("values", "verdicts", "starts", "objectives"):
            found = pd.read_csv(io.StringIO(csv_text(frame)), dtype=dict(frame.dtypes.items()))
            pd.testing.assert_frame_equal(found, frame, check_dtype=False)


def test_csv_keeps_lines_quotes_and_commas_in_their_field(full):
    frame = tables_of(full)["skips"]
    rows = list(csv.reader(io.StringIO(csv_text(frame))))
    said = HOSTILE.replace("\u2028", " ")  # a separator of lines that nobody sees
    assert rows == [["what", "reason"], ["tgi awq", f"no such pair {said}"]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1"])
def test_csv_has_no_formula(text):
    frame = pd.DataFrame({"text": [text], "quantization": ["-"], "value": [-1.5]})
    [_, row] = csv.reader(io.StringIO(csv_text(frame), newline=""))
    assert row == ["'" + text.replace("\r", "\n"), "-", "-1.5"]


def test_requests_have_no_secrets(tmp_path):
    token = "sk-verysecretvalue0123456789"
    made = one_cell_run(tmp_path, [failed_row(0, 103 * S, error=f"refused: Bearer {token}")])
    text = CliRunner().invoke(app, ["report", str(made.path), "--table", "requests"]).stdout
    assert "refused: Bearer" in text
    assert token not in text


@pytest.mark.parametrize("make", [all_failed_run, every_load_run])
def test_json_has_no_number_that_json_does_not_know(tmp_path, make):
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(json_text(open_run(make(tmp_path))), parse_constant=refuse)


def test_json_has_the_answer_the_tables_rows_and_null_for_what_is_missing(run):
    found, tables = json.loads(json_text(run)), tables_of(run)
    assert found["format"] == 5
    assert "1.25x" in " ".join(each["sentence"] for each in found["answers"])
    assert {each["check"] for each in found["distrust"]} == {
        row["check"] for row in found["tables"]["findings"]
    }
    assert {name: len(rows) for name, rows in found["tables"].items()} == {
        n: len(t) for n, t in tables.items()
    }
    assert found["tables"]["verdicts"][0]["ratio"] == tables["verdicts"].iloc[0]["ratio"]
    p99 = [row for row in found["tables"]["values"] if row["metric"] == "ttft_s.p99"]
    assert {row["value"] for row in p99} == {None}
    assert all(row["why"] for row in p99)
