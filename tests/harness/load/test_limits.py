"""A load that needs more open files than this system allows is refused before anything starts."""

import subprocess
from pathlib import Path

import pytest
from bench_command import BENCH, LIMIT_S, made

SERVED = "engine=reference load.concurrency=10000 device=cpu"
# A server elsewhere needs none here, and each load process its share.
ATTACHED = "engine=openai engine.base_url=http://127.0.0.1:9/v1 model=m load.concurrency=20000 load.workers=4"


@pytest.mark.parametrize(
    ("words", "concurrency", "needed", "most"),
    [
        (f"plan {SERVED}", 10000, 10064, 4032),
        (f"run {SERVED}", 10000, 10064, 4032),
        (f"plan {SERVED} scenario=agent_loop scenario.parallel=3", 10000, 30064, 1344),
        (f"plan {ATTACHED}", 20000, 5064, 16128),
    ],
)
def test_too_many_users_for_the_limit_are_one_line(
    tmp_path: Path, words: str, concurrency: int, needed: int, most: int
) -> None:
    place = made(tmp_path / "place")
    shell = f"ulimit -n 4096; exec {BENCH} {words}"
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
    assert line.startswith(f"load.concurrency={concurrency}: one process needs {needed} open files")
    assert "this system allows 4096" in line
    assert f"ulimit -n {needed}" in line
    assert line.endswith(f"load.concurrency={most} or less")
    assert not place.run_dir.exists()
    assert not (place.path / "results").exists()
