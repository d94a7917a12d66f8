"""SGLang on the real default model and a CPU, in the environment that `make sglang-cpu-env` builds."""

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asking import asker, assert_a_text_is_told_as_an_answer
from places import ROOT
from waiting import wait_until

from serving_bench.engines.model.weights import find
from serving_bench.engines.sglang.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    METRICS_PATH,
    Deployment,
    EngineTerms,
    NativeSpec,
    Place,
    Turn,
    Weights,
)
from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.load.answer.chat import Decoded, classify, decode
from serving_bench.harness.sampling.sampling import Sampling
from serving_bench.harness.servers import prefix_cache
from serving_bench.harness.servers.scrape import PageReader
from serving_bench.harness.servers.server import free_port

pytestmark = pytest.mark.engines
MODEL = "gemma3-270m"
ENVIRONMENT = cache_dir() / "engines-by-hand" / "sglang-cpu"
TEMPLATE = ROOT / "engines" / "model" / "templates" / "gemma3.jinja"
MATCHED = EngineTerms(
    launcher="native",
    context_length=512,
    concurrent_sequences=4,
    kv_cache_tokens=2048,
    prefix_cache=True,
    seed=7,
)
CHAT = "/v1/chat/completions"
# A start takes 80 s on a quiet machine; the first tokens of a busy one some seconds each.
START_S = 400
ANSWER_S = 200


@dataclass(frozen=True)
class Live:
    spec: NativeSpec
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Content-Type")
        finally:
            connection.close()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return self.request("GET", self.spec.ready_path)[0] == 200
        except OSError:
            return False

    def facts(self) -> dict[str, Any]:
        return {path: json.loads(self.request("GET", path)[1]) for path in ENGINE.pages}

    def send(self, text: str, max_tokens: int) -> tuple[int, bytes, str | None]:
        """As the load processes do."""
        body = {
            "model": self.spec.served_model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **ENGINE.request_fields(Turn((), max_tokens), Options(), "matched"),
        }
        return self.request("POST", CHAT, body)

    def answer(self, text: str, max_tokens: int) -> Decoded:
        status, sent, kind = self.send(text, max_tokens)
        decoded = decode(sent, [1], [len(sent)])
        assert classify(status, sent, decoded, kind) == ("ok", None)
        assert decoded.saw_done
        return decoded


def descendants(pid: int) -> list[int]:
    """Of the session that the server leads: its schedulers and tokenizers are in it."""
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    if not (ENVIRONMENT / "bin" / "python").exists():
        pytest.skip("no SGLang on this CPU: make sglang-cpu-env")
    weights = find(Weights(MODEL, "bf16", "safetensors"), cache_dir())
    if weights is None:
        pytest.skip("no checkpoint: bench prepare quantization=bf16 engine=sglang")
    folder = tmp_path_factory.mktemp("sglang")
    port = free_port()
    place = Place(
        python=ENVIRONMENT / "bin" / "python",
        weights=weights.path,
        host="127.0.0.1",
        port=port,
        scratch=folder,
        facts=weights.facts,
        chat_template=TEMPLATE,
        cache=folder / "cache",
    )
    spec = ENGINE.launch(Deployment("sglang", MODEL, "bf16", MATCHED, Options(), "sglang"), place)
    assert isinstance(spec, NativeSpec)
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            spec.argv,
            env={**os.environ, **spec.environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Live(spec, process, port, log)
        wait_until(server.is_ready, START_S)
        yield server
    finally:
        for pid in descendants(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def test_its_counters_are_what_its_answers_say(live: Live) -> None:
    with Sampling(PageReader(live.spec.base_url, METRICS_PATH, ENGINE.metrics), hz=1.0) as sampler:
        sampler.mark()
        answers = [live.answer(f"A counted question, {part}", 6) for part in ("one", "two")]
        wait_until(lambda: sampler.rows()[-1].queued_requests - sampler.rows()[0].queued_requests == 2)
        sampler.mark()
    assert (sampler.notes, sampler.error) == ({}, None)
    rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
    first, last = rows[0], rows[-1]
    assert last.generated_tokens - first.generated_tokens == 12
    assert last.prompt_tokens - first.prompt_tokens == sum(each.input_tokens for each in answers)
    assert last.prefix_hit_tokens - first.prefix_hit_tokens == sum(each.cached_tokens for each in answers)


def test_its_prefix_cache_is_emptied_and_counts_that_it_was(live: Live) -> None:
    text = "A long and quite particular question about prompts that are forgotten again " * 4
    live.answer(text, 1)
    assert (live.answer(text, 1).cached_tokens or 0) > 30
    deployment = Deployment("sglang", MODEL, "bf16", MATCHED, Options(), "sglang")
    found = prefix_cache.reset(ENGINE, deployment, live.spec)
    assert (found.how, found.cached_tokens, found.note) == ("reset", 0, None)
    assert (live.answer(text, 1).cached_tokens or 0) <= 4


def test_it_uses_what_was_asked_for_and_says_that_its_kernels_are_not_there(live: Live) -> None:
    found = ENGINE.said(live.log.read_text(), live.facts()).terms
    asked = {
        "context_length": 512,
        "concurrent_sequences": 4,
        "kv_cache_tokens": 2048,
        "prefix_cache": True,
        "seed": 7,
        "dtype": "bfloat16",
        "chat_template": str(TEMPLATE),
        "attention_backend": "torch_native",
    }
    assert {term: found.get(term) for term in asked} == asked
    # All tokens are kept in all layers, 18 x 2 x 256 x 2 bytes each; said in thousandths of a GiB.
    assert found["kv_cache_bytes"] == pytest.approx(2048 * 18 * 2 * 256 * 2, abs=2**30 / 1000)
    assert found["kernel_stand_in"] is True


def test_stages_are_in_its_log_in_their_order(live: Live) -> None:
    log = live.log.read_text()
    places = [re.search(stage.pattern, log) for stage in ENGINE.stages]
    assert all(places)
    assert sorted(found.start() for found in places if found) == [f.start() for f in places if f]


def test_an_answer_has_the_length_that_was_asked_for(live: Live) -> None:
    # A base model ends such an answer early unless it is kept from it.
    decoded = live.answer("Say only: yes.", 24)
    assert decoded.output_tokens == 24
    assert decoded.finish_reason == "length"
    assert 1 < len(decoded.chunk_ns) <= 24


def test_a_prompt_comes_from_the_cache_the_second_time(live: Live) -> None:
    text = "Which of these rivers is the longest: Rhine, Danube, Volga, Loire?"
    first, second = live.answer(text, 4), live.answer(text, 4)
    assert first.text == second.text
    assert first.input_tokens == second.input_tokens
    assert first.input_tokens
    assert second.cached_tokens == first.input_tokens - 1


def test_a_text_is_told_as_an_answer_is(live: Live) -> None:
    rendered = "<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"
    assert_a_text_is_told_as_an_answer(ENGINE, asker(live.spec.base_url), live.spec.served_model, rendered)


def test_users_are_served_at_once(live: Live) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda user: live.answer(f"Tell me story number {user}.", 8), range(4)))
    assert [answer.output_tokens for answer in answers] == [8, 8, 8, 8]


def test_more_than_the_context_is_an_http_error(live: Live) -> None:
    status, sent, kind = live.send("word " * 600, 4)
    assert status == 400
    outcome, error = classify(status, sent, decode(sent, [1], [len(sent)]), kind)
    assert outcome == "http_error"
    assert error
    assert "longer than the model's context length (512 tokens)" in error


def test_it_leaves_no_process_when_it_is_asked_to_end(live: Live) -> None:
    """The last test: it ends the server."""
    assert len(descendants(live.process.pid)) >= 3
    live.process.send_signal(signal.SIGTERM)
    live.process.wait(live.spec.stop_grace_s)
    wait_until(lambda: not descendants(live.process.pid), 5)
