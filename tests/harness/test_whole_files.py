"""Files are written whole or not at all, also by two processes at once."""

import os
import subprocess
import sys
from pathlib import Path

import make_run
import pytest
from places import ROOT

from serving_bench.harness.store import store
from serving_bench.harness.store.store import Phase
from serving_bench.harness.whole_files import remove_left, write_whole, written_whole

WRITER = """
import sys
from pathlib import Path
from serving_bench.harness.whole_files import write_whole
for _ in range(200):
    write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 200_000)
"""


def test_a_file_takes_the_place_of_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"before")
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_moved_into_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_that_was_laid_where_a_file_is_written_changes_nothing_elsewhere(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / "a.json.guessed.part").symlink_to(other)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.json", b"ours")
    (tmp_path / f"b.json.{os.getpid()}.part").symlink_to(other)
    (tmp_path / "b.json").symlink_to(other)
    write_whole(tmp_path / "b.json", b"ours")
    assert other.read_bytes() == b"theirs"
    assert not (tmp_path / "b.json").is_symlink()


def test_what_a_killed_process_had_begun_to_write_is_removed_and_nothing_else(tmp_path: Path) -> None:
    begun = "import os, signal; from pathlib import Path\nfrom serving_bench.harness.whole_files import *\n"
    begun += "with written_whole(Path('cells/a.json')): os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "cells").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", begun], cwd=tmp_path, env=environment, check=False)
    assert len(list(tmp_path.glob("cells/a.json.*.part"))) == 1
    (tmp_path / "mine.part").write_bytes(b"of a user")
    with written_whole(tmp_path / "b.json") as part:
        remove_left(tmp_path)
        assert {path.name for path in tmp_path.rglob("*.part")} == {"mine.part", part.name}
        part.write_bytes(b"whole")
    assert (tmp_path / "b.json").read_bytes() == b"whole"


def test_two_processes_that_write_the_same_file_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    argv = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*argv, letter], cwd=ROOT) for letter in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert set(path.read_bytes()) in ({ord("a")}, {ord("b")})
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_its_name_is_and_the_name_after_it(tmp_path, monkeypatch):
    done: list[str] = []
    sync, move = os.fsync, os.replace

    def seen_sync(descriptor: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix or 'folder'}")
        sync(descriptor)

    def seen_move(source: Path, target: Path) -> None:
        done.append("move")
        move(source, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(os, "replace", seen_move)
    write_whole(tmp_path / "a.json", b"text")
    assert done == ["sync .part", "move", "sync folder"]


def test_tables_of_a_run_are_synced_once_and_not_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    store.write_samples(tmp_path / "host.parquet", [Phase("ready", k) for k in range(500)])
    make_run.write_requests(tmp_path, [make_run.row(k, k) for k in range(500)], None)
    tables = [name for name in synced if name.endswith(".part")]
    assert [Path(name).name.split(".")[0] for name in tables] == ["host", "requests"]
    assert len(synced) == 4
