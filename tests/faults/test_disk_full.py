"""A disk that is full: one line, what is measured is kept, and the run can go on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_command import begun, bench, ended, made, quick
from waiting import wait_until

SIZE_KB = 6000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of SIZE_KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", disk],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        wait_until(lambda: subprocess.run(["umount", disk], check=False).returncode == 0, 30)


def fill(disk: Path, but_kb: int = 0) -> Path:
    room = os.statvfs(disk)
    (disk / "filler").write_bytes(os.urandom(max(0, room.f_bavail * room.f_frsize - but_kb * 1024)))
    return disk / "filler"


@pytest.mark.faults
def test_a_run_is_refused_where_it_has_no_room(small: Path, tmp_path: Path) -> None:
    fill(small, 1000)
    done = bench(made(tmp_path / "p"), "run", *quick(), "--output", small / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("free some, or name another place: --output DIR")
    assert not (small / "run").exists()


@pytest.mark.faults
@pytest.mark.parametrize("left_kb", [0, 8, 64, 400])
def test_a_disk_that_fills_up_ends_a_run_in_one_line_and_it_goes_on(
    small: Path, tmp_path: Path, left_kb: int
) -> None:
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
    assert record["status"] in ("interrupted", "completed")
    filler.unlink()
    again = bench(place, "run", "--resume", small / "run", "--quiet")
    assert again.returncode == 0, again.stderr
    assert (small / "run/report.html").stat().st_size > 0
