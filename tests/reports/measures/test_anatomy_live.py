"""What real servers' memory is made of: the parts cover it, and `bench fit` had computed them."""

import os
import subprocess
from pathlib import Path

import pytest
from bench_command import BENCH

from serving_bench.reports import open_run
from serving_bench.reports.measures.anatomy import REST, anatomies
from serving_bench.reports.measures.memory_parts import expectations

pytestmark = pytest.mark.engines
LIMIT_S = 400.0
MIB = 2.0**20


@pytest.mark.parametrize(
    ("engine", "quantization"), [("llama_cpp", "gguf-q4_k_m"), ("llama_cpp", "bf16"), ("vllm", "bf16")]
)
def test_the_parts_cover_nine_tenths_and_were_computed_within_a_tenth(
    engine: str, quantization: str, tmp_path: Path
) -> None:
    asked = [
        f"engine={engine}", f"quantization={quantization}", "model=gemma3-270m", "device=cpu",
        "load.concurrency=1,4", "load.duration=10s", "repeats=1", "guard=off",
    ]  # fmt: skip
    done = subprocess.run(
        [BENCH, "run", *asked, "--output", tmp_path / "run"],
        capture_output=True, text=True, timeout=LIMIT_S, env=dict(os.environ),
    )  # fmt: skip
    if done.returncode == 2:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    [[found]] = anatomies(open_run(tmp_path / "run")).values()
    parts = {name: round(part.size_bytes / MIB, 1) for name, part in found.parts.items()}
    explained_share = 1.0 - found.parts[REST].size_bytes / found.total_bytes
    print(f"{engine} {quantization}: {found.total_bytes / MIB:.1f} MiB, {explained_share:.3f}: {parts}")
    assert sum(part.size_bytes for part in found.parts.values()) == pytest.approx(found.total_bytes)
    assert explained_share >= 0.9
    errors = {name: asked / size - 1.0 for name, (asked, size) in expectations([found]).items()}
    assert abs(errors["weights"]) <= 0.1
    assert abs(errors["kv_cache"]) <= 0.1
