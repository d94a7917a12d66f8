"""A run asks each deployment once, after its load, and nothing of that is in what the load measured."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from bench_command import Place, bench
from places import TESTS
from waiting import wait_until

from harness.servers import probe
from harness.servers.server import free_port
from harness.store import store
from harness.store.quality_table import FILE_NAME, read_quality

Done = subprocess.CompletedProcess[str]
CACHING = TESTS / "support/servers/caching_server.py"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    place, port = Place(tmp_path_factory.mktemp("quality")), free_port()
    attach = ("engine=openai", f"engine.base_url=http://127.0.0.1:{port}/v1", "model=tiny")
    with subprocess.Popen([sys.executable, str(CACHING), "--port", str(port)], env={**os.environ}) as server:
        try:
            wait_until(lambda: probe.request("GET", f"http://127.0.0.1:{port}/health", timeout_s=1).status)
            load = ("load.warmup=0.2s", "load.duration=1s", "load.concurrency=1,3")
            words = (*attach, *load, "repeats=2", "quality=fidelity", "guard=off")
            yield place, bench(place, "run", *words, "--output", "run")
        finally:
            server.kill()


def test_it_is_asked_after_the_load_of_one_start(ended: tuple[Place, Done]) -> None:
    place, run = ended
    assert run.returncode == 0, run.stderr
    first, second = store.read_starts(place.run_dir)
    assert first.quality is not None
    assert second.quality is None
    names = [phase.name for phase in first.phases]
    assert names[-2:] == ["quality", "stopping"]
    assert "quality" not in [phase.name for phase in second.phases]
    assert first.quality.in_flight == 3, "the highest load"
    assert list(first.quality.missing) == ["text"]


def test_what_it_said_is_kept(ended: tuple[Place, Done]) -> None:
    place, _ = ended
    first = store.read_starts(place.run_dir)[0]
    rows = read_quality(place.run_dir / "starts" / first.name / FILE_NAME)
    assert {row.way for row in rows} == {"chat", "again", "load"}
    assert {token.name for row in rows for token in row.tokens} == {"word"}


def test_no_sample_is_of_that_time(ended: tuple[Place, Done]) -> None:
    place, _ = ended
    first = store.read_starts(place.run_dir)[0]
    began_ns = next(phase.t_ns for phase in first.phases if phase.name == "quality")
    samples = store.read_samples(place.run_dir / "starts" / first.name / "host.parquet")
    assert samples is not None
    assert 0 < max(samples["t_ns"].to_pylist()) <= began_ns


def test_the_run_says_what_it_does_not_know(ended: tuple[Place, Done]) -> None:
    _, run = ended
    assert "quality: 1 deployment, for up to 12 s after the load of its first start" in run.stderr
    assert "quality by text not measured: its API tells no probabilities of a given text" in run.stderr
