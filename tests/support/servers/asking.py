"""Asks a server as bench does: for a stream, for its quality, and for its tokens of a text and of a chat."""

from collections.abc import Callable
from contextlib import closing
from math import exp
from typing import Any, TypeVar

import msgspec
import pytest
from fake_http import fake_http, valued

from serving_bench.harness.contracts import (
    Ask,
    Asked,
    AttachSpec,
    Deployment,
    Engine,
    EngineTerms,
    HttpCall,
    Message,
    QualityRecord,
    Turn,
)
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.chat import Decoded, classify, decode
from serving_bench.harness.load.client.http import Client, endpoint
from serving_bench.harness.load.client.receive import Receiver
from serving_bench.harness.quality.measure import Server, measure
from serving_bench.harness.quality.texts import Items
from serving_bench.harness.servers import probe

T = TypeVar("T")
CHAT = "/v1/chat/completions"


def streamed(engine: Engine, base_url: str, limit_s: float = 20.0) -> tuple[Decoded, tuple[str, str | None]]:
    """Send a request as the load does. Return the decoded answer, and its outcome with the error."""
    turn = Turn((Message("user", "again"),), 32)
    fields = engine.request_fields(turn, engine.options(), "matched")
    body = openai.API.request("m", turn, turn.messages, fields)
    with Receiver() as receiver, closing(Client(endpoint(base_url), receiver)) as client:
        found = client.stream(msgspec.json.encode(body), "r1", limit_s)
    assert (found.outcome, found.error) == ("ok", None)
    decoded = decode(found.body, found.read_ns, found.read_ends)
    return decoded, classify(found.status, found.body, decoded, found.headers.get("content-type"))


def asker(base_url: str) -> Ask:
    def ask(call: HttpCall, kind: type[T]) -> T:
        url = probe.root_of(base_url) + call.path
        answer = probe.request(call.method, url, timeout_s=200, body=call.body)
        assert answer.status == 200, answer
        return msgspec.json.decode(answer.body, type=kind)

    return ask


def measured(
    value: Callable[[str, Any], object],
    engine: Engine,
    items: Items,
    *,
    in_flight: int = 2,
    budget_s: float = 60.0,
    at_length: bool = False,
) -> tuple[list[Asked], QualityRecord]:
    """Ask a server for quality that answers with a value of the path and the body (fake_http.valued)."""
    with fake_http(valued(value)) as fake:
        terms = EngineTerms(base_url=fake.base_url)
        deployment = Deployment(engine.name, "tiny", "-", terms, engine.options(), "label")
        server = Server(engine, deployment, AttachSpec(fake.base_url, "tiny"), None, in_flight, 16.0)
        return measure(server, items, budget_s, at_length=at_length)


def assert_a_text_is_told_as_an_answer(engine: Engine, ask: Ask, model: str, rendered: str) -> None:
    """Assert that a server gives the same tokens for a text as for a chat.

    `rendered`: the prompt that the chat `hello` becomes. The place after it is the first of the chat's answer
    and the last of the text.
    """
    assert engine.given_text
    assert engine.prompt_tokens
    first, *tokens = engine.given_text(ask, model, f"{rendered}x", 20)
    assert (first.logprob, first.top) == (None, {})
    assert all(len(token.top) == 20 and sum(map(exp, token.top.values())) <= 1.001 for token in tokens)
    assert all(token.logprob == token.top.get(token.name, token.logprob) for token in tokens)
    rare = [token.logprob or 0.0 for token in tokens if token.name not in token.top]
    assert max(rare, default=-1.0) <= -1
    prompt = engine.prompt_tokens(ask, model, [Message("user", "hello")])
    assert [first.name, *(token.name for token in tokens)][:-1] == prompt
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    asked = {"temperature": 0, "logprobs": True, "top_logprobs": 20}
    answer = ask(HttpCall("POST", CHAT, {**body, **asked}), dict[str, Any])
    (place,) = answer["choices"][0]["logprobs"]["content"]
    likely = [each["logprob"] for each in place["top_logprobs"]]
    assert likely == sorted(likely, reverse=True)
    # They differ a little: both are computed in 16 bits, in batches of different shapes.
    assert sorted(tokens[-1].top.values(), reverse=True) == pytest.approx(likely, abs=0.1)
