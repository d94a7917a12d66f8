"""A run asks each deployment once, after its load, and nothing of that is in what the load measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench_command import Place, begun, bench, ended, side_by_side
from gguf_bytes import gguf_of_type
from held_ports import held_port
from places import TESTS
from shell_script import python_program
from waiting import wait_until

from serving_bench.harness.servers import probe
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import QUALITY_FILE
from serving_bench.harness.store.quality_table import read_quality
from serving_bench.reports import open_run
from serving_bench.reports.data import heard_of

Done = subprocess.CompletedProcess[str]
CACHING = TESTS / "support/servers/caching_server.py"


@contextmanager
def caching(mode: str = "") -> Iterator[tuple[str, ...]]:
    """Run the server, and yield the keys that attach to it."""
    with held_port() as port:
        argv, url = [sys.executable, str(CACHING), "--port", str(port)], f"http://127.0.0.1:{port}"
        with subprocess.Popen(argv, env={**os.environ, "CACHING_SERVER": mode}) as server:
            try:
                wait_until(lambda: probe.request("GET", f"{url}/health", timeout_s=1).status)
                yield "engine=openai", f"engine.base_url={url}/v1", "model=tiny"
            finally:
                server.kill()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Done]]:
    place = Place(tmp_path_factory.mktemp("quality"))
    with caching() as attach:
        load = ("load.warmup=0.2s", "load.duration=1s", "load.concurrency=1,3")
        words = (*attach, *load, "repeats=2", "quality=fidelity", "guard=off")
        yield place, bench(place, "run", *words, "--output", "run")


def test_it_is_asked_after_the_load_of_one_start(asked: tuple[Place, Done]) -> None:
    place, run = asked
    assert run.returncode == 0, run.stderr
    first, second = store.read_starts(place.run_dir)
    assert first.quality is not None
    assert second.quality is None
    names = [phase.name for phase in first.phases]
    assert names[-2:] == ["quality", "stopping"]
    assert "quality" not in [phase.name for phase in second.phases]
    assert first.quality.in_flight == 3, "the highest load"
    assert list(first.quality.missing) == ["text"]


def test_what_it_said_is_kept(asked: tuple[Place, Done]) -> None:
    place, _ = asked
    first = store.read_starts(place.run_dir)[0]
    rows = read_quality(place.run_dir / "starts" / first.name / QUALITY_FILE)
    assert {row.way for row in rows} == {"chat", "again", "load"}
    assert {token.name for row in rows for token in row.tokens} == {"word"}


def test_no_sample_is_of_that_time(asked: tuple[Place, Done]) -> None:
    place, _ = asked
    first = store.read_starts(place.run_dir)[0]
    began_ns = next(phase.t_ns for phase in first.phases if phase.name == "quality")
    samples = store.read_samples(place.run_dir / "starts" / first.name / "host.parquet")
    assert samples is not None
    assert 0 < max(samples["t_ns"].to_pylist()) <= began_ns


def test_the_run_says_what_it_does_not_know(asked: tuple[Place, Done]) -> None:
    _, run = asked
    assert ", 12 s of it for quality (at most 24 s)\n" in run.stderr
    said = "quality of 1 deployment after the load of its first start: fidelity (12 s, at most 24 s)\n"
    assert said in run.stderr
    assert "given texts not measured: its API gives no probabilities for a given text" in run.stderr


def test_one_that_said_nothing_is_asked_again_on_its_next_start(tmp_path: Path) -> None:
    place = Place(tmp_path)
    load = ("repeats=2", "load.warmup=0.2s", "load.duration=1s", "guard=off", "quality=fidelity")
    with caching("deaf") as attach:
        run = bench(place, "run", *attach, *load, "--output", "run")
    said = "gave no answers for its quality; its next start, or --resume, asks it again"
    assert run.stderr.count(said) == 2, run.stderr
    assert all(start.quality for start in store.read_starts(place.run_dir))


def test_a_request_that_hangs_keeps_no_interrupted_bench(tmp_path: Path) -> None:
    place = Place(tmp_path)
    load = ("repeats=1", "load.warmup=0.2s", "load.duration=1s", "guard=off", "quality=fidelity")
    words = (*load, "quality.budget=10min", "--output", "run")
    with caching("mute") as attach, begun(place, "run", *attach, *words) as run:
        assert run.stderr
        assert any("quality, 10 minutes, at most 20 minutes" in line for line in run.stderr)
        run.send_signal(signal.SIGINT)
        done = ended(run)  # well before the request would be given up
    assert done.returncode == 128 + signal.SIGINT
    assert "`bench run --resume run` goes on with it" in done.stderr


# --- ended while a deployment's only start was asked -------------------------------------------------


def ended_by(number: int, place: Place) -> Done:
    """A run whose server does not answer when it is asked, ended by a signal meanwhile."""
    program = python_program(place.path / "llama-server", CACHING)
    (place.path / "tiny.gguf").write_bytes(gguf_of_type(1))
    server = ("engine=llama_cpp", f"llama_cpp.program={program}", "model=tiny.gguf", "quantization=fp16")
    load = ("load.warmup=0.2s", "load.duration=1s", "load.concurrency=3", "repeats=1", "device=cpu")
    words = (*server, *load, "guard=off", "quality=fidelity", "quality.budget=10min")
    with begun(place, "run", *words, "--output", "run", CACHING_SERVER="mute") as run:
        assert run.stderr
        assert any("asking for its quality" in line for line in run.stderr)
        run.send_signal(number)
        return ended(run)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """By signal: the place, how the run was ended, what was measured by then, and how it went on."""

    def story(number: int, place: Place) -> tuple[Place, Done, dict[Path, bytes], Done]:
        first = ended_by(number, place)
        cells = {path: path.read_bytes() for path in place.run_dir.glob("cells/*/*") if path.is_file()}
        return place, first, cells, bench(place, "run", "--resume", "run")

    stories = {
        number.name: (lambda place, number=number: story(number, place))
        for number in (signal.SIGKILL, signal.SIGINT)
    }
    with side_by_side(tmp_path_factory.mktemp("ended"), stories) as told:
        yield {name: each.result() for name, each in told.items()}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_resume_starts_a_server_once_more_for_its_quality_alone(resumed, name):
    place, first, cells, done = resumed[name]
    assert first.returncode in (-signal.SIGKILL, 128 + signal.SIGINT)
    assert done.returncode == 0, done.stderr
    assert "started once more, only for quality: llama_cpp fp16" in done.stderr
    lost, alone = store.read_starts(place.run_dir)
    assert (lost.quality, lost.is_for_quality) == (None, False)
    assert alone.quality is not None
    assert (alone.status, alone.is_for_quality) == ("completed", True)
    assert alone.quality.in_flight == 3, "the highest load that was measured before"
    assert not any(phase.name.startswith("cell") for phase in alone.phases)
    assert {path: path.read_bytes() for path in cells} == cells, "nothing was measured again"


def test_an_interrupt_says_how_its_quality_is_asked(resumed):
    _, first, _, _ = resumed["SIGINT"]
    assert "`bench run --resume run` goes on with it" in first.stderr


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_of_speed_such_a_start_tells_nothing(resumed, name):
    place, _, _, _ = resumed[name]
    run = open_run(place.run_dir)
    assert set(run.record.looks) == {1}, "no look at more starts was spent on it"
    assert [start.is_for_quality for start in run.start_records] == [False]
    assert list(heard_of(run)) == list(run.deployments)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_what_was_asked_is_not_asked_again(resumed, name):
    place, *_ = resumed[name]
    again = bench(place, "run", "--resume", "run")
    assert again.returncode == 0, again.stderr
    assert "every cell is completed; nothing to measure" in again.stderr
    assert "quality" not in again.stderr.partition("writing the report")[0]
    assert len(store.read_starts(place.run_dir)) == 2
