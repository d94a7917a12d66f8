"""A disk that is full: one line, what is measured is kept, and the run can go on."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bench_command import begun, bench, ended, made, quick, told
from places import TESTS
from small_disk import small_disk
from waiting import wait_until

from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.store import checksums, store

SIZE_KB = 6000
RESULT = TESTS / "data/foreign/vllm-0.32.0/result.json"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of SIZE_KB."""
    with small_disk(tmp_path / "disk", f"{SIZE_KB}k") as disk:
        yield disk


def fill(disk: Path, but_kb: int = 0) -> Path:
    room = os.statvfs(disk)
    with suppress(OSError):  # the run writes, too: then the disk is as full as it can be
        (disk / "filler").write_bytes(os.urandom(max(0, room.f_bavail * room.f_frsize - but_kb * 1024)))
    return disk / "filler"


@pytest.mark.faults
def test_a_run_is_refused_where_it_has_no_room(small: Path, tmp_path: Path) -> None:
    fill(small, 1000)
    done = bench(made(tmp_path / "p"), "run", *quick(), "--output", small / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("free some, or name another place: --output DIR")
    assert not (small / "run").exists()
    longer = quick("load.duration=10min", "load.concurrency=8")
    more = bench(made(tmp_path / "q"), "run", *longer, "--output", small / "run")
    assert more.returncode == 2
    assert _needed_mb(done.stderr) + 5 < _needed_mb(more.stderr)


@pytest.mark.parametrize("left_kb", [pytest.param(kb, marks=pytest.mark.faults) for kb in (0, 64, 400)] + [8])
def test_a_disk_that_fills_up_ends_a_run_in_one_line_and_it_goes_on(small: Path, tmp_path, left_kb: int):
    place = made(tmp_path / "p")
    words = ["run", *quick("load.duration=2s", "load.keep_bytes=true"), "--quiet", "--output", small / "run"]
    with begun(place, *words) as process:
        wait_until(lambda: list((small / "run").glob("cells/*/rows.jsonl*")), 60)
        filler = fill(small, left_kb)
        done = ended(process)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    # Of the requests that were under way, of the page, and of what was measured last.
    assert len(done.stderr.splitlines()) <= 3
    assert done.stderr.count("No space left on device") == len(done.stderr.splitlines())
    record = json.loads((small / "run/run.json").read_text())
    cells = [json.loads(path.read_text()) for path in (small / "run").glob("cells/001/cell.json")]
    is_whole = [cell["status"] for cell in cells] == ["completed"]
    lost = [line for line in done.stderr.splitlines() if "could not be stored" in line]
    if record["status"] == "completed":  # what failed is on record, or is the page
        assert lost == []
        assert is_whole or ["No space left on device" in cell["error"] for cell in cells] == [True]
    else:
        assert record["status"] == "interrupted"
        assert [_needed_mb(line) > 4 for line in lost] == [True]
        assert not is_whole or [start.status for start in store.read_starts(small / "run")] != ["completed"]
    filler.unlink()
    again = bench(place, "run", "--resume", small / "run", "--quiet")
    assert again.returncode == 0, again.stderr
    assert [cell.status for cell in store.read_cells(small / "run")] == ["completed"]
    assert (small / "run/report.html").stat().st_size > 0


@pytest.mark.faults
@pytest.mark.parametrize("left_kb", [0, 64])
def test_a_disk_that_has_no_room_for_the_page_loses_nothing_else(small: Path, tmp_path: Path, left_kb: int):
    place = made(tmp_path / "p")
    with begun(place, "run", *quick(), "--output", small / "run") as process:
        heard(process, "writing the report")
        filler = fill(small, left_kb)
        done = ended(process)
    (said,) = [line for line in done.stderr.splitlines() if "could not be written" in line]
    assert said.endswith(f"; `bench report {small / 'run'}` tries again")
    assert "No space left on device" in said
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert json.loads((small / "run/run.json").read_text())["status"] == "completed"
    filler.unlink()
    for words in (["report", small / "run"], ["run", "--resume", small / "run"]):
        again = bench(place, *words)
        assert again.returncode == 0, again.stderr
    assert not checksums.findings(small / "run")


@pytest.mark.live
@pytest.mark.faults
def test_a_disk_that_has_no_room_for_answers_of_quality_has_them_asked_again(small: Path, tmp_path: Path):
    place = made(tmp_path / "p")
    place.cache.mkdir()
    for shared in ("engines", "weights", "installer"):
        (place.cache / shared).symlink_to(cache_dir() / shared)
    words = ["quantization=gguf-q8_0,gguf-q4_0", "quality=fidelity", "quality.budget=5s", "load.warmup=0s"]
    words += ["load.duration=1s", "load.min_requests=1", "load.concurrency=1", "repeats=1", "guard=off"]
    with begun(place, "run", *words, "--output", small / "run") as process:
        heard(process, "asking for its quality")
        filler = fill(small)
        done = ended(process)
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr
    assert done.returncode == 1
    assert all(cell.counts for cell in store.read_cells(small / "run"))
    filler.unlink()
    again = bench(place, "run", "--resume", small / "run")
    assert again.returncode == 0, again.stderr
    assert {start.deployment.quantization for start in store.read_starts(small / "run") if start.quality} == {
        "gguf-q8_0", "gguf-q4_0",
    }  # fmt: skip
    assert not checksums.findings(small / "run")


@pytest.mark.parametrize("left_kb", [0, 8, 20])
def test_an_import_that_has_no_room_leaves_nothing(small: Path, tmp_path: Path, left_kb: int) -> None:
    place, words = made(tmp_path / "p"), ("import", RESULT, "--output", small / "run")
    filler = fill(small, left_kb)
    done = told(place, *words)
    assert (done.returncode, done.stdout) == (1, "")
    why = "cannot be written: No space left on device; nothing is kept there"
    assert done.stderr == f"{small / 'run'}: {why}\n"
    assert list(small.iterdir()) == [filler]
    filler.unlink()
    again = told(place, *words)
    assert again.returncode == 0, again.stderr
    assert checksums.findings(small / "run") == []


def heard(process: subprocess.Popen[str], words: str) -> None:
    """Wait until bench says these words."""
    assert process.stderr
    while words not in process.stderr.readline():
        assert process.poll() is None


def _needed_mb(said: str) -> float:
    """The megabytes that a message says are needed."""
    found = re.search(r"(?:needs about|about) ([\d.]+) MB", said)
    assert found, said
    return float(found[1])
