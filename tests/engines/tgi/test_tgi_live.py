"""A real TGI (`make test-tgi`): one that bench starts, or one that runs already.

TGI_PROGRAM: the path of a text-generation-launcher, with text-generation-server and text-generation-router on
PATH. TGI_URL: the address of a running router, as http://HOST:PORT/v1.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from bench_command import Place, bench, made, quick

from harness.install.install import cache_dir

pytestmark = pytest.mark.engines

PROGRAM = os.environ.get("TGI_PROGRAM") or shutil.which("text-generation-launcher")
URL = os.environ.get("TGI_URL")


def measured(tmp_path: Path, *keys: str) -> Place:
    """A run of one user, from its start to its report: without flash attention a shard may serve no two."""
    place = made(tmp_path / "place")
    asked = [
        key for key in quick("engine=tgi", "load.concurrency=1", *keys) if not key.startswith("reference.")
    ]
    done = bench(place, "run", *asked, "--output", place.run_dir, BENCH_CACHE_DIR=str(cache_dir()))
    assert done.returncode == 0, done.stderr
    [start], [cell] = place.starts(), place.cells().values()
    assert start["version"]
    assert start["resolved"]["context_length"] > start["resolved"]["max_input_tokens"]
    assert cell["status"] == "completed"
    assert "tgi" in place.report()
    return place


@pytest.mark.skipif(
    PROGRAM is None, reason="no text-generation-launcher on PATH; TGI_PROGRAM=/path/to/it names yours"
)
def test_one_is_started_measured_and_stopped(tmp_path: Path) -> None:
    place = measured(
        tmp_path,
        "engine.launcher=native",
        f"tgi.program={PROGRAM}",
        "model=smollm2-135m",
        "quantization=bf16",
        "engine.start_timeout=10min",
    )
    assert {"weights_begin", "weights_loaded"} <= place.starts()[0]["stages"].keys()
    place.wait_until_empty()


@pytest.mark.skipif(URL is None, reason="TGI_URL=http://HOST:PORT/v1 names a router that runs")
def test_a_running_one_is_measured_whatever_its_model_is_called(tmp_path: Path) -> None:
    measured(tmp_path, "model=tgi", f"engine.base_url={URL}")
