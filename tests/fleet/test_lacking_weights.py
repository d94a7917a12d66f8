"""A repeat, as a node measures it, prepares the weights that its machine lacks. Needs a package index."""

import pytest
from bench_command import bench, made

from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.store import store


@pytest.mark.fleet
def test_a_repeat_prepares_the_weights_that_its_cache_lacks(tmp_path):
    place = made(tmp_path / "p")
    place.cache.mkdir()
    for shared in ("engines", "installer"):
        (place.cache / shared).symlink_to(cache_dir() / shared)
    words = ["engine=llama_cpp", "quantization=gguf-q4_0", "repeats=2", "load.concurrency=1", "guard=off"]
    words += ["load.warmup=0s", "load.duration=1s", "load.min_requests=1", "device=cpu"]
    done = bench(place, "run", *words, "--only-repeat", "2", "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    assert "smollm2-135m at gguf-q4_0 as gguf is not here; preparing it (" in done.stderr
    assert list(place.cache.glob("weights/smollm2-135m/*-q4_0.gguf.json"))
    assert [cell.counts for cell in store.read_cells(place.run_dir)] == [True]
