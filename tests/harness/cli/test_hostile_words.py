"""Words that came from outside do nothing on a terminal, whichever command prints them."""

import pytest
from bench_command import Place, told
from make_hostile import STRANGE_NAME, hostile_run

from serving_bench.harness.store import checksums
from serving_bench.reports import open_run, tables_of
from serving_bench.reports.outputs.writing import csv_text

# Starts and ends of a terminal's commands, as a title or the clipboard may be set by, and turned writing.
MOVES = ("\x1b", "\x07", "\x9b", "\r", "\b", "\u202e", "\u2066")
COMMANDS = (
    ("compare", "{a}", "{b}"),
    ("gate", "{a}", "{b}", "slo.success=99%"),
    ("report", "{a}"),
    ("run", "--resume", "{a}"),
    ("view", "{folder}"),
    ("verify", "{a}"),
    ("verify", "{listed}"),
    ("merge", "{a}", "{b}", "--output", "merged"),
    ("merge", "{listed}", "{b}", "--output", "merged"),
    ("bundle", "{a}", "--output", "a.tar.gz"),
    ("bundle", "{named}", "--output", "b.tar.gz"),
    ("rerun", "{a}", "--plan"),
    ("claim", "llama_cpp_flat", "--from", "{a}"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    made = {name: hostile_run(folder / name) for name in ("a", "b", "listed", "named")}
    (made["named"] / "starts" / STRANGE_NAME).symlink_to("/etc/passwd")
    lost = made["listed"] / "starts" / STRANGE_NAME
    lost.write_text("evil")
    checksums.begin(made["listed"])
    checksums.end(made["listed"])
    lost.unlink()
    return {"folder": folder, **made}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nothing_that_is_printed_moves_the_cursor(runs, words, tmp_path):
    done = told(Place(tmp_path), *(word.format_map(runs) for word in words))
    said = done.stdout + done.stderr
    assert said
    assert {each for each in MOVES if each in said} == set()
    # A table's cells may have line ends of their own, but nothing begins with one's words.
    assert [line for line in said.splitlines() if line.startswith("winner:")] == []


def test_nothing_in_a_table_moves_the_cursor(runs, tmp_path):
    said = csv_text(tables_of(open_run(runs["a"]))["cells"])
    assert {each for each in MOVES if each in said} == set()


def test_a_file_with_the_name_of_a_secret_leaves_the_message_whole(tmp_path):
    (tmp_path / "passwd").write_text("no run")
    for word, said in (
        (tmp_path / "passwd", f"{tmp_path}/passwd: not a bundle"),
        ("secret", "secret: no run here"),
        ("api_key=hunter2", "api_key=***: no run here"),
    ):
        done = told(Place(tmp_path), "verify", word)
        assert (done.returncode, done.stderr[: len(said)]) == (2, said)
