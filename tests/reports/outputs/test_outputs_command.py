"""`bench report`: which form it writes, where, and mistakes told in one line."""

import io
import re

import pandas as pd
import pytest
from make_run import empty_run
from repeated_run import LOADS, repeated_run, three
from typer.testing import CliRunner

from serving_bench.harness.cli.app import app
from serving_bench.harness.errors import UserError
from serving_bench.reports import TABLES, open_run
from serving_bench.reports.outputs.pictures import charts_of


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return repeated_run(tmp_path_factory.mktemp("two") / "run", three()[:2], LOADS[:1], repeats=1, requests=5)


def bench(*words: object):
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_without_a_flag_it_writes_the_page_and_prints_its_path(run_dir):
    done = bench(run_dir)
    assert (done.exit_code, done.output.strip()) == (0, str(run_dir / "report.html"))
    assert (run_dir / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "begins"),
    [(["--format", "csv"], "deployment,engine,"), (["--table", "verdicts"], "scenario,load,metric,a,b,"),
     (["--format", "markdown"], "### Which quantization"), (["--json"], "{\n"),
     (["--format", "md"], "### Which quantization"),
     (["--format", "html", "--output", "-"], "<!doctype html>")],
)  # fmt: skip
def test_text_goes_to_standard_output_and_nothing_else(run_dir, words, begins):
    done = bench(run_dir, *words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(begins)


def test_parquet_goes_through_a_pipe(run_dir):
    done = bench(run_dir, "--format", "parquet", "--table", "starts", "--output", "-")
    assert len(pd.read_parquet(io.BytesIO(done.stdout_bytes))) == 2


@pytest.mark.parametrize(
    ("name", "words", "begins"),
    [("a.md", [], b"###"), ("a.csv", [], b"deploy"), ("a.json", [], b"{"), ("a.parquet", [], b"PAR1"),
     ("a.HTML", [], b"<!doc"), ("a.txt", ["--format", "markdown"], b"### "),
     ("one", ["--format", "csv", "--table", "requests"], b"cell,")],
)  # fmt: skip
def test_a_file_has_the_format_that_is_given_or_that_its_ending_says(run_dir, tmp_path, name, words, begins):
    done = bench(run_dir, *words, "--output", tmp_path / name)
    assert (done.exit_code, done.output.strip()) == (0, str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("words", "name", "files"),
    [(["--format", "csv"], "tables", [f"{name}.csv" for name in TABLES]),
     (["--format", "csv", "--table", "requests"], "new/", ["requests.csv"])],
)  # fmt: skip
def test_a_directory_gets_a_file_for_each_table(run_dir, tmp_path, words, name, files):
    done = bench(run_dir, *words, "--output", f"{tmp_path}/{name}")
    assert [line.rpartition("/")[2] for line in done.output.splitlines()] == files
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(files)


def test_charts_are_listed_with_their_titles(run_dir, tmp_path):
    lines = bench(run_dir, "--charts").output.splitlines()
    placed = charts_of(open_run(run_dir))
    assert [line.split(maxsplit=1) for line in lines] == [
        [name, chart.title] for name, chart in placed.items()
    ]
    said = "no charts: no cell has a value"
    assert bench(empty_run(tmp_path / "run"), "--charts").stdout == f"{said}\n"
    done = bench(tmp_path / "run", "--format", "png", "--chart", "all")
    assert (type(done.exception), str(done.exception)) == (UserError, f"--chart all: {said}")


MISTAKES = {
    "--json --format csv": r"^--format csv and --json name different formats; give one",
    "--output x.json --format csv": r"^--format csv and --output x\.json name different",
    "--table vals": r"--table vals: no such table; did you mean values\? choose from values, .*, requests$",
    "--table values --json": r"--table goes with --format csv or parquet, not json",
    "--chart ttft_s-p50-0": r"--chart needs --format png or svg",
    "--chart x --format csv": r"^--chart goes with --format png or svg, not csv",
    "--format png": r"^png needs --chart ID or --chart all",
    "--output x.png": r"^png needs --chart ID or --chart all",
    "--format png --chart nope": r"^--chart nope: no such chart; --charts lists the ids$",
    "--format png --chart all --output -": r"and - is one; give a directory",
    "--format png --chart all --output x.png": r"x\.png is one; give a directory",
    "--format parquet": r"--format parquet needs --output",
    "--json --output .": r"json is one file",
    "--output adir/": r"--output adir/: html is one file; give its name, or -",
    "--output x.docx": r"^--output x\.docx: end it in one of \.html, \.md, \.json, .*, or give --format$",
    "--output=": r"^--output: the name is empty",
    "--format csv --output absent/absent/x.csv": r"there is no directory .*absent/absent\)$",
    "--output absent/x.md": r"^--output absent/x\.md: cannot be written \(there is no directory absent\)$",
    "--format pdf": r"^--format pdf: no such format; choose from html, markdown, .*, svg$",
    "--charts --json": r"--charts lists the charts and goes with no other option",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(run_dir, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = bench(run_dir, *words.split())
    assert isinstance(done.exception, UserError)
    assert re.search(MISTAKES[words], str(done.exception))
    assert "\n" not in str(done.exception)
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])
