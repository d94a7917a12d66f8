"""What a page costs grows with a run's cells, not faster, and hardly with its requests.

It is counted in calls, which are the same on a busy machine. benchmarks/report.py measures the seconds.
"""

import cProfile
import pstats
from pathlib import Path
from typing import Any

import pytest
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Load
from serving_bench.reports import write_report


def calls(path: Path, requests: int = 12, repeats: int = 3, loads: int = 2) -> int:
    """Return how many functions are called to write the page of such a run."""
    made = [Made(deployment("vllm", "fp16")), Made(deployment("vllm", "awq"), 1.3)]
    levels = [Load(concurrency=2**level) for level in range(loads)]
    repeated_run(path, made, levels, repeats=repeats, requests=requests)
    with cProfile.Profile() as profile:
        write_report(path)
    found: Any = pstats.Stats(profile)
    return int(found.total_calls)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("small")
    calls(folder / "first")  # which imports and fills what is kept
    return calls(folder / "run")


def test_ten_times_the_requests_are_a_tenth_more_work_at_most(tmp_path: Path, small: int) -> None:
    assert calls(tmp_path / "run", requests=120) < 1.1 * small


@pytest.mark.parametrize("more", [{"repeats": 6}, {"loads": 4}])
def test_twice_the_cells_are_twice_the_work_at_most(tmp_path: Path, small: int, more: dict[str, int]) -> None:
    assert calls(tmp_path / "run", **more) < 2 * small
