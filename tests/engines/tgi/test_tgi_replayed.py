"""What a real TGI 3.3.6-dev0 answered (tests/data/tgi), sent again over a real socket to the client of loads,
to what asks for quality, and to a whole run: with its Python shard (v3) and with its llama.cpp backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import CHAT, asker, streamed
from bench_command import attached, bench, made
from captured import Replay, replaying
from huggingface_hub import InferenceClient
from places import TESTS

from serving_bench.engines.tgi.engine import ENGINE
from serving_bench.harness.load.answer.chat import Decoded
from serving_bench.harness.quality.chat import greedy
from serving_bench.harness.servers.probe import count_prompt_tokens, repeats_answers
from serving_bench.harness.servers.scrape import fetch_facts
from serving_bench.harness.store import store

PAGES = {
    "/v1/models": "models",
    "/info": "info",
    "/health": "health",
    "/metrics": "metrics",
    CHAT: "chat-stream",
}
BACKENDS = ("v3", "llama_cpp")
TOO_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 9009 `inputs` "
    "tokens and 8 `max_new_tokens`"
)


@pytest.fixture(params=BACKENDS)
def replay(request: pytest.FixtureRequest) -> Iterator[Replay]:
    with replaying(Replay(TESTS / "data" / "tgi" / request.param, dict(PAGES))) as made_up:
        yield made_up


def heard(replay: Replay, capture: str = "chat-stream") -> tuple[Decoded, tuple[str, str | None]]:
    replay.answers[CHAT] = capture
    return streamed(ENGINE, replay.base_url)


def test_a_stream_is_read_whole(replay: Replay) -> None:
    decoded, outcome = heard(replay)
    assert outcome == ("ok", None)
    assert (decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens) == (15, 32, None)
    assert (decoded.finish_reason, decoded.saw_done) == ("length", True)
    # One event with text for each token, from the first on: none for the role alone.
    assert len(decoded.chunk_ns) == 32
    assert decoded.text.startswith({"v3": " invocation" * 32, "llama_cpp": "Row number"}[replay.folder.name])
    # Nothing that TGI refuses or reads as something else.
    [sent] = replay.bodies
    assert sent["temperature"] == 0
    assert not {"top_p", "presence_penalty", "ignore_eos", "min_tokens", "logit_bias", "stop"} & set(sent)


def test_a_longer_stream_is_read_whole(replay: Replay) -> None:
    decoded, outcome = heard(replay, "chat-eos-stream")
    assert (outcome, decoded.output_tokens, decoded.finish_reason) == (("ok", None), 64, "length")


def test_a_model_that_it_does_not_have_is_answered_and_usage_comes_only_where_asked_for(replay: Replay):
    decoded, outcome = heard(replay, "chat-unknown-model-stream")
    assert (outcome, decoded.finish_reason) == (("ok", None), "length")
    assert (len(decoded.chunk_ns), decoded.input_tokens, decoded.output_tokens) == (4, None, None)


@pytest.mark.parametrize("capture", ["chat-no-model", "chat-unknown-model", "chat-ignore-eos"])
def test_prompts_are_counted_whatever_model_or_length_is_named(replay: Replay, capture: str) -> None:
    replay.answers[CHAT] = capture
    assert set(count_prompt_tokens(replay.base_url, "nosuch", timeout_s=20, key=None).values()) == {15}
    assert {body["model"] for body in replay.bodies} == {"nosuch"}


@pytest.mark.parametrize("replay", ["llama_cpp"], indirect=True)
def test_a_backend_that_samples_at_temperature_0_is_found_by_asking_again(replay: Replay) -> None:
    for captures, is_alike in (
        (("chat-again-1", "chat-again-1", "chat-again-2"), False),
        (("chat-again-1",) * 3, True),
    ):
        replay.answers[CHAT] = iter(captures)
        assert repeats_answers(replay.base_url, "tgi", timeout_s=20, key=None) is is_alike
    assert [body["temperature"] for body in replay.bodies] == [0] * 6
    assert ENGINE.said("", fetch_facts(replay.base_url, ENGINE.pages)).terms["backend"] == "llama.cpp"


@pytest.mark.parametrize("replay", ["v3"], indirect=True)
def test_whether_a_server_without_text_repeats_itself_is_not_known(replay: Replay) -> None:
    replay.answers[CHAT] = "chat-bad-json"
    assert repeats_answers(replay.base_url, "tgi", timeout_s=20, key=None) is None
    assert "backend" not in ENGINE.said("", fetch_facts(replay.base_url, ENGINE.pages)).terms


def test_hugging_faces_own_client_reads_the_same(replay: Replay) -> None:
    """A stream of it ends with the client."""
    decoded, _ = heard(replay)
    address = replay.base_url.removesuffix("/v1")
    with InferenceClient(address, provider="hf-inference", token="none", timeout=20) as client:
        messages = [{"role": "user", "content": "again"}]
        chunks = list(client.chat_completion(messages, max_tokens=32, stream=True))
        assert fetch_facts(replay.base_url, ENGINE.pages) == {"/info": client.get_endpoint_info()}
    choices, usage = [choice for chunk in chunks for choice in chunk.choices], chunks[-1].usage
    assert "".join(choice.delta.content or "" for choice in choices) == decoded.text
    assert choices[-1].finish_reason == decoded.finish_reason
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (decoded.input_tokens, decoded.output_tokens)
    assert len(choices) == decoded.output_tokens  # one event per token


def test_a_prompt_that_is_too_long_is_an_error_under_200_in_a_stream_and_422_else(replay: Replay) -> None:
    assert heard(replay, "chat-too-long-stream")[1] == ("server_error", TOO_LONG)
    assert heard(replay, "chat-too-long")[1] == ("http_error", f"HTTP 422: {TOO_LONG}")


def test_a_stream_that_breaks_off_is_no_answer(replay: Replay) -> None:
    decoded, (outcome, _) = heard(replay, "abort")
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
    _, (outcome, error) = heard(replay, capture)
    assert outcome == "http_error"
    assert str(error).startswith(said)


def test_its_page_tells_version_and_limits(replay: Replay) -> None:
    facts = fetch_facts(replay.base_url, ENGINE.pages)
    # Built without a label: the commit tells it from 3.3.7, which says the same version.
    assert ENGINE.said("", facts).terms == {
        "engine_version": "3.3.6-dev0 (db931fcf42da018a3657580c64bf2720f167f9ab)",
        "context_length": 2048,
        "max_input_tokens": 2047,
        **{
            "v3": {"max_concurrent_requests": 128},
            "llama_cpp": {"max_concurrent_requests": 64, "backend": "llama.cpp"},
        }[replay.folder.name],
    }


def test_a_chat_is_told_as_its_tokens(replay: Replay) -> None:
    assert ENGINE.prompt_tokens is not None
    replay.answers["/chat_tokenize"] = "chat-tokenize"
    told = ENGINE.prompt_tokens(asker(replay.base_url), "tgi", ())
    assert (len(told), *told[:3]) == (15, "2", "105", "2364")


def test_the_python_shard_tells_a_text_s_tokens_and_more_likely_ones_than_were_asked_for() -> None:
    answers = {"/generate": "generate-decoder-input", CHAT: "chat-logprobs"}
    with replaying(Replay(TESTS / "data/tgi/v3", answers)) as replay:
        assert ENGINE.given_text is not None
        given = ENGINE.given_text(asker(replay.base_url), "tgi", "text", 5)
        assert [token.logprob for token in given] == [None, -12.5625, -12.625, -13.0, -12.6875, -12.5625]
        body = {"model": "tgi", "messages": [{"role": "user", "content": "again"}]}
        told = greedy(asker(replay.base_url), CHAT, "chat", 0, body, 5)
    assert (told.prompt_tokens, told.finish_reason, len(told.tokens)) == (15, "length", 6)
    # As likely as the fifth are up to eleven more.
    assert [len(token.top) for token in told.tokens] == [9, 16, 5, 10, 7, 8]


def test_the_llama_cpp_backend_tells_no_likeliest_tokens(tmp_path: Path) -> None:
    with replaying(Replay(TESTS / "data/tgi/llama_cpp", dict(PAGES))) as replay:
        _, (outcome, error) = heard(replay, "chat-logprobs")
    assert outcome == "http_error"
    assert error == "HTTP 422: Input validation error: `top_n_tokens` must be >= 0 and <= 0. Given: 5"


@pytest.mark.parametrize(
    ("backend", "model", "numbers"),
    [
        (
            "v3",
            "tgi",
            {
                "running": 0.0,
                "waiting": 0.0,
                "generated_tokens": 1314.0,
                "queue_s": 0.0008328109999999999,
                "queued_requests": 18.0,
            },
        ),
        # It has no batches to tell of.
        (
            "llama_cpp",
            "local/gemma3-270m",
            {"generated_tokens": 254.0, "queue_s": 0.08663873999999999, "queued_requests": 14.0},
        ),
    ],
)
def test_a_whole_run_measures_one_by_either_name_of_its_model_and_keeps_its_numbers(
    tmp_path: Path, backend: str, model: str, numbers: dict[str, float]
) -> None:
    place = made(tmp_path / "place")
    with replaying(Replay(TESTS / "data/tgi" / backend, dict(PAGES))) as replay:
        words = ("load.concurrency=2", "load.duration=1s", f"model={model}")
        keys = attached(replay.base_url, *words, engine="tgi")
        done = bench(place, "run", *keys, "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    [start], [cell] = place.starts(), place.cells().values()
    assert (start["resolved"]["context_length"], cell["status"]) == (2048, "completed")
    assert start["version"].startswith("3.3.6-dev0 (db931fcf")
    assert "tgi" in place.report()
    samples = store.read_samples(next(place.run_dir.glob("starts/*/server.parquet")))
    terms = set(samples.column_names) - {"t_ns", "scrape_s"}
    said = {term: set(samples[term].to_pylist()) - {None} for term in terms}
    assert {term: values for term, values in said.items() if values} == {
        term: {value} for term, value in numbers.items()
    }


def test_a_run_tells_the_error_of_one_that_cannot_generate(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    answers = {**PAGES, CHAT: "chat-too-long-stream"}
    with replaying(Replay(TESTS / "data/tgi/v3", answers)) as replay:
        keys = attached(replay.base_url, "model=tgi", engine="tgi")
        done = bench(place, "run", *keys, "--output", place.run_dir)
    assert f"a generation answered 200 with an error: {TOO_LONG}\n" in done.stderr
    assert "data: " not in done.stderr
