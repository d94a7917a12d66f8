"""The list of a run's checksums: what is on it when, and that it tells of every change."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from bench_command import Place, told
from make_run import empty_run

from serving_bench.harness.errors import Interrupted, StoreError
from serving_bench.harness.run import session
from serving_bench.harness.store import checksums
from serving_bench.harness.store.checksums import Finding, findings


def files_of(run_dir: Path) -> list[Path]:
    return [run_dir / name for name, _ in checksums.files(run_dir)]


def test_a_finished_run_is_all_on_its_list_which_sha256sum_reads(measured_run):
    listed = {line[66:] for line in (measured_run / "SHA256SUMS").read_text().splitlines()}
    assert listed == {name for name, _ in checksums.files(measured_run)}
    assert {"run.json", "report.html", "cells/002/requests.parquet"} < listed
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=measured_run)
    assert done.returncode == 0
    said = told(Place(measured_run.parent), "verify", "run")
    assert (said.returncode, said.stdout) == (0, f"run: {len(listed)} files, all as written\n")


def test_one_bit_flipped_in_any_file_is_found(run_copy):
    for path in [*files_of(run_copy), run_copy / "SHA256SUMS"]:
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert findings(run_copy), f"bit flipped at {at} of {path}"
        path.write_bytes(whole)
    assert findings(run_copy) == []


def test_what_happened_to_a_file_is_told(run_copy, tmp_path):
    table, record = run_copy / "cells/001/requests.parquet", run_copy / "run.json"
    table.write_bytes(table.read_bytes()[:-9])
    record.write_bytes(record.read_bytes().replace(b"reference", b"deference", 1))
    (run_copy / "cells/002/cell.json").unlink()
    (run_copy / "cells/002/notes.txt").write_text("mine")
    (run_copy / "cells/002/load.log").unlink()
    (run_copy / "cells/002/load.log").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(run_copy / "starts/pipe")
    (run_copy / "run.json.0123456789abcdef.part").write_bytes(b"{")
    (run_copy / "notes.txt").write_text("mine")
    (run_copy / "headline.json").write_text("made again when it does not fit")
    assert findings(run_copy) == [
        Finding("cells/001/requests.parquet", "torn"),
        Finding("cells/002/cell.json", "missing"),
        Finding("cells/002/load.log", "strange"),
        Finding("cells/002/notes.txt", "unlisted"),
        Finding("notes.txt", "unlisted"),
        Finding("run.json", "changed"),
        Finding("run.json.0123456789abcdef.part", "torn"),
        Finding("starts/pipe", "strange"),
    ]
    said = told(Place(tmp_path), "verify", "run")
    assert said.returncode == 1
    assert "cells/002/cell.json: missing (on the list and not there)\n" in said.stdout
    said = told(Place(tmp_path), "verify", "run", "--json")
    assert (said.returncode, len(json.loads(said.stdout)["findings"])) == (1, 8)


@pytest.mark.parametrize("name", ["run.json", "report.html", "cells/001/requests.parquet"])
def test_a_file_is_torn_where_its_end_is_lost(run_copy, name):
    whole = (run_copy / name).read_bytes()
    (run_copy / name).write_bytes(whole[: len(whole) // 2])
    assert findings(run_copy) == [Finding(name, "torn")]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("run.json", lambda whole: whole + b"one line more\n"),
        ("report.html", lambda whole: whole + b"one line more\n"),
        ("report.html", lambda whole: b"another page\n"),
        ("cells/001/requests.parquet", lambda whole: b"no table"),
    ],
)
def test_a_file_that_was_not_cut_is_changed(run_copy, name, change):
    (run_copy / name).write_bytes(change((run_copy / name).read_bytes()))
    assert findings(run_copy) == [Finding(name, "changed")]


def test_a_folder_that_is_a_link_or_endless_is_not_entered(run_copy, tmp_path):
    shutil.move(run_copy / "cells", tmp_path / "cells")
    (run_copy / "cells").symlink_to(tmp_path / "cells")
    deep = run_copy / "starts" / "/".join("a" * 900)
    os.makedirs(deep)
    (run_copy / "starts/huge.log").touch()
    os.truncate(run_copy / "starts/huge.log", 1 << 40)
    found = {each.file: each.fault for each in findings(run_copy)}
    assert (found["cells"], found["starts/a/a/a/a"]) == ("strange", "strange")
    assert (found["starts/huge.log"], found["cells/001/cell.json"]) == ("strange", "missing")


@pytest.mark.parametrize("left", [b"", b"half"])
def test_a_list_that_was_cut_is_named_where_files_are_not_on_it(run_copy, left):
    listed = run_copy / "SHA256SUMS"
    lines = listed.read_bytes().splitlines(keepends=True)
    listed.write_bytes(left and b"".join(lines[: len(lines) // 2]))
    assert "not in SHA256SUMS" in (checksums.told(run_copy, findings(run_copy)) or "")
    assert "not in SHA256SUMS" in told(Place(run_copy.parent), "verify", run_copy.name).stdout


def test_a_list_that_is_a_link_is_damaged(run_copy):
    (run_copy / "SHA256SUMS").unlink()
    (run_copy / "SHA256SUMS").symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="SHA256SUMS: damaged: a link"):
        findings(run_copy)


def test_a_run_of_an_earlier_bench_has_no_list_and_gets_none_by_a_report(run_copy, tmp_path):
    (run_copy / "SHA256SUMS").unlink()
    said = told(Place(tmp_path), "verify", "run")
    assert (said.returncode, said.stdout) == (1, "run: has no list of checksums (SHA256SUMS)\n")
    assert told(Place(tmp_path), "report", "run").returncode == 0
    assert not (run_copy / "SHA256SUMS").exists()
    (run_copy / "cells/001/cell.json").write_text('{"number":')
    assert findings(run_copy) == [Finding("cells/001/cell.json", "torn")]


def test_where_no_run_is_verify_ends_with_2(tmp_path):
    said = told(Place(tmp_path), "verify", ".")
    assert (said.returncode, "no run here" in said.stderr) == (2, True)


def test_a_page_that_is_drawn_again_is_listed_again(run_copy, tmp_path):
    (run_copy / "report.html").write_text("changed")
    assert findings(run_copy) == [Finding("report.html", "changed")]
    assert told(Place(tmp_path), "report", "run", "--output", "page.html").returncode == 0
    assert findings(run_copy) == [Finding("report.html", "changed")], "it was drawn elsewhere"
    assert told(Place(tmp_path), "report", "run").returncode == 0
    assert findings(run_copy) == []


def test_what_changes_is_off_the_list_until_it_is_whole(run_copy):
    def interrupted() -> None:
        with session.sole_writer(run_copy), checksums.changing(run_copy, "starts/01-reference"):
            checksums.begin(run_copy)
            (run_copy / "run.json").write_bytes(b"{}\n")
            (run_copy / "starts/01-reference/server.log").write_bytes(b"more")
            # This is what a kill would leave.
            assert {each.fault for each in findings(run_copy)} == {"unlisted"}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert findings(run_copy) == [], "an interrupt puts all that is there on the list"


def test_two_that_change_the_list_at_once_put_back_no_line_that_the_other_took_off(tmp_path):
    run = empty_run(tmp_path / "run")
    names = [f"cells/{number:03d}/cell.json" for number in range(60)]
    for name in ("report.html", *names):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"{}\n")
    checksums.begin(run)
    checksums.end(run)
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            with checksums.changing(run, "report.html"):
                pass

    other = threading.Thread(target=draw)
    other.start()
    for name in names:
        checksums.unlist(run, name)
    done.set()
    other.join()
    assert [str(each) for each in findings(run) if each.fault != "unlisted"] == []
    listed = (run / "SHA256SUMS").read_text()
    assert [name for name in names if name in listed] == []


def test_a_line_is_put_at_the_end_of_a_list_also_behind_one_that_a_kill_cut(tmp_path):
    run = empty_run(tmp_path / "run")
    checksums.begin(run)
    for number in (2, 1):
        cell = run / f"cells/{number:03d}/cell.json"
        cell.parent.mkdir(parents=True)
        cell.write_bytes(b"{}\n")
        before = (run / "SHA256SUMS").stat().st_ino
        checksums.relist(run, f"cells/{number:03d}")
        assert (run / "SHA256SUMS").stat().st_ino == before, (
            "a list of thousands is not written for each cell"
        )
    names = ["cells/002/cell.json", "cells/001/cell.json"]
    assert [line[66:] for line in (run / "SHA256SUMS").read_text().splitlines()] == names
    os.truncate(run / "SHA256SUMS", (run / "SHA256SUMS").stat().st_size - 9)
    assert findings(run) == [Finding("cells/001/cell.json", "unlisted"), Finding("run.json", "unlisted")]
    checksums.relist(run, "run.json")
    assert findings(run) == [Finding("cells/001/cell.json", "unlisted")]
    checksums.end(run)
    names = ["cells/001/cell.json", "cells/002/cell.json", "run.json"]
    assert [line[66:] for line in (run / "SHA256SUMS").read_text().splitlines()] == names
    assert findings(run) == []


def test_a_list_that_is_none_hides_no_interrupt(tmp_path):
    run = empty_run(tmp_path / "run")
    (run / "SHA256SUMS").mkdir()
    with pytest.raises(Interrupted), session.sole_writer(run):
        raise Interrupted(signal.SIGINT)


def test_a_resume_that_is_refused_hides_no_change(run_copy, tmp_path):
    (run_copy / "run.json").write_bytes(
        (run_copy / "run.json").read_bytes().replace(b'"concurrency": 1', b'"concurrency": 3', 1)
    )
    changed = findings(run_copy)
    assert told(Place(tmp_path), "run", "--resume", "run", "--quiet").returncode == 2
    assert findings(run_copy) == changed == [Finding("run.json", "changed")]


def test_absurdly_many_files_are_refused(run_copy, monkeypatch):
    monkeypatch.setattr(checksums, "_MOST_FILES", 5)
    with pytest.raises(StoreError, match="more than 5 files"):
        findings(run_copy)
