"""A load that needs more open files than this system allows is refused before anything starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from bench_command import BENCH, LIMIT_S, made

from harness.contracts import Load
from harness.load.limits import files_needed


@pytest.mark.parametrize("command", ["plan", "run"])
def test_too_many_users_for_the_limit_are_one_line(tmp_path: Path, command: str) -> None:
    place = made(tmp_path / "place")
    shell = f"ulimit -n 4096; exec {BENCH} {command} engine=reference load.concurrency=10000 device=cpu"
    ended = subprocess.run(
        ["sh", "-c", shell],
        cwd=place.path,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("load.concurrency=10000: one process needs 10064 open files")
    assert "this system allows 4096" in line
    assert "ulimit -n 10064" in line
    assert not place.run_dir.exists()
    assert not (place.path / "results").exists()


def test_a_server_here_needs_all_connections_a_load_process_its_share() -> None:
    load = Load(concurrency=1000, workers=4)
    assert files_needed(load, has_server_here=True) == 1064
    assert files_needed(load, has_server_here=False) == 314
    assert files_needed(Load(None, rate_per_s=100), has_server_here=True) == 64
