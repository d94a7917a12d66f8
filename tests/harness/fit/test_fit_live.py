"""What a start's record expects, beside what the real llama.cpp server says that it takes."""

from pathlib import Path

import pytest
from bench_command import Place, bench, made

from serving_bench.engines import ENGINES
from serving_bench.engines.model.weights import find
from serving_bench.harness.contracts import InstallSpec, Weights
from serving_bench.harness.install.install import cache_dir, installed

pytestmark = [pytest.mark.live, pytest.mark.long]
WEIGHTS = Weights("smollm2-135m", "gguf-q4_0", "gguf")


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """With the real cache."""
    spec = ENGINES["llama_cpp"].install(None, "cpu")
    assert isinstance(spec, InstallSpec)
    if installed(cache_dir(), spec) is None or find(WEIGHTS, cache_dir()) is None:
        pytest.skip("llama_cpp is not installed, or gguf-q4_0 not prepared; run `make install`")
    return made(tmp_path / "here")


def test_weights_and_cache_of_a_start_are_as_expected_to_a_tenth(here: Place) -> None:
    keys = ("quantization=gguf-q4_0", "load.concurrency=2", "load.duration=1s", "load.warmup=0s")
    more = ("repeats=1", "engine.context_length=2048", "guard=off", "device=cpu")
    bench(here, "run", *keys, *more, "--output", "run", BENCH_CACHE_DIR=str(cache_dir()))
    [start] = here.starts()
    expected, said = start["memory_expected"], start["memory_said"]
    assert expected["kv_bytes_per_token"] == 2 * 30 * 192 * 2
    assert expected["kv_cache"] == pytest.approx(said["kv_cache"], rel=0.1)
    assert expected["weights"] == pytest.approx(said["weights"], rel=0.1)
    assert expected["weights"] == pytest.approx(start["weights"]["size_bytes"], rel=0.1)
    assert expected["overhead"] > 0
