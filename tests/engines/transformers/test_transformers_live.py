"""The real transformers server, on a tiny random model."""

import http.client
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asking import asker, assert_a_text_is_told_as_an_answer
from places import TESTS
from waiting import wait_until

from serving_bench.engines.transformers.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    METRICS_PATH,
    Ask,
    Deployment,
    EngineTerms,
    HttpCall,
    InstallSpec,
    NativeSpec,
    Place,
    Token,
    Turn,
)
from serving_bench.harness.install.install import Environment, cache_dir, installed
from serving_bench.harness.load.answer.chat import Decoded, decode
from serving_bench.harness.servers.scrape import terms_on
from serving_bench.harness.servers.server import free_port

pytestmark = pytest.mark.engines
MAKE = TESTS / "data" / "transformers" / "tiny_checkpoint.py"
CONTEXT = 512
START_LIMIT_S = 240  # importing torch alone takes a minute on a machine that is busy
# One thread: with two, PyTorch's spin while others compute, and each waits for the other.
OPTIONS = Options(threads=1)


@dataclass(frozen=True)
class Live:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        with closing(self.connect()) as connection:
            send(connection, method, path, body)
            response = connection.getresponse()
            return response.status, response.read()

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path)[1])

    @property
    def ask(self) -> Ask:
        return asker(f"http://127.0.0.1:{self.port}/v1")

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return self.request("GET", "/health")[0] == 200
        except ConnectionRefusedError:
            return False

    def stream(self, text: str = "hi", max_tokens: int = 16, **more: Any) -> Decoded:
        status, body = self.request("POST", "/v1/chat/completions", asked(text, max_tokens, **more))
        assert status == 200, body
        return decode(body, [1], [len(body)])

    def refused(self, **more: Any) -> str:
        """The message of HTTP 400."""
        status, body = self.request("POST", "/v1/chat/completions", {**asked("hi", 8), **more})
        assert status == 400, body
        error = json.loads(body)["error"]
        assert error["type"] == "invalid_request_error"
        return str(error["message"])


def asked(text: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **ENGINE.request_fields(Turn((), max_tokens), Options(), "matched"),
        **more,
    }


def send(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> None:
    raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    connection.request(method, path, raw, {"Content-Type": "application/json"})


@pytest.fixture(scope="module")
def environment() -> Environment:
    spec = ENGINE.install(None, "cpu")
    assert isinstance(spec, InstallSpec)
    found = installed(cache_dir(), spec)
    if found is None:
        pytest.skip("transformers is not installed: bench install transformers")
    return found


@pytest.fixture(scope="module")
def tiny(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([str(environment.python), "-P", str(MAKE), str(folder)], check=True, capture_output=True)
    return folder


def begun(
    environment: Environment,
    weights: Path,
    folder: Path,
    terms: EngineTerms,
    quantization: str = "bf16",
    port: int | None = None,
) -> Live:
    deployment = Deployment("transformers", "tiny", quantization, terms, OPTIONS, "label")
    port = port or free_port()
    spec = ENGINE.launch(deployment, Place(environment.python, weights, "127.0.0.1", port, folder))
    assert isinstance(spec, NativeSpec)
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            spec.argv, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **spec.environment}
        )
    return Live(process, port, log)


@contextmanager
def serving(
    environment: Environment, weights: Path, folder: Path, terms: EngineTerms | None = None
) -> Iterator[Live]:
    terms = terms or EngineTerms(context_length=CONTEXT, seed=3)
    live = begun(environment, weights, folder, terms)
    try:
        wait_until(live.is_healthy, START_LIMIT_S)
        yield live
    finally:
        live.process.kill()
        live.process.wait()


@pytest.fixture(scope="module")
def server(environment: Environment, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(environment, tiny, tmp_path_factory.mktemp("server")) as live:
        yield live


@pytest.mark.parametrize("max_tokens", [1, 7, 64])
def test_answer_has_exactly_the_tokens_asked_for(server: Live, max_tokens: int) -> None:
    decoded = server.stream(max_tokens=max_tokens)
    assert (decoded.output_tokens, decoded.finish_reason, decoded.saw_done) == (max_tokens, "length", True)


def test_the_prompt_is_counted_as_the_template_renders_it(server: Live) -> None:
    # A token per byte, and one for the beginning.
    assert server.stream("hi").input_tokens == 1 + len("user: hi\nassistant: ")


def test_a_stream_and_a_whole_answer_have_the_same_text(server: Live) -> None:
    """Half of the random model's bytes are unfinished characters: none may be lost between chunks."""
    whole = asked("hello", 100, stream=False)
    del whole["stream_options"]
    status, body = server.request("POST", "/v1/chat/completions", whole)
    answer = json.loads(body)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 100
    text = answer["choices"][0]["message"]["content"]
    assert server.stream("hello", 100).text == text
    assert len(text.encode()) >= 100  # every token is a byte, and a broken one three


def test_each_token_is_one_event_after_the_role(server: Live) -> None:
    _, body = server.request("POST", "/v1/chat/completions", asked("hello", 20))
    events = [json.loads(line) for line in re.findall(rb"data: (\{.*)", body)]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert len([delta for delta in deltas[1:] if "content" in delta]) in (20, 21)  # and what is left over
    assert body.endswith(b"data: [DONE]\n\n")


def test_greedy_answers_are_equal_whatever_the_models_files_ask_for(server: Live) -> None:
    """generation_config.json asks for sampling at a temperature of 3."""
    assert server.stream("again", 32).text == server.stream("again", 32).text


def test_a_token_that_ends_an_answer_does_unless_it_is_ignored(
    environment: Environment, tiny: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "ending")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": list(range(258))}))
    with serving(environment, folder, tmp_path) as live:
        ended = live.stream("end", 20, ignore_eos=False)
        assert (ended.output_tokens, ended.finish_reason) == (1, "stop")
        assert live.stream("end", 20).output_tokens == 20


def test_requests_are_served_one_at_a_time_in_their_order(server: Live) -> None:
    ended: list[int] = []

    def ask(number: int) -> None:
        server.stream(f"number {number}", 60)
        ended.append(number)

    with closing(server.connect()) as first:
        send(first, "POST", "/v1/chat/completions", asked("first", 450))
        response = first.getresponse()
        response.readline()
        threads = []
        for number in range(3):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            wait_until(lambda: in_line(server) == len(threads))
        assert not ended
        response.read()
    for thread in threads:
        thread.join()
    assert ended == [0, 1, 2]


def in_line(server: Live) -> int:
    return int(told(server)["waiting"])


def told(server: Live) -> dict[str, float]:
    found, missing = terms_on(server.request("GET", METRICS_PATH)[1].decode(), ENGINE.metrics)
    assert not missing
    return dict(found)


def test_its_counters_are_what_its_answers_say(server: Live) -> None:
    before = told(server)
    with closing(server.connect()) as first:
        send(first, "POST", "/v1/chat/completions", asked("first", 450))
        response = first.getresponse()
        response.readline()
        second = threading.Thread(target=server.stream, args=("second", 60))
        second.start()
        busy = wait_until(lambda: (found := told(server))["waiting"] and found["running"] and found)
        response.read()
    second.join()
    after = wait_until(lambda: (found := told(server))["running"] == 0 and found)
    assert (busy["running"], busy["waiting"], after["waiting"]) == (1, 1, 0)
    assert after["generated_tokens"] - before["generated_tokens"] == 510
    assert after["queued_requests"] - before["queued_requests"] == 2
    assert after["queue_s"] > before["queue_s"]
    prompts = [server.stream(text, 1).input_tokens for text in ("first", "second")]
    assert after["prompt_tokens"] - before["prompt_tokens"] == sum(prompts)


def test_a_client_that_leaves_ends_its_generation(server: Live) -> None:
    connection = server.connect()
    send(connection, "POST", "/v1/chat/completions", asked("x" * 20, 400))
    connection.getresponse().readline()
    connection.close()
    assert server.stream("next", 1).output_tokens == 1
    ends = re.findall(
        r"generation ended after (\d+) of 400 tokens: (?:BrokenPipe|ConnectionReset)", server.log.read_text()
    )
    assert ends
    assert int(ends[-1]) < 400


def whole(live: Live, text: str, max_tokens: int, **more: Any) -> Any:
    """The choice of an answer that is not streamed, with its probabilities."""
    body = asked(text, max_tokens, stream=False, logprobs=True, **more)
    del body["stream_options"]
    return live.ask(HttpCall("POST", "/v1/chat/completions", body), dict[str, Any])["choices"][0]


def test_each_token_of_an_answer_is_named_with_the_likeliest(server: Live) -> None:
    choice = whole(server, "hello", 40, top_logprobs=5)
    content = choice["logprobs"]["content"]
    assert len(content) == 40
    assert all(len(each["top_logprobs"]) == 5 for each in content)
    # It takes the likeliest. Each token is one byte, of which most are no whole character.
    for each in content:
        assert each["top_logprobs"][0] == {name: each[name] for name in ("token", "logprob", "bytes")}
        likely = [other["logprob"] for other in each["top_logprobs"]]
        assert likely == sorted(likely, reverse=True)
        assert 0 < sum(map(math.exp, likely)) < 1
    raw = bytes(byte for each in content for byte in each["bytes"])
    assert raw.decode(errors="replace") == choice["message"]["content"]
    assert not raw.decode(errors="replace").isascii()


def test_an_answer_names_none_beside_its_own_unless_asked(server: Live) -> None:
    assert [each["top_logprobs"] for each in whole(server, "hello", 3)["logprobs"]["content"]] == [[], [], []]
    plain = asked("hello", 3, stream=False)
    del plain["stream_options"]
    answer = server.ask(HttpCall("POST", "/v1/chat/completions", plain), dict[str, Any])
    assert answer["choices"][0]["logprobs"] is None


def given(live: Live, text: str) -> Sequence[Token]:
    given_text = ENGINE.given_text
    assert given_text is not None
    return list(given_text(live.ask, "tiny", text, 20))


def test_a_text_is_told_as_an_answer_is(server: Live) -> None:
    """The template's first token is written out: this tokenizer puts none before a text."""
    assert_a_text_is_told_as_an_answer(ENGINE, server.ask, "tiny", "<s>user: hello\nassistant: ")


def test_one_pass_says_of_each_place_what_the_text_up_to_it_says(server: Live) -> None:
    text = "again and again"
    tokens = given(server, text)
    assert [token.name for token in tokens[:5]] == [token.name for token in tokens[10:]]
    assert tokens[0] == Token(tokens[0].name)
    for place in (1, 7, len(text) - 1):
        alone = given(server, text[: place + 1])[-1]
        assert alone.name == tokens[place].name
        assert alone.logprob == pytest.approx(tokens[place].logprob, abs=0.02)
        shared = alone.top.keys() & tokens[place].top.keys()
        assert len(shared) > 10
        assert [alone.top[name] for name in shared] == pytest.approx(
            [tokens[place].top[name] for name in shared], abs=0.02
        )


def test_speculation_tells_the_same_probabilities(
    environment: Environment, tiny: Path, tmp_path: Path, server: Live
) -> None:
    terms = EngineTerms(context_length=CONTEXT, speculative_tokens=4)
    with serving(environment, tiny, tmp_path, terms) as live:
        found = whole(live, "again and again", 30, top_logprobs=3)["logprobs"]["content"]
    plain = whole(server, "again and again", 30, top_logprobs=3)["logprobs"]["content"]
    assert [each["token"] for each in found] == [each["token"] for each in plain]
    assert [each["logprob"] for each in found] == pytest.approx([each["logprob"] for each in plain], abs=0.05)


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/v1/chat/completions", {"logprobs": True}, "logprobs: only of an answer that is not streamed"),
        ("/v1/chat/completions", {"top_logprobs": 2}, "top_logprobs: needs logprobs, which must be true"),
        ("/v1/chat/completions", {"top_logprobs": 21}, "top_logprobs: must be a whole number from 0 to 20"),
        ("/tokenize", {"prompt": "a", "top_logprobs": "5"},
         "top_logprobs: must be a whole number from 0 to 20"),
        ("/tokenize", {"prompt": ["a"]}, "prompt: must be a text"),
        ("/tokenize", {}, "prompt: must be a text"),
        ("/tokenize", {"text": "a"}, "body: must be an object of model, prompt, messages, top_logprobs"),
        ("/tokenize", {"prompt": "a" * 600, "top_logprobs": 1},
         "the text has 600 tokens; the context has 512"),
    ],
)  # fmt: skip
def test_probabilities_that_cannot_be_told_are_http_400_with_a_reason(
    server: Live, path: str, change: dict[str, Any], said: str
) -> None:
    body = {"model": "tiny"} if path == "/tokenize" else asked("hi", 8)
    status, raw = server.request("POST", path, {**body, **change})
    assert (status, json.loads(raw)["error"]["message"]) == (400, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"max_tokens": CONTEXT},
            rf"the prompt has 21 tokens and {CONTEXT} more are asked for; the context has",
        ),
        ({"max_tokens": 0}, "max_tokens: "),
        (
            {"messages": [{"role": "nobody", "content": "x"}]},
            "the chat template does not take these messages",
        ),
        ({"presence_penalty": 0.5}, "body: must be an object of model, "),
        ({"temperature": 1}, "temperature: must be 0"),
    ],
)
def test_what_cannot_be_served_is_http_400_with_a_reason(server: Live, change: dict[str, Any], said: str):
    assert re.match(said, server.refused(**change))


def test_no_json_and_another_model_are_http_400(server: Live) -> None:
    status, body = server.request("POST", "/v1/chat/completions", b"{")
    assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")
    status, body = server.request("POST", "/v1/chat/completions", {**asked("hi", 1), "model": "other"})
    assert status == 400
    assert json.loads(body)["error"]["message"] == "model other is not served here; tiny is"


def test_the_server_says_what_it_really_uses(server: Live, environment: Environment) -> None:
    facts = {path: server.get(path) for path in ENGINE.pages}
    resolved = dict(ENGINE.said(server.log.read_text(), facts).terms)
    assert resolved["engine_version"] == environment.versions["transformers"]
    expected = {
        "context_length": CONTEXT,
        "concurrent_sequences": 1,
        "dtype": "bfloat16",
        "attention_backend": "sdpa",
        "threads": 1,
        "seed": 3,
        "prefix_cache": False,
    }
    assert {term: resolved[term] for term in expected} == expected
    log = server.log.read_text()
    assert all(re.search(stage.pattern, log, re.MULTILINE) for stage in ENGINE.stages)
    (model,) = server.get("/v1/models")["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", CONTEXT)


def test_speculation_gives_the_same_greedy_text_and_length(
    environment: Environment, tiny: Path, tmp_path: Path, server: Live
) -> None:
    terms = EngineTerms(context_length=CONTEXT, speculative_tokens=4)
    with serving(environment, tiny, tmp_path, terms) as live:
        decoded = live.stream("again and again", 60)
        assert live.get("/info")["speculative_tokens"] == 4
    assert decoded.output_tokens == 60
    assert decoded.text == server.stream("again and again", 60).text


def test_sigterm_ends_it_with_0_in_the_middle_of_an_answer(environment: Environment, tiny: Path, tmp_path):
    with serving(environment, tiny, tmp_path) as live, closing(live.connect()) as connection:
        send(connection, "POST", "/v1/chat/completions", asked("x", 200))
        connection.getresponse().readline()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=5) == 0


def assert_ends(live: Live, said: str, hints: int = 1) -> None:
    """It ends by itself, with a line that so many hints know."""
    try:
        assert live.process.wait(timeout=START_LIMIT_S) not in (0, None)
    finally:
        live.process.kill()
    log = live.log.read_text()
    assert re.search(said, log.splitlines()[-1])
    assert len([hint for hint in ENGINE.hints if re.search(hint.pattern, log)]) == hints


def test_more_context_than_the_model_has_ends_the_start(environment: Environment, tiny: Path, tmp_path: Path):
    live = begun(environment, tiny, tmp_path, EngineTerms(context_length=1000))
    assert_ends(live, r"^--context-length 1000: the model's context has 512 tokens$")


def test_a_model_that_overflows_float16_does_not_become_ready(environment: Environment, tmp_path: Path):
    make = [str(environment.python), "-P", str(MAKE), str(tmp_path / "large"), "1e8"]
    subprocess.run(make, check=True, capture_output=True)
    live = begun(environment, tmp_path / "large", tmp_path, EngineTerms(), "fp16")
    assert_ends(live, r"^the model computes NaN as float16; another dtype may work$")


def test_a_taken_port_ends_the_start(environment: Environment, tiny: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        live = begun(environment, tiny, tmp_path, EngineTerms(), port=taken.getsockname()[1])
        assert_ends(live, "address already in use", hints=0)
