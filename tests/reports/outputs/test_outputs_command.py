"""`bench report`: which form it writes, where, and mistakes told in one line."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from make_run import empty_run
from repeated_run import repeated_run, three
from typer.testing import CliRunner

from harness.cli.app import app
from harness.errors import UserError
from reports import TABLES
from reports.outputs.pictures import charts_of


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return repeated_run(tmp_path_factory.mktemp("three") / "run", three(), repeats=3)


def bench(*words: object):
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_without_a_flag_it_writes_the_page_and_prints_its_path(run_dir):
    done = bench(run_dir)
    assert (done.exit_code, done.output.strip()) == (0, str(run_dir / "report.html"))
    assert (run_dir / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["--format", "csv"], "deployment,engine,"),
        (["--table", "verdicts"], "scenario,load,metric,a,b,"),
        (["--format", "markdown"], "### Which engine"),
        (["--json"], "{\n"),
        (["--format", "html", "--output", "-"], "<!doctype html>"),
    ],
)
def test_text_goes_to_standard_output_and_nothing_else(run_dir, words, begins):
    done = bench(run_dir, *words)
    assert done.exit_code == 0
    assert done.stdout.startswith(begins)
    assert done.stderr == ""


def test_parquet_goes_through_a_pipe(run_dir):
    done = bench(run_dir, "--format", "parquet", "--table", "starts", "--output", "-")
    assert len(pd.read_parquet(io.BytesIO(done.stdout_bytes))) == 9


@pytest.mark.parametrize(("name", "begins"), [("a.md", b"###"), ("a.csv", b"deploy"), ("a.json", b"{"),
                                              ("a.parquet", b"PAR1"), ("a.HTML", b"<!doc")])  # fmt: skip
def test_the_outputs_ending_says_the_format(run_dir, tmp_path, name, begins):
    path = tmp_path / name
    done = bench(run_dir, "--output", path)
    assert (done.exit_code, done.output.strip()) == (0, str(path))
    assert path.read_bytes().startswith(begins)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_directory_gets_a_file_for_each_table(run_dir, tmp_path, format_):
    done = bench(run_dir, "--format", format_, "--output", tmp_path / "tables")
    names = [f"{name}.{format_}" for name in TABLES]
    assert [line.rpartition("/")[2] for line in done.output.splitlines()] == names
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == sorted(names)


def test_one_table_goes_to_a_file_and_into_a_directory_that_is_asked_for(run_dir, tmp_path):
    words = ["--format", "csv", "--table", "requests", "--output"]
    bench(run_dir, *words, tmp_path / "one")
    assert (tmp_path / "one").is_file()
    bench(run_dir, *words, f"{tmp_path / 'new'}/")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["requests.csv"]


def test_a_format_that_is_given_goes_into_a_file_of_any_ending(run_dir, tmp_path):
    bench(run_dir, "--format", "markdown", "--output", tmp_path / "summary.txt")
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8").startswith("### ")


def test_without_a_value_there_are_no_charts(tmp_path):
    done = bench(empty_run(tmp_path / "run"), "--charts")
    assert (done.exit_code, done.stdout) == (0, "no charts: no cell has a value\n")
    for name in ("all", "ttft_s-p50-0"):
        done = bench(tmp_path / "run", "--format", "png", "--chart", name)
        assert isinstance(done.exception, UserError)
        assert str(done.exception) == f"--chart {name}: no charts: no cell has a value"


def test_charts_are_listed_with_their_titles(run_dir):
    from reports import open_run

    done = bench(run_dir, "--charts")
    placed = charts_of(open_run(run_dir))
    lines = done.output.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        [name, chart.title] for name, chart in placed.items()
    ]


MISTAKES = [
    (["--json", "--format", "csv"], r"^--format csv and --json are of different formats; give one"),
    (["--output", "x.json", "--format", "csv"], r"^--format csv and --output x\.json are of different"),
    (["--table", "vals"], r"--table vals: no such table; choose from values, verdicts, .*, requests$"),
    (["--table", "values", "--json"], r"--table goes with --format csv or parquet, not json"),
    (["--chart", "ttft_s-p50-0"], r"--chart needs --format png or svg"),
    (
        ["--chart", "x", "--format", "csv"],
        r"^--chart, --theme, --width and --height go with --format png or svg, not csv",
    ),
    (["--theme", "dark"], r"^--chart, --theme, .* go with --format png or svg, not html"),
    (["--format", "png"], r"^png needs --chart ID or --chart all"),
    (["--format", "png", "--chart", "all", "--output", "-"], r"and - is one; give a directory"),
    (["--format", "png", "--chart", "all", "--output", "x.png"], r"x\.png is one; give a directory"),
    (["--format", "parquet"], r"--format parquet needs --output"),
    (["--json", "--output", "."], r"json is one file"),
    (["--output", "adir/"], r"--output adir/: html is one file; give its name, or -"),
    (
        ["--output", "x.docx"],
        r"^--output x\.docx: end it in one of \.html, \.md, \.json, .*, or give --format$",
    ),
    (["--output", ""], r"^--output: its name is empty"),
    (["--output", "x.png"], r"^png needs --chart ID or --chart all"),
    (["--format", "png", "--chart", "nope"], r"^--chart nope: no such chart; --charts lists the ids$"),
    (
        ["--format", "csv", "--output", "absent/absent/x.csv"],
        r"cannot be written \(there is no directory .*absent/absent\)$",
    ),
    (["--charts", "--json"], r"--charts lists the charts and goes with no other option"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_a_mistake_is_one_line(run_dir, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    done = bench(run_dir, *words)
    assert isinstance(done.exception, UserError)
    assert done.exception.exit_code == 2
    assert re.search(said, str(done.exception))
    assert "\n" not in str(done.exception)
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


@pytest.mark.parametrize("words", [["--format", "pdf"], ["--theme", "blue"], ["--width", "10"]])
def test_a_value_that_there_is_not_is_a_mistake(run_dir, words):
    done = bench(run_dir, *words)
    assert (done.exit_code, words[0] in done.stderr) == (2, True)
