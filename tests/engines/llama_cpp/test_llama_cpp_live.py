"""The real llama.cpp server on the real default model, and the conversions that it serves."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from engines.llama_cpp.engine import ENGINE, Options
from engines.model.weights import find, prepare
from harness.contracts import (
    METRICS_PATH,
    Deployment,
    EngineTerms,
    InstallSpec,
    NativeSpec,
    Place,
    Turn,
    Weights,
    WeightsFile,
)
from harness.errors import MissingError
from harness.install.install import InstalledEnvironment, cache_dir, installed
from harness.install.install_step import run_supervised
from harness.servers.scrape import sample_server
from harness.servers.server import free_port

pytestmark = pytest.mark.live
MODEL = "gemma3-270m"
TERMS = EngineTerms(context_length=512, concurrent_sequences=2)


@dataclass(frozen=True)
class Live:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return self.request("GET", "/health")[0] == 200
        except ConnectionRefusedError:
            return False

    def chat(self, text: str, max_tokens: int) -> list[dict[str, Any]]:
        """The events of a streamed answer, with the engine's own request fields."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **ENGINE.request_fields(Turn((), max_tokens), Options(), "matched"),
        }
        status, answer = self.request("POST", "/v1/chat/completions", body)
        assert status == 200, answer
        data = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
        assert data[-1] == "[DONE]"
        return [json.loads(event) for event in data[:-1]]


@pytest.fixture(scope="module")
def environment() -> InstalledEnvironment:
    spec = ENGINE.install("xllamacpp", "cpu")
    assert isinstance(spec, InstallSpec)
    found = installed(cache_dir(), spec)
    assert found is not None, "run `bench install llama_cpp` first"
    return found


@pytest.fixture(scope="module")
def source() -> WeightsFile:
    found = find(Weights(MODEL, "gguf-q4_k_m", "gguf"), cache_dir())
    assert found is not None, "run `bench prepare` first"
    return found


@contextmanager
def serving(
    environment: InstalledEnvironment, weights: Path, folder: Path, terms: EngineTerms = TERMS
) -> Iterator[Live]:
    live = started(environment, weights, folder, terms)
    try:
        wait_until(live.is_healthy, limit_s=60)
        yield live
    finally:
        live.process.kill()
        live.process.wait()


def started(
    environment: InstalledEnvironment, weights: Path, folder: Path, terms: EngineTerms = TERMS
) -> Live:
    deployment = Deployment("llama_cpp", MODEL, "gguf-q4_k_m", terms, Options(), "label")
    port = free_port()
    spec = ENGINE.launch(deployment, Place(environment.python, weights, "127.0.0.1", port, folder))
    assert isinstance(spec, NativeSpec)
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            spec.argv, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **spec.environment}
        )
    return Live(process, port, log)


@pytest.fixture(scope="module")
def server(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    with serving(environment, source.path, tmp_path_factory.mktemp("server")) as live:
        yield live


def cache_with(source: WeightsFile, folder: Path) -> Path:
    """A cache that holds the source alone."""
    models = folder / "weights" / MODEL
    models.mkdir(parents=True)
    for path in (source.path, source.path.with_name(source.path.name + ".json")):
        (models / path.name).symlink_to(path)
    return folder


def contents(events: list[dict[str, Any]]) -> list[str]:
    choices = [choice for event in events for choice in event["choices"]]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


@pytest.mark.parametrize("max_tokens", [1, 7, 64])
def test_answer_has_exactly_the_tokens_asked_for(server: Live, max_tokens: int) -> None:
    events = server.chat("Once upon a time", max_tokens)
    assert events[-1]["usage"]["completion_tokens"] == max_tokens
    assert [e["choices"][0]["finish_reason"] for e in events if e["choices"]][-1] == "length"
    assert 1 <= len(contents(events)) <= max_tokens


def test_repeated_prompt_comes_from_the_cache(server: Live) -> None:
    first = server.chat("A quite particular question about cached prompts", 4)[-1]["usage"]
    again = server.chat("A quite particular question about cached prompts", 4)[-1]["usage"]
    assert again["prompt_tokens"] == first["prompt_tokens"]
    # The last token is always evaluated again, and a sliding window may cost some more.
    assert again["prompt_tokens_details"]["cached_tokens"] > first["prompt_tokens"] // 2


def test_prefix_cache_off_evaluates_each_prompt_anew(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path: Path
) -> None:
    with serving(environment, source.path, tmp_path, replace(TERMS, prefix_cache=False)) as live:
        live.chat("The same words", 4)
        usage = live.chat("The same words", 4)[-1]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_server_says_what_it_really_uses(server: Live, environment: InstalledEnvironment) -> None:
    facts = {path: json.loads(server.request("GET", path)[1]) for path in ENGINE.pages}
    resolved = dict(ENGINE.said(server.log.read_text(), facts).terms)
    expected = {
        "engine_version": environment.versions["xllamacpp"],
        "context_length": TERMS.context_length,
        "concurrent_sequences": TERMS.concurrent_sequences,
        "weights_type": "Q4_K - Medium",
        "kv_cache_tokens": TERMS.context_length * TERMS.concurrent_sequences,
        "kv_cache_type": "f16",
        "attention_backend": "flash",
        "chat_template": "chatml (the file has none)",
    }
    assert {term: resolved[term] for term in expected} == expected
    # 3 layers of 512 cells and 15 of 512 or more (window and batch), 2 slots, K and V of 256 halves.
    assert resolved["kv_cache_bytes"] >= 18 * 512 * 2 * 2 * 256 * 2
    assert resolved["threads"] >= 1


def test_its_counters_are_what_its_answers_say(server: Live) -> None:
    base_url = f"http://127.0.0.1:{server.port}/v1"
    with sample_server(base_url, METRICS_PATH, ENGINE.metrics) as sampler:
        sampler.mark()
        usages = [server.chat(f"A counted question, {part}", 24)[-1]["usage"] for part in ("one", "two")]
        sampler.mark()
    assert (sampler.notes, sampler.error) == ({}, None)
    rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
    assert all(getattr(row, term) is not None for row in rows for term in ENGINE.metrics)
    told = [(row.prompt_tokens, row.generated_tokens, row.prefix_hit_tokens) for row in (rows[0], rows[-1])]
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    prompts = sum(usage["prompt_tokens"] for usage in usages)
    assert [after - before for before, after in zip(*told, strict=True)] == [prompts, 48, cached]
    assert max(row.running for row in rows) <= TERMS.concurrent_sequences


@pytest.mark.alone
def test_sigterm_ends_it_with_0_in_the_middle_of_an_answer(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path: Path
) -> None:
    with serving(environment, source.path, tmp_path) as live:
        connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=30)
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400, "stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, "ignore_eos": True}))
        connection.getresponse().readline()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=2) == 0
        connection.close()


@pytest.mark.alone
def test_sigterm_ends_it_while_the_model_loads(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path: Path
) -> None:
    live = started(environment, source.path, tmp_path)
    try:
        wait_until(lambda: b"loading model '" in live.log.read_bytes())
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=2) in (0, -signal.SIGTERM)
        assert b"listening on" not in live.log.read_bytes()
    finally:
        live.process.kill()
        live.process.wait()


def test_damaged_file_ends_it_with_a_line_that_has_a_remedy(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.gguf"
    with source.path.open("rb") as whole:
        damaged.write_bytes(whole.read(50_000_000))
    live = started(environment, damaged, tmp_path)
    assert live.process.wait(timeout=30) == 1
    damaged.unlink()
    log = live.log.read_text()
    assert [hint for hint in ENGINE.hints if re.search(hint.pattern, log)]
    # llama.cpp writes its log from a thread of its own, now and then after our last word.
    assert any("llama.cpp did not start" in line for line in log.splitlines()[-3:])


@pytest.mark.parametrize(("quantization", "said"), [("fp16", "F16"), ("gguf-q8_0", "Q8_0")])
def test_prepared_conversion_serves(
    environment: InstalledEnvironment, tmp_path: Path, quantization: str, said: str
) -> None:
    made = find(Weights(MODEL, quantization, "gguf"), cache_dir())
    assert made is not None, "run `bench prepare` first"
    assert_serves(environment, made, tmp_path, said)


@pytest.mark.long
@pytest.mark.parametrize(("quantization", "said"), [("bf16", "BF16"), ("gguf-q4_0", "Q4_0")])
def test_new_conversion_serves(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path: Path, quantization: str, said: str
) -> None:
    cache = cache_with(source, tmp_path)
    weights = Weights(MODEL, quantization, "gguf")
    made = prepare(weights, cache, lambda spec: environment.folder, lambda line: None, run_supervised)
    assert_serves(environment, made, tmp_path, said)
    made.path.unlink()  # half a gigabyte


def assert_serves(environment: InstalledEnvironment, made: WeightsFile, folder: Path, said: str) -> None:
    assert "quality is not a reference" in (made.note or "")
    assert made.size_bytes == made.path.stat().st_size
    with serving(environment, made.path, folder) as live:
        events = live.chat("The capital of France is", 8)
        assert events[-1]["usage"]["completion_tokens"] == 8
        assert json.loads(live.request("GET", "/props")[1])["model_ftype"] == said


def test_interrupted_conversion_is_not_taken_for_finished(
    environment: InstalledEnvironment, source: WeightsFile, tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        if "60 of" in line:
            raise KeyboardInterrupt

    cache = cache_with(source, tmp_path)
    weights = Weights(MODEL, "gguf-q8_0", "gguf")
    with pytest.raises(KeyboardInterrupt):
        prepare(weights, cache, lambda spec: environment.folder, interrupt, run_supervised)
    assert find(weights, cache) is None
    assert not list((cache / "weights" / MODEL).glob("*.part"))


def test_conversion_without_the_gguf_package_says_so(source: WeightsFile, tmp_path: Path) -> None:
    cache = cache_with(source, tmp_path)
    weights = Weights(MODEL, "fp16", "gguf")
    # bench's own interpreter has no gguf package
    with pytest.raises(MissingError, match=r"could not be made[\s\S]*No module named"):
        prepare(weights, cache, lambda spec: Path(sys.prefix), lambda line: None, run_supervised)
