"""What engines reckon that they need, what they say, and what the machine sees, of real servers on a CPU."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving_bench.engines import ENGINES, weights_bytes
from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.weights import find
from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    InstallSpec,
    MemoryNeed,
    NativeSpec,
    Place,
    Weights,
)
from serving_bench.harness.install.install import cache_dir, compiled_dir, installed
from serving_bench.harness.servers.scrape import fetch_facts
from serving_bench.harness.servers.server import free_port, running_server, wait_ready

pytestmark = pytest.mark.engines
GEMMA, SMOLLM = "gemma3-270m", "smollm2-135m"
TERMS = EngineTerms(
    context_length=2048, concurrent_sequences=4, kv_cache_tokens=8192, prefix_cache=True, launcher="native"
)
START_S = 600.0
MIB = 2**20


@dataclass(frozen=True)
class Seen:
    """Bytes: reckoned before the start, said by the server, PSS of its processes after the first answers."""

    weights: int
    need: MemoryNeed
    said: Mapping[str, int]
    pss: int


@contextmanager
def seen(deployment: Deployment, program: str | None, folder: Path) -> Iterator[Seen]:
    engine = ENGINES[deployment.engine]
    spec = engine.install(program, "cpu")
    assert isinstance(spec, InstallSpec)
    environment = installed(cache_dir(), spec)
    needed = engine.weights(deployment)
    assert isinstance(needed, Weights)
    files = find(needed, cache_dir())
    if environment is None or files is None:
        pytest.skip(f"{spec.environment} is not installed, or {needed.quantization} not prepared")
    place = Place(
        python=environment.python,
        program=environment.program,
        weights=files.path,
        host="127.0.0.1",
        port=free_port(),
        scratch=folder,
        facts=files.facts,
        chat_template=files.chat_template,
        cache=compiled_dir(cache_dir(), spec.environment),
    )
    launch = engine.launch(deployment, place)
    assert isinstance(launch, NativeSpec)
    log = folder / "server.log"
    with running_server(
        launch, engine=engine.name, log_path=log, state_dir=folder / "state", hints=engine.hints
    ) as server:
        wait_ready(server, START_S)
        facts = fetch_facts(launch.base_url, engine.pages)
        said = engine.said(log.read_text(), facts).memory
        shape = MODELS[deployment.model].facts
        size = weights_bytes(shape, needed.quantization, needed.file_format)
        need = engine.memory_needed(deployment, shape, "cpu")
        assert size is not None
        assert isinstance(need, MemoryNeed)
        assert server.pid is not None
        yield Seen(size, need, {str(part): each for part, each in said.items()}, pss_of(server.pid))


def pss_of(pid: int) -> int:
    root = psutil.Process(pid)
    return sum(each.memory_full_info().pss for each in (root, *root.children(recursive=True)))


def print_row(name: str, found: Seen) -> None:
    parts = {
        "weights": (found.weights, found.said.get("weights", 0)),
        "KV": (found.need.kv_cache_bytes, found.said.get("kv_cache", 0)),
        "all": (found.weights + found.need.kv_cache_bytes + found.need.overhead_bytes, found.pss),
    }
    said = ", ".join(f"{part} {a / MIB:.1f} / {b / MIB:.1f} MiB" for part, (a, b) in parts.items())
    print(f"{name}: reckoned / measured: {said}")


def deployment(engine: str, quantization: str, model: str = GEMMA, **options: Any) -> Deployment:
    own = ENGINES[engine].options(**options)
    return Deployment(engine, model, quantization, TERMS, own, f"{engine} {quantization}")


@pytest.mark.parametrize(
    ("model", "quantization"),
    [
        (GEMMA, "gguf-q4_k_m"),
        (GEMMA, "gguf-q4_0"),
        (GEMMA, "gguf-q8_0"),
        (GEMMA, "fp16"),
        (SMOLLM, "gguf-q4_0"),
        (SMOLLM, "gguf-q8_0"),
    ],
)
@pytest.mark.parametrize("program", ["xllamacpp", "llama-server", "llama-cpp-python"])
def test_llama_cpp_takes_what_was_reckoned(program: str, model: str, quantization: str, tmp_path: Path):
    asked = deployment("llama_cpp", quantization, model, program=program)
    with seen(asked, program, tmp_path) as found:
        print_row(f"{program} {quantization}", found)
        assert found.said["weights"] == pytest.approx(found.weights, rel=0.1)
        assert found.said["kv_cache"] == pytest.approx(found.need.kv_cache_bytes, rel=0.01)
        # The file's pages may be shared with others that serve it.
        assert found.pss < 1.15 * (found.weights + found.need.kv_cache_bytes + found.need.overhead_bytes)


@pytest.mark.parametrize("quantization", ["bf16", "awq"])
def test_vllm_takes_what_was_reckoned(quantization: str, tmp_path: Path) -> None:
    with seen(deployment("vllm", quantization), None, tmp_path) as found:
        print_row(f"vllm {quantization}", found)
        assert found.said["weights"] == pytest.approx(found.weights, rel=0.1)
        assert found.said["kv_cache"] == pytest.approx(found.need.kv_cache_bytes, rel=0.01)
        # Which compiled graphs it has in memory depends on whether it had to make them.
        assert found.pss == pytest.approx(
            found.weights + found.need.kv_cache_bytes + found.need.overhead_bytes, rel=0.3
        )


def test_transformers_takes_what_was_reckoned(tmp_path: Path) -> None:
    with seen(deployment("transformers", "bf16"), None, tmp_path) as found:
        print_row("transformers bf16", found)
        assert found.said["weights"] == pytest.approx(found.weights, rel=0.01)
        assert found.pss == pytest.approx(
            found.weights + found.need.kv_cache_bytes + found.need.overhead_bytes, rel=0.2
        )
