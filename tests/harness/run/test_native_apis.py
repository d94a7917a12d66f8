"""`bench run` against servers that speak Anthropic's and Gemini's APIs, from its words to the report."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest
from bench_command import Place, attached, bench, made, told
from fake_http import Answer, page
from native_apis import (
    KEY,
    MODEL,
    Native,
    block,
    error_of,
    events,
    finished,
    good,
    message,
    native_server,
    part,
    response,
    text_block,
)

KEY_ENVS = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
PRICES = ("price.input_tokens=3", "price.cached_tokens=0.3", "price.output_tokens=15", "price.currency=EUR")


def run_at(base_url: str, api: str, *words: str) -> list[str]:
    return ["run", *attached(base_url, f"model={MODEL}", *words, engine=api), "--output", "run"]


def faults(api: str) -> dict[str, Answer]:
    """By the outcome and the error of the request that it comes to."""
    limit = error_of(api, 429, "rate_limit_error", "Too many requests.")
    if api == "anthropic":
        begun = message(*text_block(0, "Hi"), stop=None)
        overloaded = error_of(api, 529, "overloaded_error", "Overloaded")
        broken = [*begun, b"event: error\ndata: " + json.dumps(overloaded).encode() + b"\n\n"]
        refused = message(*text_block(0, "I can"), stop="refusal")
    else:
        begun = response(part(text="Hi"))
        overloaded = error_of(api, 503, "UNAVAILABLE", "Overloaded")
        broken = [*begun, b"data: " + json.dumps(overloaded).encode() + b"\r\n\r\n"]
        refused = response(part(text="I can"), finished("SAFETY"))
    return {
        "http_error: HTTP 429: Too many requests.": replace(page(limit, 429), headers={"retry-after": "7"}),
        "server_error: Overloaded": events(broken),
        "server_error: the model, or a filter, refused to answer or to go on (content_filter)": events(
            refused
        ),
        "protocol_error: the answer is cut: neither a finish_reason nor [DONE] came": events(begun),
        "reset: the server closed the connection": events(begun, closes=True),  # after a number of bytes
    }


def thinking(api: str) -> list[bytes]:
    """Two parts of thought and one of text; 24 tokens in, 4 of them cached; 6 out."""
    if api == "anthropic":
        thoughts = [{"type": "thinking_delta", "thinking": text} for text in ("Let me ", "see.")]
        blocks = [*block(0, {"type": "thinking", "thinking": ""}, *thoughts), *text_block(1, "Rain.")]
        return message(*blocks, output=6, cached=4)
    said = [part(text=text, thought=True) for text in ("Let me ", "see.")]
    counts = {"candidatesTokenCount": 2, "thoughtsTokenCount": 4, "cachedContentTokenCount": 4}
    return response(*said, finished("STOP", text="Rain."), **{**counts, "promptTokenCount": 24})


def rows_of(place: Place) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(place.run_dir / "cells/001/requests.parquet").to_pylist()
    return rows


def holding(place: Place) -> list[str]:
    files = [path for path in place.path.rglob("*") if path.is_file()]
    return [path.name for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("api", KEY_ENVS)
def test_a_run_tells_times_tokens_and_what_they_cost(tmp_path, api):
    place = made(tmp_path / "p")
    with native_server(api, lambda number, body: events(thinking(api))) as server:
        words = run_at(
            server.base_url, api, *PRICES, f"{api}.temperature=0.5", f"{api}.thinking_tokens=1024",
            "scenario.output_tokens=1025", *(["anthropic.thinking=enabled"] * (api == "anthropic")),
        )  # fmt: skip
        done = bench(place, *words, **{KEY_ENVS[api]: KEY})
    assert done.returncode == 0, done.stderr
    rows = rows_of(place)
    assert {row["outcome"] for row in rows} == {"ok"}
    for row in rows:
        assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"]) == (24, 4, 6)
        assert (row["output_text"], row["reasoning_text"], row["reasoning_chunks"]) == (
            "Rain.",
            "Let me see.",
            2,
        )
        assert len(row["chunk_ns"]) == 3
        assert row["sent_ns"] < row["first_content_ns"] <= row["first_answer_ns"] <= row["end_ns"]
    # The first question is whether it can be measured, without options.
    sent = server.asked[1]
    if api == "anthropic":
        assert (sent["temperature"], sent["thinking"]) == (0.5, {"type": "enabled", "budget_tokens": 1024})
    else:
        config = sent["generationConfig"]
        assert config["temperature"] == 0.5
        assert config["thinkingConfig"] == {"thinkingBudget": 1024, "includeThoughts": True}
    # 20 new tokens at 3, 4 cached at 0.30 and 6 at 15 EUR: 151.2 millionths, for 6 tokens out.
    report = place.report()
    assert ">25.20<" in report
    assert ">0.00015<" in report
    assert (
        "Priced at 3.00 (0.30 if cached) EUR per million input tokens and 15.00 per million output" in report
    )
    assert server.keys == {KEY}
    assert holding(place) == []
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("api", KEY_ENVS)
def test_each_fault_is_one_failed_request_with_its_reason(tmp_path, api):
    place, wrong = made(tmp_path / "p"), faults(api)
    # After each failure a good one, so that the user does not wait longer and longer.
    replies = [reply for each in wrong.values() for reply in (events(good(api, "Hel", "lo")), each)]
    words = ("load.conversations=6", "load.duration=60s", "load.max_failed=1", "scenario.think_time=0s")
    with native_server(api, lambda number, body: replies[number % len(replies)]) as server:
        done = bench(place, *run_at(server.base_url, api, *words), **{KEY_ENVS[api]: KEY})
    assert done.returncode == 0, done.stderr
    rows = rows_of(place)
    failed = [f"{row['outcome']}: {row['error']}" for row in rows if row["outcome"] != "ok"]
    assert {each.partition(" after ")[0] for each in failed} == set(wrong)
    assert {row["output_text"] for row in rows if row["outcome"] == "ok"} == {"Hello"}
    assert all("retry-after: 7" in row["raw_response"].lower() for row in rows if row["http_status"] == 429)


# --- mistakes ---


@pytest.fixture(scope="module")
def server() -> Iterator[Native]:
    with native_server("anthropic", lambda number, body: events(good("anthropic", "Hi"))) as made_here:
        yield made_here


# Words instead of those for a good server, the key, and what is said of it.
MISTAKES: dict[str, tuple[list[str], str | None, str]] = {
    "no server": (["engine=gemini", "model=m"], None, "engine=gemini needs engine.base_url=URL of a running"),
    "a sweep": (["quantization=fp16,awq"], KEY, "quantization=fp16,awq: a running server ({url}) is one"),
    "a name": (["engine.api_key_env=MINE"], KEY, "engine.api_key_env=MINE: no such variable in the"),
    "a name of nothing": (
        ["engine.api_key_env=ANTHROPIC_API_KEY"], "", "engine.api_key_env=ANTHROPIC_API_KEY: no such",
    ),
    "a key in the URL": (["engine.base_url='http://h?key=47'"], KEY, "engine.base_url: has a query or a"),
    "a query": (["engine.base_url='http://h/v1?beta=true'"], KEY, "engine.base_url: has a query or a"),
    "no key": ([], None, "engine.base_url={url}/v1: it wants a key, and none is set (a generation answered"),
    "a wrong key": ([], "sk-wrong-4711", "{url}/v1: the key was refused (a generation answered 401"),
    "no such model": (["model=small"], KEY, "model small cannot be measured: a generation answered 404"),
    "quality": (["quality=fidelity"], KEY, "quality=fidelity: cannot be asked over the API of engine="),
    "half a price": (["price.output_tokens=15"], KEY, "both price.input_tokens and price.output_tokens"),
    "another's price": (
        ["engine=reference", "price.output_tokens=15"], None, "price.output_tokens=15: is for a running",
    ),
    "below nothing": (["price.input_tokens=-1"], KEY, "price.input_tokens=-1: must be 0 or more"),
    "its thinking": (["anthropic.thinking=yes"], KEY, "anthropic.thinking=yes: choose from adaptive"),
    "a budget alone": (["anthropic.thinking_tokens=2048"], KEY, "=2048: needs anthropic.thinking=e"),
    "a budget of none": (
        ["anthropic.thinking=adaptive", "anthropic.thinking_tokens=2048"], KEY, "=2048: needs anthropic",
    ),
    "no budget": (["anthropic.thinking=enabled"], KEY, "=enabled: give anthropic.thinking_tokens too"),
    "a budget below 1": (
        ["anthropic.thinking=enabled", "anthropic.thinking_tokens=-5"], KEY, "=-5: must be 1 or more",
    ),
    "a budget beyond the answer": (
        ["anthropic.thinking=enabled", "anthropic.thinking_tokens=2048", "scenario.output_tokens=2048"], KEY,
        "anthropic.thinking_tokens=2048: must be less than an answer's tokens, and one has 2048; give more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, server, mistake):
    place, (changes, key, said) = made(tmp_path / "p"), MISTAKES[mistake]
    good_words = ["engine=anthropic", f"engine.base_url={server.base_url}", f"model={MODEL}"]
    is_other = any(word.startswith("engine=") for word in changes)
    changed = {word.partition("=")[0] for word in changes}
    kept = [word for word in good_words if word.partition("=")[0] not in changed and not is_other]
    surroundings = {} if key is None else {"ANTHROPIC_API_KEY": key}
    done = told(place, "run", *kept, *changes, "--output", "run", **surroundings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said.format(url=server.base_url) in done.stderr
    assert not key or key not in done.stderr
    assert not place.run_dir.exists() or not list(place.run_dir.iterdir())


def test_the_engines_are_listed_as_those_that_run_already(tmp_path):
    done = told(made(tmp_path / "p"), "list", "engines")
    for api, name in (("anthropic", "Anthropic's Messages API"), ("gemini", "Google's Gemini API")):
        assert any(line.split()[0:1] == [api] and "runs already" in line for line in done.stdout.splitlines())
        assert f"any running server of {name} (engine.base_url=URL)" in done.stdout
