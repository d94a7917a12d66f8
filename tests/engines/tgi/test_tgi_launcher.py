"""A launcher of the user's own: its command line, its log and a whole run.

tests/support/servers/tgi_server.py stands for it; test_tgi_replayed.py has what a real one answered.
"""

import os
import subprocess
from pathlib import Path

import pytest
from bench_command import bench, made, quick
from checkpoint_files import write_checkpoint
from places import TESTS
from shell_script import python_program, shell_script
from waiting import wait_until

from serving_bench.engines.tgi.engine import ENGINE, Options
from serving_bench.harness.contracts import Deployment, EngineTerms, NativeSpec, Place
from serving_bench.harness.servers.scrape import fetch_facts
from serving_bench.harness.servers.server import free_port


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    return python_program(tmp_path / "text-generation-launcher", TESTS / "support/servers/tgi_server.py")


def test_a_launcher_of_the_users_own_takes_the_command_line(tmp_path: Path, launcher: Path) -> None:
    scratch = tmp_path / ("long" * 30)  # longer than the path of a socket may be
    scratch.mkdir()
    terms = EngineTerms(
        launcher="native", context_length=512, concurrent_sequences=2, prefix_cache=True, graphs=False
    )
    deployment = Deployment("tgi", "m", "bf16", terms, Options(program=str(launcher)), "tgi")
    place = Place(None, tmp_path, "127.0.0.1", free_port(), scratch, launcher)
    spec = ENGINE.launch(deployment, place)
    assert isinstance(spec, NativeSpec)
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            spec.argv, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **spec.environment}
        )
    try:
        wait_until(lambda: process.poll() is not None or b"Connected" in log.read_bytes())
        facts = wait_until(lambda: fetch_facts(spec.base_url, ENGINE.pages))
    finally:
        process.terminate()
        process.wait()
    assert ENGINE.said(log.read_text(), facts).terms == {
        "attention_backend": "flashinfer", "prefix_cache": True, "chunked_prefill": True, "graphs": False,
        "max_batch_total_tokens": 200000, "max_batch_prefill_tokens": 4096, "kv_cache_tokens": 200000,
        "engine_version": "3.3.6-dev0 (db931fcf42da018a3657580c64bf2720f167f9ab)", "context_length": 512,
        "max_input_tokens": 511, "max_concurrent_requests": 4096,
    }  # fmt: skip
    assert (scratch / "out" / "tokenizer.json").is_file()
    assert (scratch / "shard-0").is_socket()


@pytest.mark.parametrize(("attention", "is_named"), [("flashinfer", True), ("paged", False)])
def test_a_start_keeps_no_note_that_its_server_s_log_contradicts(
    tmp_path: Path, launcher: Path, attention: str, is_named: bool
) -> None:
    place = made(tmp_path / "place")
    model = write_checkpoint(tmp_path / "checkpoint")
    keys = quick("engine=tgi", f"tgi.program={launcher}", f"model={model}", "quantization=bf16", "device=cpu")
    own = ("engine.launcher=native", "engine.context_length=2048")
    done = bench(place, "run", *keys, *own, "--output", place.run_dir, ATTENTION=attention)
    assert done.returncode == 0, done.stderr
    [start] = place.starts()
    assert start["resolved"]["chunked_prefill"] is is_named
    assert ("concurrent_sequences" in start["unmatched"]) is is_named
    # That it cannot be told a number of tokens is so in either case.
    assert "kv_cache_tokens" in start["unmatched"]


def test_a_program_that_is_no_launcher_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    program = shell_script(tmp_path / "launcher", 'echo "launcher: unknown option $1" >&2\nexit 64')
    model = write_checkpoint(tmp_path / "checkpoint")
    keys = quick("engine=tgi", f"tgi.program={program}", f"model={model}", "quantization=bf16", "device=cpu")
    own = ("engine.launcher=native", "engine.context_length=2048")
    done = bench(place, "run", *keys, *own, "--output", place.run_dir)
    assert done.returncode == 1
    said = next(line for line in done.stderr.splitlines() if "exited" in line)
    assert "exited with code 64 after" in said
    assert "launcher: unknown option --" in said
    place.wait_until_empty()
