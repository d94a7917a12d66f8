"""The real vLLM on a CPU, in the environment of `bench install vllm`, serving gemma3-270m."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from asking import asker, assert_a_text_is_told_as_an_answer
from waiting import is_running

from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.weights import adapted, find
from serving_bench.engines.vllm.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    METRICS_PATH,
    Adapter,
    AdapterFile,
    CacheReset,
    Deployment,
    EngineTerms,
    InstallSpec,
    NativeSpec,
    Place,
    Turn,
    Weights,
    WeightsFile,
)
from serving_bench.harness.errors import ServerError
from serving_bench.harness.install.install import Environment, cache_dir, installed
from serving_bench.harness.sampling.sampling import Sampling
from serving_bench.harness.servers import prefix_cache, probe
from serving_bench.harness.servers.scrape import PageReader, fetch_facts
from serving_bench.harness.servers.server import Server, free_port, running_server, wait_ready

pytestmark = pytest.mark.engines
MODEL = "gemma3-270m"
FACTS = MODELS[MODEL].facts
START_S = 600.0
TERMS = EngineTerms(
    context_length=4096, concurrent_sequences=2, kv_cache_tokens=8192, prefix_cache=True, launcher="native"
)


@pytest.fixture(scope="module")
def environment() -> Environment:
    spec = ENGINE.install(None, "cpu")
    assert isinstance(spec, InstallSpec)
    found = installed(cache_dir(), spec)
    if found is None:
        pytest.skip("vLLM is not installed: bench install vllm")
    print(f"vllm: {found.size_bytes / 1e9:.2f} GB on disk")
    return found


def weights_of(quantization: str) -> WeightsFile:
    found = find(Weights(MODEL, quantization, "safetensors"), cache_dir())
    if found is None:
        pytest.skip(f"no weights: bench prepare model={MODEL} quantization={quantization}")
    return found


def spec_of(
    environment: Environment,
    quantization: str,
    folder: Path,
    terms: EngineTerms = TERMS,
    adapters: tuple[AdapterFile, ...] = (),
) -> NativeSpec:
    weights = weights_of(quantization)
    place = Place(
        python=environment.python,
        weights=weights.path,
        host="127.0.0.1",
        port=free_port(),
        scratch=folder,
        facts=weights.facts,
        chat_template=weights.chat_template,
        cache=cache_dir() / "compiled" / "vllm-cpu",
        adapters=adapters,
    )
    spec = ENGINE.launch(Deployment("vllm", MODEL, quantization, terms, Options(), "label"), place)
    assert isinstance(spec, NativeSpec)
    return spec


@contextmanager
def serving(
    environment: Environment,
    quantization: str,
    folder: Path,
    terms: EngineTerms = TERMS,
    adapters: tuple[AdapterFile, ...] = (),
) -> Iterator[Server]:
    spec = spec_of(environment, quantization, folder, terms, adapters)
    log, began = folder / "server.log", time.monotonic()
    with running_server(
        spec, engine="vllm", log_path=log, state_dir=folder / "state", hints=ENGINE.hints
    ) as server:
        wait_ready(server, START_S)
        print(f"vllm {quantization}: ready after {time.monotonic() - began:.0f} s")
        yield server


@pytest.fixture(scope="module")
def server(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(environment, "bf16", tmp_path_factory.mktemp("bf16")) as live:
        yield live


def chat(server: Server, text: str, max_tokens: int, **more: Any) -> list[dict[str, Any]]:
    """The events of a streamed answer, with the engine's own request fields."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **ENGINE.request_fields(Turn((), max_tokens), Options(), "matched"),
        **more,
    }
    url = f"{server.spec.base_url}/chat/completions"
    answer = probe.request("POST", url, timeout_s=120, body=body)
    assert answer.status == 200, answer
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(event) for event in data[:-1]]


def usage(events: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = events[-1]["usage"]
    return found


def resolved(server: Server) -> dict[str, Any]:
    facts = fetch_facts(server.spec.base_url, ENGINE.pages)
    return dict(ENGINE.said(server.log_path.read_text(), facts).terms)


def processes(server: Server) -> list[int]:
    root = psutil.Process(server.pid)
    return [root.pid, *(child.pid for child in root.children(recursive=True))]


def test_answers_have_the_length_that_was_asked_for(server: Server) -> None:
    assert usage(chat(server, "Say yes.", 40))["completion_tokens"] == 40


def test_second_request_finds_its_prefix_in_the_cache(server: Server) -> None:
    text = " ".join(f"Sentence {number} is about the sea." for number in range(80))
    first, again = usage(chat(server, text, 4)), usage(chat(server, text, 4))
    assert first["prompt_tokens"] == again["prompt_tokens"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    # Whole blocks of 128 tokens.
    assert again["prompt_tokens_details"]["cached_tokens"] == first["prompt_tokens"] // 128 * 128


def test_its_prefix_cache_is_emptied_and_counts_that_it_was(server: Server) -> None:
    text = " ".join(f"Sentence {number} is about the wind." for number in range(80))
    chat(server, text, 4)
    deployment = Deployment("vllm", MODEL, "bf16", TERMS, Options(), "label")
    found = prefix_cache.reset(ENGINE, deployment, server.spec)
    assert found == CacheReset("reset", found.prompt_tokens, 0)
    # Two blocks, and what makes the count before the reset one of more than the template.
    assert 256 < (found.prompt_tokens or 0) < 384
    assert usage(chat(server, text, 4))["prompt_tokens_details"]["cached_tokens"] == 0


def test_its_counters_are_what_its_answers_say(server: Server) -> None:
    with Sampling(PageReader(server.spec.base_url, METRICS_PATH, ENGINE.metrics), hz=1.0) as sampler:
        sampler.mark()
        answers = [usage(chat(server, f"A counted question, {part}", 24)) for part in ("one", "two")]
        sampler.mark()
    assert (sampler.notes, sampler.error) == ({}, None)
    rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
    assert all(getattr(row, term) is not None for row in rows for term in ENGINE.metrics)
    first, last = rows[0], rows[-1]
    prompts = sum(answer["prompt_tokens"] for answer in answers)
    assert last.generated_tokens - first.generated_tokens == 48
    assert last.prompt_tokens - first.prompt_tokens == prompts
    assert last.prefix_query_tokens - first.prefix_query_tokens == prompts
    assert last.queued_requests - first.queued_requests == 2
    assert 0 <= max(row.kv_cache_usage_share for row in rows) < 0.1


def test_an_answer_without_room_in_the_context_tells_that_it_was_cut(server: Server) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "word " * 3000}],
        "max_tokens": 2000,
        **ENGINE.request_fields(Turn((), 2000), Options(), "matched"),
    }
    answer = probe.request("POST", f"{server.spec.base_url}/chat/completions", timeout_s=60, body=body)
    assert answer.status == 200
    told = json.loads(answer.text)
    assert told["choices"][0]["finish_reason"] == "length"
    assert told["usage"]["completion_tokens"] < 2000


def test_a_text_is_told_as_an_answer_is(server: Server) -> None:
    rendered = "<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"
    assert_a_text_is_told_as_an_answer(ENGINE, asker(server.spec.base_url), MODEL, rendered)


def test_resolved_values_are_those_that_were_asked_for(server: Server) -> None:
    found = resolved(server)
    asked = {"context_length": 4096, "concurrent_sequences": 2, "prefix_cache": True, "dtype": "bfloat16"}
    assert {term: found[term] for term in asked} == asked
    assert found["engine_version"] == "0.32.0"
    # One block more, which vLLM counts and never uses; a conversation takes 137 of them.
    assert 8192 <= found["kv_cache_tokens"] <= 8192 + 2 * 4096 / 137
    assert found["graphs"] is True
    assert found["tensor_parallel"] == 1


def test_stages_are_found_in_their_order(server: Server) -> None:
    log = server.log_path.read_text()
    found = [re.search(stage.pattern, log, re.MULTILINE) for stage in ENGINE.stages]
    starts = [match.start() for match in found if match]
    assert len(starts) == len(ENGINE.stages)
    assert starts == sorted(starts)


def test_a_good_start_has_no_remedy(server: Server) -> None:
    log = server.log_path.read_text()
    assert not [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, log, re.MULTILINE)]


@pytest.mark.parametrize("quantization", ["awq", "w4a16"])
def test_four_bits_are_served_by_their_own_kernel_and_leave_nothing(
    environment: Environment, tmp_path: Path, quantization: str
) -> None:
    eager = replace(TERMS, graphs=False)
    with serving(environment, quantization, tmp_path, eager) as server:
        assert usage(chat(server, "Count to ten.", 24))["completion_tokens"] == 24
        found = resolved(server)
        assert found["quantization_kernel"] == "CPUWNA16LinearKernel"
        assert found["graphs"] is False
        pids = processes(server)
        assert len(pids) >= 3  # the API, the engine, its worker
    assert not [pid for pid in pids if is_running(pid)]


def test_killed_worker_ends_the_server(environment: Environment, tmp_path: Path) -> None:
    with serving(environment, "bf16", tmp_path, replace(TERMS, graphs=False)) as server:
        pids = processes(server)
        workers = [pid for pid in pids if "Worker" in psutil.Process(pid).name()]
        assert workers
        psutil.Process(workers[0]).send_signal(signal.SIGKILL)
        assert server.process.wait(60) is not None
    assert not [pid for pid in pids if is_running(pid)]


# Reads the command line as `vllm serve` does and shows what differs from its defaults.
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
said, default = (vars(parser.parse_args(words)) for words in (sys.argv[1:], []))
print(json.dumps({name: value for name, value in said.items() if value != default[name]}, default=str))
"""


def test_vllm_reads_every_flag_as_it_is_meant(environment: Environment, tmp_path: Path) -> None:
    terms = replace(
        TERMS, prefix_cache=False, chunked_prefill=False, dtype="float32", tensor_parallel=2, seed=7,
        graphs=False, speculation="ngram", speculative_tokens=3, chat_template="/t/mine.jinja",
        trust_remote_code=True, kv_cache_type="fp8",
    )  # fmt: skip
    options = Options(
        gpu_memory_utilization=0.8, max_num_batched_tokens=4096, block_size=64,
        attention_backend="FLASH_ATTN", quantization="awq",
        performance_mode="interactivity", async_scheduling=False,
    )  # fmt: skip
    place = Place(environment.python, Path("/w/model"), "127.0.0.1", 8123, tmp_path, facts=FACTS)
    spec = ENGINE.launch(Deployment("vllm", "named", "awq", terms, options, "label"), place)
    assert isinstance(spec, NativeSpec)
    words = spec.argv[spec.argv.index("serve") + 1 :]
    result = subprocess.run(
        [str(environment.python), "-P", "-c", PARSE, *words], check=True, capture_output=True, text=True
    )
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("kv_cache_memory_bytes") > 0
    assert found == {
        "model_tag": "/w/model", "served_model_name": ["named"], "host": "127.0.0.1", "port": 8123,
        "enable_prompt_tokens_details": True, "generation_config": "vllm", "chat_template": "/t/mine.jinja",
        "dtype": "float32", "max_model_len": 4096, "max_num_seqs": 2, "seed": 7, "tensor_parallel_size": 2,
        "enable_prefix_caching": False, "enable_chunked_prefill": False, "enforce_eager": True,
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 3}, "trust_remote_code": True,
        "gpu_memory_utilization": 0.8, "max_num_batched_tokens": 4096, "block_size": 64,
        "attention_backend": "FLASH_ATTN", "kv_cache_dtype": "fp8_e4m3", "quantization": "awq",
        "performance_mode": "interactivity", "async_scheduling": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("terms", "remedy"),
    [
        (replace(TERMS, context_length=65_536), "Lower engine.context_length"),
        (replace(TERMS, kv_cache_tokens=1024), "does not hold one conversation"),
    ],
)
def test_impossible_terms_end_the_start_with_a_remedy(
    environment: Environment, tmp_path: Path, terms: EngineTerms, remedy: str
) -> None:
    failing = serving(environment, "bf16", tmp_path, replace(terms, graphs=False))
    with pytest.raises(ServerError, match=remedy), failing:
        pass


def test_adapters_change_the_answer_and_share_no_prefix_cache(environment: Environment, tmp_path: Path):
    weights_of("bf16")
    of = Weights(MODEL, "bf16", "safetensors")
    adapters = tuple(adapted(Adapter(f"random-{number}"), of, cache_dir()) for number in range(2))
    text = "Tell me a story about a lighthouse and the people who keep it. " * 24
    names = [MODEL, *(each.name for each in adapters), MODEL]
    with serving(environment, "bf16", tmp_path, adapters=adapters) as server:
        found = [chat(server, text, 16, model=name) for name in names]
        url = f"{server.spec.base_url}/chat/completions"
        unknown = probe.request("POST", url, timeout_s=60, body={"model": "other", "messages": []})
    said = ["".join(e["choices"][0]["delta"].get("content") or "" for e in each[:-1]) for each in found]
    assert said[0] == said[3]
    assert len(set(said)) == 3, said
    cached = [usage(each)["prompt_tokens_details"]["cached_tokens"] for each in found]
    assert cached[:3] == [0, 0, 0]
    assert cached[3] > 100
    assert unknown.status == 404
