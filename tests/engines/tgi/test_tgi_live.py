"""A real TGI (`make test-tgi`): one that bench starts, or one that runs already.

TGI_PROGRAM: the path of a text-generation-launcher, with text-generation-server and text-generation-router on
PATH. TGI_URL: the address of a running router, as http://HOST:PORT/v1.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from asking import streamed
from bench_command import Place, begun, bench, ended, made, quick
from huggingface_hub import InferenceClient
from waiting import wait_until

from serving_bench.engines.model.weights import find
from serving_bench.engines.tgi.engine import ENGINE
from serving_bench.harness.contracts import Weights
from serving_bench.harness.install.install import cache_dir

pytestmark = pytest.mark.engines

PROGRAM = os.environ.get("TGI_PROGRAM") or shutil.which("text-generation-launcher")
URL = os.environ.get("TGI_URL")


def measured(tmp_path: Path, *keys: str) -> Place:
    """A run of one user, from its start to its report: without flash attention a shard may serve no two."""
    place = made(tmp_path / "place")
    short = ("scenario.system_words=40", "scenario.output_tokens=8")
    asked = quick("engine=tgi", "load.concurrency=1", *short, *keys)
    done = bench(
        place, "run", *asked, "--output", place.run_dir, limit_s=240, BENCH_CACHE_DIR=str(cache_dir())
    )
    assert done.returncode == 0, done.stderr
    [start], [cell] = place.starts(), place.cells().values()
    assert start["version"]
    assert start["resolved"]["context_length"] > start["resolved"]["max_input_tokens"]
    assert cell["status"] == "completed"
    assert "tgi" in place.report()
    return place


NEEDS_PROGRAM = pytest.mark.skipif(
    PROGRAM is None, reason="no text-generation-launcher on PATH; TGI_PROGRAM=/path/to/it names yours"
)
STARTED = (
    "engine.launcher=native",
    f"tgi.program={PROGRAM}",
    "quantization=bf16",
    "engine.start_timeout=10min",
    # Before it listens, a shard reads as many tokens as its largest prefill may have.
    "engine.context_length=1024",
    "tgi.max_batch_prefill_tokens=1024",
)


@NEEDS_PROGRAM
def test_one_is_started_measured_and_stopped(tmp_path: Path) -> None:
    place = measured(tmp_path, "model=smollm2-135m", *STARTED)
    [start] = place.starts()
    assert {"weights_begin", "weights_loaded"} <= start["stages"].keys()
    assert start["repeats_answers"] is True
    place.wait_until_empty()


@NEEDS_PROGRAM
def test_a_launcher_that_is_killed_leaves_no_shard_and_no_router(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    keys = quick("engine=tgi", "model=smollm2-135m", "load.concurrency=1", "load.duration=1min", *STARTED)
    words = ("run", *keys, "--output", place.run_dir)
    with begun(place, *words, BENCH_CACHE_DIR=str(cache_dir())) as process:
        wait_until(lambda: any(each["ready_ns"] for each in place.starts()), 300)
        assert "text-generation-router" in {each.name() for each in place.processes()}
        os.kill(place.starts()[0]["pid"], signal.SIGKILL)
        done = ended(process)
    assert done.returncode == 1
    assert "was killed by signal 9 (SIGKILL)" in done.stderr
    place.wait_until_empty()


@NEEDS_PROGRAM
def test_a_model_that_the_shard_refuses_is_its_own_error_line(tmp_path: Path) -> None:
    found = find(Weights("smollm2-135m", "fp16", "safetensors"), cache_dir())
    if found is None:
        pytest.skip("no checkpoint here (run `bench prepare engine=transformers quantization=fp16`)")
    place, odd = made(tmp_path / "place"), tmp_path / "odd"
    shutil.copytree(found.path, odd)
    config = odd / "config.json"
    told = json.loads(config.read_text()) | {"model_type": "nosuch", "architectures": ["NoSuchModel"]}
    config.write_text(json.dumps(told))
    keys = quick("engine=tgi", f"model={odd}", *STARTED)
    done = bench(
        place, "run", *keys, "--output", place.run_dir, limit_s=240, BENCH_CACHE_DIR=str(cache_dir())
    )
    assert done.returncode == 1
    assert "ValueError: Unsupported model type nosuch" in done.stderr
    place.wait_until_empty()


@pytest.mark.skipif(URL is None, reason="TGI_URL=http://HOST:PORT/v1 names a router that runs")
def test_a_running_one_is_measured_whatever_its_model_is_called(tmp_path: Path) -> None:
    measured(tmp_path, "model=tgi", f"engine.base_url={URL}")


@pytest.mark.skipif(URL is None, reason="TGI_URL=http://HOST:PORT/v1 names a router that runs")
def test_hugging_faces_own_client_reads_as_many_tokens() -> None:
    decoded, outcome = streamed(ENGINE, str(URL), 120)
    with InferenceClient(
        str(URL).removesuffix("/v1"), provider="hf-inference", token="none", timeout=120
    ) as client:
        messages = [{"role": "user", "content": "again"}]
        # Without this TGI counts nothing for a stream.
        asked = {"include_usage": True}
        chunks = list(client.chat_completion(messages, max_tokens=32, stream=True, stream_options=asked))
    usage, choices = chunks[-1].usage, [choice for chunk in chunks for choice in chunk.choices]
    assert usage is not None
    assert (outcome, decoded.input_tokens) == (("ok", None), usage.prompt_tokens)
    assert choices[-1].finish_reason in ("length", "stop")
    # One event per token, of which the last may only end the answer.
    assert len(choices) == usage.completion_tokens <= 32
