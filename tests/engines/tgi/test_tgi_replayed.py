"""What a real TGI 3.3.6-dev0 answered (tests/data/tgi), sent again over a real socket to the client of loads,
to what asks for quality, and to a whole run: with its Python shard (v3) and with its llama.cpp backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from bench_command import bench, made, quick
from captured import Replay, replaying
from places import TESTS

from engines.tgi.engine import ENGINE, Options
from harness.contracts import HttpCall, Turn
from harness.load.answer import openai
from harness.load.answer.chat import Decoded, classify, decode
from harness.load.client.http import Client, endpoint
from harness.load.client.receive import Receiver
from harness.quality.chat import greedy
from harness.servers.probe import request
from harness.servers.scrape import fetch_facts

CHAT = "/v1/chat/completions"
PAGES = {"/v1/models": "models", "/info": "info", "/health": "health", CHAT: "chat-stream"}
BACKENDS = ("v3", "llama_cpp")
TOO_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 9009 `inputs` "
    "tokens and 8 `max_new_tokens`"
)
T = TypeVar("T")


@pytest.fixture(params=BACKENDS)
def replay(request: pytest.FixtureRequest) -> Iterator[Replay]:
    with replaying(Replay(TESTS / "data" / "tgi" / request.param, dict(PAGES))) as made_up:
        yield made_up


def streamed(replay: Replay, capture: str = "chat-stream") -> tuple[Decoded, tuple[str, str | None]]:
    """What the client of loads makes of a captured answer to the request that it sends."""
    replay.answers[CHAT] = capture
    turn = Turn((), 32)
    body = openai.API.request("tgi", turn, (), ENGINE.request_fields(turn, Options(), "matched"))
    with Receiver() as receiver, closing(Client(endpoint(replay.base_url), receiver)) as client:
        found = client.stream(msgspec.json.encode(body), "r1", 20.0)
    assert (found.outcome, found.error) == ("ok", None)
    decoded = decode(found.body, found.read_ns, found.read_ends)
    return decoded, classify(found.status, found.body, decoded, found.headers.get("content-type"))


def ask(replay: Replay, capture: str, call: HttpCall, kind: type[T]) -> T:
    replay.answers[call.path] = capture
    url = replay.base_url.removesuffix("/v1") + call.path
    return msgspec.json.decode(request(call.method, url, timeout_s=20, body=call.body).body, type=kind)


def test_a_stream_is_read_whole(replay: Replay) -> None:
    decoded, outcome = streamed(replay)
    assert outcome == ("ok", None)
    assert (decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens) == (15, 32, None)
    assert (decoded.finish_reason, decoded.saw_done) == ("length", True)
    # One event with text for each token, from the first on: none for the role alone.
    assert len(decoded.chunk_ns) == 32
    assert decoded.text.startswith({"v3": " invocation" * 32, "llama_cpp": "Row number"}[replay.folder.name])
    assert replay.bodies[0]["temperature"] == 0


def test_a_prompt_that_is_too_long_is_an_error_under_200_in_a_stream_and_422_else(replay: Replay) -> None:
    assert streamed(replay, "chat-too-long-stream")[1] == ("server_error", TOO_LONG)
    assert streamed(replay, "chat-too-long")[1] == ("http_error", f"HTTP 422: {TOO_LONG}")


def test_a_stream_that_breaks_off_is_no_answer(replay: Replay) -> None:
    decoded, (outcome, _) = streamed(replay, "abort")
    assert (decoded.finish_reason, decoded.saw_done, outcome) == (None, False, "protocol_error")


@pytest.mark.parametrize(
    ("capture", "said"),
    [
        (
            "chat-bad-json",
            "HTTP 400: Failed to parse the request body as JSON: messages: EOF while parsing a list",
        ),
        (
            "chat-wrong-type",
            "HTTP 422: Failed to deserialize the JSON body into the target type: max_tokens: ",
        ),
        ("chat-top-p-1", "HTTP 422: Input validation error: `top_p` must be > 0.0 and < 1.0"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(replay: Replay, capture: str, said: str) -> None:
    _, (outcome, error) = streamed(replay, capture)
    assert outcome == "http_error"
    assert str(error).startswith(said)


def test_its_page_tells_version_and_limits(replay: Replay) -> None:
    facts = fetch_facts(replay.base_url, ENGINE.pages)
    # Built without a label: the commit tells it from 3.3.7, which says the same version.
    assert ENGINE.said("", facts).terms == {
        "engine_version": "3.3.6-dev0 (db931fcf42da018a3657580c64bf2720f167f9ab)",
        "context_length": 2048,
        "max_input_tokens": 2047,
        "max_concurrent_requests": {"v3": 128, "llama_cpp": 64}[replay.folder.name],
    }


def test_a_chat_is_told_as_its_tokens(replay: Replay) -> None:
    assert ENGINE.prompt_tokens is not None
    told = ENGINE.prompt_tokens(lambda call, kind: ask(replay, "chat-tokenize", call, kind), "tgi", ())
    assert (len(told), *told[:3]) == (15, "2", "105", "2364")


def test_the_python_shard_tells_a_text_s_tokens_and_more_likely_ones_than_were_asked_for() -> None:
    with replaying(Replay(TESTS / "data/tgi/v3", dict(PAGES))) as replay:
        assert ENGINE.given_text is not None
        given = ENGINE.given_text(
            lambda call, kind: ask(replay, "generate-decoder-input", call, kind), "tgi", "text", 5
        )
        assert [token.logprob for token in given] == [None, -12.5625, -12.625, -13.0, -12.6875, -12.5625]
        body = {"model": "tgi", "messages": [{"role": "user", "content": "again"}]}
        told = greedy(lambda call, kind: ask(replay, "chat-logprobs", call, kind), CHAT, "chat", 0, body, 5)
    assert (told.prompt_tokens, told.finish_reason, len(told.tokens)) == (15, "length", 6)
    # As likely as the fifth are up to eleven more.
    assert [len(token.top) for token in told.tokens] == [9, 16, 5, 10, 7, 8]


def test_the_llama_cpp_backend_tells_no_likeliest_tokens(tmp_path: Path) -> None:
    with replaying(Replay(TESTS / "data/tgi/llama_cpp", dict(PAGES))) as replay:
        _, (outcome, error) = streamed(replay, "chat-logprobs")
    assert outcome == "http_error"
    assert error == "HTTP 422: Input validation error: `top_n_tokens` must be >= 0 and <= 0. Given: 5"


@pytest.mark.parametrize("model", ["tgi", "local/gemma3-270m"])
def test_a_whole_run_measures_one_by_either_name_of_its_model(tmp_path: Path, model: str) -> None:
    place = made(tmp_path / "place")
    with replaying(Replay(TESTS / "data/tgi/llama_cpp", dict(PAGES))) as replay:
        keys = quick("engine=tgi", "load.concurrency=2", "load.duration=1s", f"model={model}")
        keys = [key for key in keys if not key.startswith("reference.")]
        done = bench(place, "run", *keys, f"engine.base_url={replay.base_url}", "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    [start], [cell] = place.starts(), place.cells().values()
    assert (start["resolved"]["context_length"], cell["status"]) == (2048, "completed")
    assert start["version"].startswith("3.3.6-dev0 (db931fcf")
    assert "tgi" in place.report()


def test_a_run_tells_the_error_of_one_that_cannot_generate(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    answers = {**PAGES, CHAT: "chat-too-long-stream"}
    with replaying(Replay(TESTS / "data/tgi/v3", answers)) as replay:
        keys = [key for key in quick("engine=tgi", "model=tgi") if not key.startswith("reference.")]
        done = bench(place, "run", *keys, f"engine.base_url={replay.base_url}", "--output", place.run_dir)
    assert f"a generation answered 200 with an error: {TOO_LONG}\n" in done.stderr
    assert "data: " not in done.stderr
