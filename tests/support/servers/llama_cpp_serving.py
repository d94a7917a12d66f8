"""Starts a real llama.cpp server on the real default model, and asks it as the load processes do."""

import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from serving_bench.engines.llama_cpp.engine import ENGINE, Options
from serving_bench.engines.model.weights import find
from serving_bench.harness.contracts import (
    AdapterFile,
    Deployment,
    EngineTerms,
    InstallSpec,
    NativeSpec,
    Place,
    Turn,
    Weights,
    WeightsFile,
)
from serving_bench.harness.install.install import Environment, cache_dir, installed
from serving_bench.harness.load.answer.chat import Decoded, classify, decode
from serving_bench.harness.servers.server import free_port

MODEL = "smollm2-135m"
QUANTIZATION = "gguf-q4_0"
MATCHED = EngineTerms(
    launcher="native", context_length=512, concurrent_sequences=2, kv_cache_tokens=1024, prefix_cache=True
)
CHAT = "/v1/chat/completions"
ANSWER_S = 120


@dataclass(frozen=True)
class Live:
    program: str
    spec: NativeSpec
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @contextmanager
    def response(self, method: str, path: str, body: Any = None) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        headers = {"Content-Type": "application/json", "X-Request-Id": "001-0-3-1"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            yield response
            response.close()
        finally:
            connection.close()

    def facts(self) -> dict[str, Any]:
        found = {}
        for path in ENGINE.pages:
            with self.response("GET", path) as page:
                if page.status == 200:
                    found[path] = json.loads(page.read())
        return found

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            with self.response("GET", self.spec.ready_path) as page:
                return page.status == 200
        except OSError:
            return False

    def body(self, text: str, max_tokens: int, **more: Any) -> dict[str, Any]:
        """Return the body of a request as the load processes send it."""
        return {
            "model": self.spec.served_model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **ENGINE.request_fields(Turn((), max_tokens), Options(program=self.program), "matched"),
            **more,
        }

    def answer(self, text: str, max_tokens: int, **more: Any) -> Decoded:
        with self.response("POST", CHAT, self.body(text, max_tokens, **more)) as response:
            sent = response.read()
            kind = response.getheader("Content-Type")
        decoded = decode(sent, [1], [len(sent)])
        assert classify(response.status, sent, decoded, kind) == ("ok", None)
        assert decoded.saw_done
        return decoded


def environment(program: str) -> Environment:
    spec = ENGINE.install(program, "cpu")
    assert isinstance(spec, InstallSpec)
    found = installed(cache_dir(), spec)
    assert found or program != "xllamacpp", "run `bench install llama_cpp` first"
    if found is None:
        pytest.skip(f"not installed: bench install llama_cpp --program {program}")
    return found


def weights(quantization: str = QUANTIZATION, model: str = MODEL) -> WeightsFile:
    found = find(Weights(model, quantization, "gguf"), cache_dir())
    assert found is not None, "run `bench prepare` first"
    return found


@contextmanager
def serving(program: str, folder: Path, terms: EngineTerms = MATCHED, **more: Any) -> Iterator[Live]:
    with started(program, folder, terms, **more) as live:
        wait_until(live.is_ready, limit_s=ANSWER_S)
        yield live


@contextmanager
def started(
    program: str,
    folder: Path,
    terms: EngineTerms = MATCHED,
    prefix: tuple[str, ...] = (),
    gguf: Path | None = None,
    draft: WeightsFile | None = None,
    adapters: tuple[AdapterFile, ...] = (),
) -> Iterator[Live]:
    """Start a server, which may not be ready yet, and kill it at the end.

    `prefix`: words before its command line.
    """
    made = environment(program)
    # One thread: llama.cpp's threads wait for each other busily, and a test machine has other work.
    options = Options(program=program, threads=1)
    deployment = Deployment("llama_cpp", MODEL, QUANTIZATION, terms, options, "label")
    port, file = free_port(), gguf or weights().path
    where = Place(made.python, file, "127.0.0.1", port, folder, made.program, draft=draft, adapters=adapters)
    spec = ENGINE.launch(deployment, where)
    assert isinstance(spec, NativeSpec)
    log, surroundings = folder / "server.log", {**os.environ, **spec.environment}
    with log.open("wb") as out:
        words = (*prefix, *spec.argv)
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=surroundings)
    try:
        yield Live(program, spec, process, port, log)
    finally:
        process.kill()
        process.wait()
