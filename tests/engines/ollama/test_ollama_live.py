"""A real Ollama (`make test-ollama`): one that bench starts, or one that runs already.

OLLAMA_PROGRAM: its path, else the ollama on PATH. OLLAMA_URL and OLLAMA_MODEL: address and model of a running
one. Beside it llama.cpp serves the same weights.
"""

import os
import shutil
from pathlib import Path

import pytest
from bench_command import bench, made, quick

from serving_bench.engines.model.weights import find
from serving_bench.harness.contracts import Weights
from serving_bench.harness.install.install import cache_dir

pytestmark = pytest.mark.engines

QUANTIZATION = "gguf-q4_0"
PROGRAM = os.environ.get("OLLAMA_PROGRAM") or shutil.which("ollama")
URL, MODEL = os.environ.get("OLLAMA_URL"), os.environ.get("OLLAMA_MODEL")


@pytest.mark.skipif(PROGRAM is None, reason="no ollama on PATH; OLLAMA_PROGRAM=/path/ollama names yours")
def test_its_prompts_are_those_of_llama_cpp_and_it_says_what_it_uses(tmp_path: Path) -> None:
    found = find(Weights("smollm2-135m", QUANTIZATION, "gguf"), cache_dir())
    if found is None:
        pytest.skip(f"no weights here (run `bench prepare quantization={QUANTIZATION}`)")
    place, cache = made(tmp_path / "place"), str(cache_dir())
    asked = quick(
        "engine=ollama,llama_cpp",
        f"ollama.program={PROGRAM}",
        "model=smollm2-135m",
        f"quantization={QUANTIZATION}",
        "load.concurrency=2",
        "engine.kv_cache_type=q8_0",
    )
    asked.append("engine.start_timeout=3min")
    done = bench(place, "run", *asked, "--output", place.run_dir, limit_s=240, BENCH_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    starts = {start["deployment"]["engine"]: start for start in place.starts()}
    ours, theirs = starts["ollama"], starts["llama_cpp"]
    assert ours["prompt_tokens"] == theirs["prompt_tokens"]
    resolved = ours["resolved"]
    assert (resolved["context_length"], resolved["concurrent_sequences"]) == (4096, 2)
    assert resolved["kv_cache_type"] == theirs["resolved"]["kv_cache_type"] == "q8_0"
    assert resolved["kv_cache_bytes"] == theirs["resolved"]["kv_cache_bytes"]
    assert (resolved["weights_type"], resolved["model_gpu_bytes"]) == ("Q4_0", 0)
    assert resolved["model_bytes"] > found.size_bytes / 2
    assert {"weights_begin", "weights_loaded", "engine_ready"} <= ours["stages"].keys()
    assert [cell["status"] for cell in place.cells().values()] == ["completed", "completed"]
    place.wait_until_empty()


@pytest.mark.skipif(
    not (URL and MODEL), reason="OLLAMA_URL=http://HOST:PORT/v1 and OLLAMA_MODEL=NAME name one that runs"
)
def test_a_running_one_is_measured(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    done = bench(
        place,
        "run",
        *quick("engine=ollama", f"model={MODEL}", f"engine.base_url={URL}"),
        "--output",
        place.run_dir,
    )
    assert done.returncode == 0, done.stderr
    [start] = place.starts()
    assert start["version"]
    [cell] = place.cells().values()
    assert cell["status"] == "completed"
