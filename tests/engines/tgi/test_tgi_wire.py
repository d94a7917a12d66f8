"""TGI's HTTP, as tests/support/servers/tgi_server.py speaks it: what bench reads of it, what Hugging Face's
own client reads, and a whole run. No real TGI answers here: test_tgi_replayed.py has what one said."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tgi_server
from bench_command import bench, made, quick
from checkpoint_files import write_checkpoint
from huggingface_hub import InferenceClient
from huggingface_hub.errors import TextGenerationError
from places import TESTS
from waiting import wait_until

from engines.tgi.engine import ENGINE, Options
from harness.contracts import Deployment, EngineTerms, NativeSpec, Place, Turn
from harness.load.answer import openai
from harness.load.answer.chat import Decoded, classify, decode
from harness.servers.scrape import fetch_facts
from harness.servers.server import free_port

HERE = TESTS / "support/servers"


@dataclass(frozen=True)
class Tgi:
    port: int
    state: tgi_server.Server

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def client(self) -> Iterator[InferenceClient]:
        """Hugging Face's own; a stream ends with it."""
        with InferenceClient(self.root, provider="hf-inference", token="none", timeout=20) as client:
            yield client

    def post(self, path: str, body: Any) -> tuple[int, bytes, str | None]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("POST", path, raw, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers["content-type"]

    def chat(self, text: str = "Tell me", max_tokens: int = 12, **more: Any) -> Decoded:
        """What bench decodes of the request that bench sends."""
        _, body, _ = self.chat_raw(text, max_tokens, **more)
        return decode(body, [1], [len(body)])

    def chat_raw(self, text: str, max_tokens: int, **more: Any) -> tuple[int, bytes, str | None]:
        turn = Turn((), max_tokens)
        fields = {**ENGINE.request_fields(turn, Options(), "matched"), **more}
        body = openai.API.request("tgi", turn, (), fields)
        body["messages"] = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", body)

    def outcome(self, text: str = "Tell me", max_tokens: int = 12, **more: Any) -> tuple[str, str | None]:
        status, body, kind = self.chat_raw(text, max_tokens, **more)
        return classify(status, body, decode(body, [1], [len(body)]), kind)


@contextmanager
def serving(*arguments: str) -> Iterator[Tgi]:
    server = tgi_server.serving(tgi_server.arguments(list(arguments)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Tgi(server.server_port, server.RequestHandlerClass.state)  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def tgi() -> Iterator[Tgi]:
    with serving("--max-total-tokens=4096") as server:
        yield server


def test_a_stream_without_a_role_chunk_is_read_whole(tgi: Tgi) -> None:
    decoded = tgi.chat(max_tokens=12)
    assert decoded.text == "the sea is 🙂 wide and old, the sea is "
    # Two of the tokens are half characters, whose events have no text.
    assert (decoded.output_tokens, len(decoded.chunk_ns)) == (12, 10)
    assert (decoded.finish_reason, decoded.saw_done) == ("length", True)
    assert tgi.outcome() == ("ok", None)


def test_there_is_no_count_of_cached_tokens(tgi: Tgi) -> None:
    decoded = tgi.chat("the same words", 4)
    assert decoded.input_tokens == 1 + len(["user:", "the", "same", "words", "assistant:"])
    assert decoded.cached_tokens is None


def test_an_answer_may_end_early_and_its_eos_is_counted() -> None:
    with serving("--answer-tokens=5") as tgi:
        decoded = tgi.chat(max_tokens=64)
    assert (decoded.finish_reason, decoded.output_tokens) == ("stop", 5)
    assert decoded.text == "the sea is "  # the fourth has no text, the fifth is </s>


def test_ignore_eos_and_min_tokens_do_nothing() -> None:
    with serving("--answer-tokens=5") as tgi:
        assert tgi.chat(max_tokens=64, ignore_eos=True, min_tokens=64).output_tokens == 5


def test_a_neutral_presence_penalty_changes_the_answer(tgi: Tgi) -> None:
    plain = tgi.chat(max_tokens=24)
    penalized = tgi.chat(max_tokens=24, presence_penalty=0.0)
    assert plain.text != penalized.text


def test_what_bench_sends_holds_none_of_the_traps(tgi: Tgi) -> None:
    tgi.chat()
    sent = tgi.state.bodies[-1]
    assert sent["temperature"] == 0
    assert not {"top_p", "presence_penalty", "ignore_eos", "min_tokens", "logit_bias", "stop"} & set(sent)


def test_a_template_that_refuses_is_http_422_even_for_a_stream(tgi: Tgi) -> None:
    messages = [{"role": "nobody", "content": "x"}]
    status, body, _ = tgi.post("/v1/chat/completions", {"messages": messages, "stream": True})
    assert (status, json.loads(body)["error_type"]) == (422, "template_error")


def test_one_request_too_many_is_refused_under_http_200_when_streamed() -> None:
    with serving("--max-concurrent-requests=1") as tgi:
        busy = http.client.HTTPConnection("127.0.0.1", tgi.port, timeout=20)
        body = {"messages": [{"role": "user", "content": "linger"}], "stream": True, "max_tokens": 2}
        busy.request("POST", "/v1/chat/completions", json.dumps(body))
        wait_until(lambda: tgi.state.permits._value == 0)
        assert tgi.outcome() == ("server_error", "Model is overloaded")
        status, answer, _ = tgi.post("/v1/chat/completions", {**body, "stream": False})
        assert (status, json.loads(answer)["error_type"]) == (429, "overloaded")
        busy.getresponse().read()
        busy.close()
        assert tgi.outcome()[0] == "ok"


def test_a_failure_while_generating_is_an_event_and_then_unhealthy_once(tgi: Tgi) -> None:
    outcome, error = tgi.outcome("break now")
    assert outcome == "server_error"
    assert error is not None
    assert "Request failed during generation" in error
    with tgi.client() as client:
        assert not client.health_check()
        assert client.health_check()
        assert tgi.chat("break now").text == "the sea is "  # what came before is kept
        assert not client.health_check()


def test_an_answer_beyond_1024_tokens_comes_in_whole_pieces(tgi: Tgi) -> None:
    decoded = tgi.chat("go on", 1500)
    assert decoded.output_tokens == 2048  # not 1,500: the limit is of a piece
    assert decoded.finish_reason == "length"


def test_an_answer_ends_early_where_the_next_piece_does_not_fit() -> None:
    with serving("--max-total-tokens=1500") as tgi:
        decoded = tgi.chat("go on", 1400)
    assert (decoded.output_tokens, decoded.finish_reason) == (1024, "length")


def test_hugging_faces_client_reads_the_same_chat(tgi: Tgi) -> None:
    with tgi.client() as client:
        stream = client.chat_completion(
            [{"role": "user", "content": "Tell me"}],
            max_tokens=12,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},  # type: ignore[arg-type]
        )
        chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    usage = chunks[-1].usage
    decoded = tgi.chat("Tell me", 12)
    assert "".join(choice.delta.content or "" for choice in choices) == decoded.text
    assert choices[-1].finish_reason == decoded.finish_reason
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (decoded.input_tokens, decoded.output_tokens)
    assert len(choices) == decoded.output_tokens  # one event per token


def test_hugging_faces_client_and_bench_agree_on_an_error(tgi: Tgi) -> None:
    messages = [{"role": "user", "content": "break now"}]
    with tgi.client() as client:
        with pytest.raises(TextGenerationError, match="Request failed during generation"):
            list(client.chat_completion(messages, max_tokens=12, temperature=0.0, stream=True))
        assert tgi.outcome("break now")[0] == "server_error"
        client.health_check()


def test_tgis_own_stream_says_the_same_as_its_chat(tgi: Tgi) -> None:
    prompt = "user: Tell me\nassistant:"
    with tgi.client() as client:
        events = list(client.text_generation(prompt, max_new_tokens=12, details=True, stream=True))
    decoded = tgi.chat("Tell me", 12)
    last = events[-1]
    assert "".join(event.token.text for event in events if not event.token.special) == decoded.text
    assert last.generated_text == decoded.text
    assert last.details is not None
    assert (last.details.input_length, last.details.generated_tokens) == (
        decoded.input_tokens,
        decoded.output_tokens,
    )
    assert last.details.finish_reason == decoded.finish_reason


def test_tgis_own_stream_ends_without_a_mark(tgi: Tgi) -> None:
    status, body, kind = tgi.post("/generate_stream", {"inputs": "go", "parameters": {"max_new_tokens": 2}})
    assert (status, kind) == (200, "text/event-stream")
    assert b"[DONE]" not in body
    refused = {"inputs": "go", "parameters": {"temperature": 0}}
    status, body, _ = tgi.post("/generate_stream", refused)
    assert status == 200
    assert json.loads(body.removeprefix(b"data: "))["error_type"] == "validation"


def test_hugging_faces_client_and_bench_read_the_same_info(tgi: Tgi) -> None:
    facts = fetch_facts(f"{tgi.root}/v1", ENGINE.pages)
    with tgi.client() as client:
        assert facts == {"/info": client.get_endpoint_info()}
    assert ENGINE.said("", facts).terms == {
        "engine_version": "3.3.6-dev0 (sha-db931fc)",
        "context_length": 4096,
        "max_input_tokens": 4095,
        "max_concurrent_requests": 128,
    }


def test_a_launcher_of_the_users_own_takes_the_command_line(tmp_path: Path) -> None:
    launcher = tmp_path / "text-generation-launcher"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "tgi_server.py"} "$@"\n')
    launcher.chmod(0o755)
    scratch = tmp_path / ("long" * 30)  # longer than the path of a socket may be
    scratch.mkdir()
    terms = EngineTerms(
        launcher="native", context_length=512, concurrent_sequences=2, prefix_cache=True, graphs=False
    )
    deployment = Deployment("tgi", "m", "bf16", terms, Options(program=str(launcher)), "tgi")
    place = Place(None, tmp_path, "127.0.0.1", free_port(), scratch, launcher)
    spec = ENGINE.launch(deployment, place)
    assert isinstance(spec, NativeSpec)
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            spec.argv, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **spec.environment}
        )
    try:
        wait_until(lambda: process.poll() is not None or b"Connected" in log.read_bytes())
        facts = wait_until(lambda: fetch_facts(spec.base_url, ENGINE.pages))
    finally:
        process.terminate()
        process.wait()
    assert ENGINE.said(log.read_text(), facts).terms == {
        "attention_backend": "flashinfer",
        "prefix_cache": True,
        "chunked_prefill": True,
        "graphs": False,
        "max_batch_total_tokens": 200000,
        "max_batch_prefill_tokens": 4096,
        "kv_cache_tokens": 200000,
        "engine_version": "3.3.6-dev0 (sha-db931fc)",
        "context_length": 512,
        "max_input_tokens": 511,
        "max_concurrent_requests": 4096,
    }
    assert (scratch / "out" / "tokenizer.json").is_file()
    assert (scratch / "shard-0").is_socket()


@pytest.mark.parametrize(("attention", "is_named"), [("flashinfer", True), ("paged", False)])
def test_a_start_keeps_no_note_that_its_server_s_log_contradicts(
    tmp_path: Path, attention: str, is_named: bool
) -> None:
    launcher = tmp_path / "text-generation-launcher"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "tgi_server.py"} "$@"\n')
    launcher.chmod(0o755)
    place = made(tmp_path / "place")
    model = write_checkpoint(tmp_path / "checkpoint")
    keys = quick("engine=tgi", f"tgi.program={launcher}", f"model={model}", "quantization=bf16", "device=cpu")
    own = ("engine.launcher=native", "engine.context_length=2048")
    keys = [key for key in keys if not key.startswith("reference.")]
    done = bench(place, "run", *keys, *own, "--output", place.run_dir, ATTENTION=attention)
    assert done.returncode == 0, done.stderr
    [start] = place.starts()
    assert start["resolved"]["chunked_prefill"] is is_named
    assert ("concurrent_sequences" in start["unmatched"]) is is_named
    # That it cannot be told a number of tokens is so in either case.
    assert "kv_cache_tokens" in start["unmatched"]
