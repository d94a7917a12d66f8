"""Files that a user names: never one of a run's own, whichever command writes them."""

from pathlib import Path

import pytest
from repeated_run import repeated_run, three
from typer.testing import CliRunner

from serving_bench.harness.cli.app import app
from serving_bench.harness.errors import UserError
from serving_bench.harness.store.named_files import check_named, write_named


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return repeated_run(tmp_path / "runs" / "one", three()[:2], repeats=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


A, B = (made.deployment.label for made in three()[:2])
GATE = ["gate", "{run}:" + A, "{run}:" + B, "gate.metric=ttft_s.p50"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["report", "{run}", "--output"], "cells/001/page.html"),
        (["report", "{run}", "--output"], "run.json"),
        (["report", "{run}", "--output"], "starts/../cells/002/new.md"),
        (["report", "{run}", "--table", "requests", "--output"], "cells/001/requests.parquet"),
        (["view", "{run}/..", "--output"], "run.json"),
        (["compare", "{run}:" + A, "{run}:" + B, "--html"], "run.json"),
        ([*GATE, "--junit"], "cells/001/cell.json"),
        ([*GATE, "--markdown"], "run.json"),
    ],
)
def test_no_command_writes_over_a_runs_own_file(run, words, name):
    before = contents(run)
    done = CliRunner().invoke(app, [*(word.format(run=run) for word in words), f"{run}/{name}"])
    assert isinstance(done.exception, UserError), done.output
    assert done.exception.exit_code == 2
    assert str(done.exception) == f"{run / name}: belongs to the run in {run}; give another file"
    after = contents(run)
    after.pop("headline.json", None)
    assert after == before


def test_a_directory_is_known_by_any_of_its_names(run, tmp_path):
    (tmp_path / "link").symlink_to(run / "cells" / "001")
    with pytest.raises(UserError, match=f"belongs to the run in {run}; "):
        check_named(tmp_path / "link" / "cell.json")


@pytest.mark.parametrize("name", ["headline.json", ".lock", "cells", "starts/x", "RUN.json"])
def test_what_bench_keeps_in_a_run_is_no_users_file(run, name):
    with pytest.raises(UserError, match="belongs to the run in"):
        check_named(run / name)


def test_a_runs_directory_takes_other_files_and_others_take_any_name(run, tmp_path):
    for path in (run / "report.html", run / "cells.csv", tmp_path / "run.json", run.parent / "cells"):
        write_named(path, b"x")
        assert path.read_bytes() == b"x"


def test_a_link_is_replaced_and_not_followed(run, tmp_path):
    link = tmp_path / "mine.json"
    link.symlink_to(run / "run.json")
    before = (run / "run.json").read_bytes()
    write_named(link, b"x")
    assert (link.read_bytes(), (run / "run.json").read_bytes()) == (b"x", before)


def test_what_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"absent/x\.md: cannot be written \(there is no directory .*absent\)"
    ):
        write_named(tmp_path / "absent" / "x.md", b"x")
    with pytest.raises(UserError, match="name of the file to write is empty"):
        write_named(Path(""), b"x")
