"""Bundles: a run in one file, the same bytes each time, and what anyone may have put into such a file."""

import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from make_run import empty_run

from serving_bench.harness.errors import BenchError, StoreError
from serving_bench.harness.store import checksums, store
from serving_bench.harness.store.bundle import opened_run, write_bundle


def contents(folder: Path) -> dict[str, bytes]:
    names = ["SHA256SUMS", *(name for name, _ in checksums.files(folder))]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def good(measured_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "good.tar.gz"
    write_bundle(measured_run, path)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bundles are unpacked during a test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_bundle_holds_the_whole_run_and_is_the_same_each_time(measured_run, good, tmp_path, temporary):
    with opened_run(good) as run_dir:
        assert run_dir.name == "run"
        assert contents(run_dir) == contents(measured_run)
        assert store.read_run(run_dir) == store.read_run(measured_run)
    assert list(temporary.iterdir()) == []
    write_bundle(measured_run, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == good.read_bytes()
    assert good.stat().st_mode & 0o777 == 0o600, "it holds what users said"


def test_what_is_not_a_runs_own_is_not_in_its_bundle(run_copy, tmp_path):
    (run_copy / "notes.txt").write_text("mine")
    write_bundle(run_copy, tmp_path / "b.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        names = [member.name for member in tar.getmembers()]
    assert names == [names[0], *sorted(names[1:])]
    assert not {"run/notes.txt", "run/.lock", "run/headline.json"} & {*names}


def test_a_log_of_equal_lines_is_bundled_and_opened(tmp_path):
    log = empty_run(tmp_path / "run") / "starts/01-reference/server.log"
    log.parent.mkdir(parents=True)
    log.touch()
    os.truncate(log, 70 << 20)
    write_bundle(tmp_path / "run", tmp_path / "b.tar.gz")
    with opened_run(tmp_path / "b.tar.gz") as run_dir:
        assert (run_dir / "starts/01-reference/server.log").stat().st_size == 70 << 20


def test_a_folder_whose_name_no_bundle_can_have_is_refused(tmp_path):
    odd = empty_run(tmp_path / "odd\x1b name")
    with pytest.raises(BenchError, match=r"a bundle cannot have the folder's name .*; rename the folder"):
        write_bundle(odd, tmp_path / "b.tar.gz")
    assert list(tmp_path.iterdir()) == [odd]


def test_a_run_without_a_list_is_bundled_with_one(tmp_path):
    write_bundle(empty_run(tmp_path / "run"), tmp_path / "b.tar.gz")
    with opened_run(tmp_path / "b.tar.gz") as run_dir:
        assert checksums.findings(run_dir) == []
        assert [name for name, _ in checksums.files(run_dir)] == ["run.json"]


@pytest.mark.parametrize("harm", ["changed", "torn", "missing", "strange"])
def test_a_damaged_run_is_not_bundled(run_copy, tmp_path, harm):
    table = run_copy / "cells/001/requests.parquet"
    whole = table.read_bytes()
    table.unlink()
    if harm == "strange":
        table.symlink_to("/etc/passwd")
    elif harm != "missing":
        table.write_bytes(whole[:-4] if harm == "torn" else whole[:99] + b"?" + whole[100:])
    with pytest.raises(StoreError, match=f"cells/001/requests.parquet is {harm}"):
        write_bundle(run_copy, tmp_path / "b.tar.gz")
    assert list(tmp_path.iterdir()) == [run_copy]


def test_no_flipped_bit_and_no_cut_gives_other_contents(good, measured_run, tmp_path):
    whole, bad = good.read_bytes(), tmp_path / "bad.tar.gz"
    damaged = [whole[:at] for at in (0, 1, 9, 20, len(whole) // 2, len(whole) - 1)]
    for at in range(0, len(whole), len(whole) // 40):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused = []
    for each in damaged:
        bad.write_bytes(each)
        try:
            with opened_run(bad) as run_dir:
                assert contents(run_dir) == contents(measured_run)
        except BenchError as error:
            refused.append(str(error))
    assert len(refused) > len(damaged) - 8, "some bits mean nothing, as those of the time in gzip's head"
    assert not [each for each in refused if "\n" in each]


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes], before: bytes = b"") -> Path:
    """A tar.gz of these members, behind bytes of one's own."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data) if data else None)
    path.write_bytes(gzip.compress(before + file.getvalue()))
    return path


def member(name: str, data: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in changes.items():
        setattr(made, key, value)
    return made, data


def listing(*names: str) -> tuple[tarfile.TarInfo, bytes]:
    """A list of checksums of these files."""
    return member("run/SHA256SUMS", b"".join(b"%064d  %s\n" % (0, name.encode()) for name in names))


def appended(path: Path, inside: bytes = b"", behind: bytes = b"") -> Path:
    """A whole bundle with more bytes after the end of the archive, or behind the compressed data."""
    write_bundle(empty_run(path.with_name("run")), path)
    shutil.rmtree(path.with_name("run"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + inside) + behind)
    return path


SUMS = listing("run.json", "cells", "cells/a", "cells/A", "cells/null", "cells/pipe")
PAX = tarfile.TarInfo("x")
PAX.type = tarfile.XHDTYPE
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a link": (
        lambda p: packed(p, SUMS, member("run/cells", type=tarfile.SYMTYPE, linkname="/etc")), "cells",
    ),
    "a hard link": (
        lambda p: packed(p, SUMS, member("run/run.json", type=tarfile.LNKTYPE, linkname="run/SHA256SUMS")),
        "run.json",
    ),
    "an absolute name": (lambda p: packed(p, member("/etc/cron.d/x", b"x")), "/etc/cron.d/x"),
    "a way up": (lambda p: packed(p, member("run/cells/../../../x", b"x")), "not a file of a run"),
    "a way up at first": (lambda p: packed(p, member("../cells/x", b"x")), "not a file of a run"),
    "no name": (lambda p: packed(p, member("run//run.json", b"x")), "not a file of a run"),
    "a control character": (lambda p: packed(p, member("run/cells/\x1b[2J", b"x")), "not a file of a run"),
    "two of a name": (lambda p: packed(p, SUMS, SUMS), "is there twice"),
    "two of a name in capitals": (
        lambda p: packed(p, SUMS, member("run/cells/a", b"x"), member("run/cells/A", b"y")), "is there twice",
    ),
    "a file that is a folder": (
        lambda p: packed(p, SUMS, member("run/cells", b"x"), member("run/cells/a", b"y")), "damaged",
    ),
    "two runs": (lambda p: packed(p, SUMS, member("other/run.json", b"{}")), "is in a second folder"),
    "a device": (
        lambda p: packed(p, member("run/cells/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), "null",
    ),
    "a pipe": (lambda p: packed(p, member("run/cells/pipe", type=tarfile.FIFOTYPE)), "pipe"),
    "a folder": (lambda p: packed(p, member("run/cells", type=tarfile.DIRTYPE)), "not a file of a run"),
    "something else": (lambda p: packed(p, member("run/install.sh", b"x")), "install.sh"),
    "no list": (lambda p: packed(p, member("run/run.json", b"{}")), "is not on its list SHA256SUMS, which"),
    "a file that is not on its list": (
        lambda p: packed(p, SUMS, member("run/cells/b", b"x")), "'run/cells/b' is not on its list SHA256SUMS",
    ),
    "more files than its bytes can hold": (
        lambda p: packed(p, listing(*(f"cells/{number}" for number in range(20_000))), SUMS), "20,000 files",
    ),
    "no files": (lambda p: packed(p), "SHA256SUMS is missing"),
    "a bomb": (lambda p: packed(p, SUMS, member("run/run.json", bytes(200 << 20))), "are not a run"),
    "a size that is not there": (
        lambda p: packed(p, before=member("run/SHA256SUMS", size=1 << 50)[0].tobuf()), "are not a run",
    ),
    "a size below 0, which would make room for a bomb": (
        lambda p: packed(p, SUMS, member("run/cells/a", size=-511), member("run/run.json", b"{}")),
        "'run/cells/a' is not a file of a run",
    ),
    "a header as a bomb": (
        lambda p: packed(
            p, before=member("x", type=tarfile.XHDTYPE, size=100 << 20)[0].tobuf() + bytes(100 << 20)
        ),
        "a header of",
    ),
    "a thousand headers of one file": (lambda p: packed(p, before=PAX.tobuf() * 1000), "a header of"),
    "bytes after the archive": (lambda p: appended(p, inside=b"x"), "bytes after the end"),
    "zeros after the archive": (lambda p: appended(p, inside=bytes(20_000)), "bytes after the end"),
    "bytes behind": (lambda p: appended(p, behind=b"more"), "damaged"),
    "zeros behind": (lambda p: appended(p, behind=bytes(9)), "bytes after the end"),
    "a second archive behind": (lambda p: appended(p, behind=gzip.compress(b"x")), "bytes after the end"),
    "nothing, compressed, behind": (lambda p: appended(p, behind=gzip.compress(b"")), "bytes after the end"),
    "no tar": (lambda p: packed(p, before=b"some text" * 99), "not a bundle"),
    "no gzip": (lambda p: (p.write_bytes(b"some text"), p)[1], "not a bundle"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_bundle_is_refused_in_one_line_and_leaves_nothing(what, tmp_path, temporary):
    make, said = HOSTILE[what]
    path = make(tmp_path / "bad.tar.gz")
    with pytest.raises(BenchError) as refused, opened_run(path):
        pass
    assert said in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert str(refused.value).isprintable()
    assert list(temporary.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [path, temporary]


def test_a_sparse_file_is_refused(tmp_path):
    data = b"GNU.sparse.major=1\n"
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 45)}
    path = packed(tmp_path / "bad.tar.gz", member("run/cells/a", data, pax_headers=headers))
    with pytest.raises(BenchError), opened_run(path):
        pass


def test_a_bundle_of_a_newer_bench_says_so(run_copy, tmp_path):
    record = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_text(json.dumps({**record, "schema_version": 99}) + "\n")
    checksums.relist(run_copy, "run.json")
    members = (member(f"run/{name}", data) for name, data in contents(run_copy).items())
    newer = packed(tmp_path / "newer.tar.gz", *members)
    with opened_run(newer) as run_dir, pytest.raises(StoreError) as refused:
        store.read_run(run_dir)
    assert "was written by a newer bench (schema 99)" in str(refused.value)


def test_a_directory_is_opened_as_it_is(run_copy):
    with opened_run(run_copy) as run_dir:
        assert run_dir == run_copy


def test_an_unreadable_bundle_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with opened_run(tmp_path / "pipe") as path:
        assert path == tmp_path / "pipe"


def test_a_folder_in_a_files_place_is_damage_in_one_line(run_copy):
    record = run_copy / "starts/01-reference/start.json"
    record.unlink()
    record.mkdir()
    with pytest.raises(StoreError, match="not a regular file"):
        store.read_starts(run_copy)
