"""A server is asked for its answers and for the probabilities of its tokens, whatever it says."""

import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from asking import measured as measured_by

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import (
    Ask,
    Asked,
    Engine,
    HttpCall,
    Message,
    QualityRecord,
    Token,
    because,
)
from serving_bench.harness.quality.measure import MAX_TOKENS
from serving_bench.harness.quality.texts import Items

ITEMS = Items(("one", "two", "three"), ("a text", "another"))
ATTACHED = ENGINES["openai"]


def place(text: str, *likeliest: tuple[str, float]) -> dict[str, Any]:
    """A token as OpenAI's API tells it, the most likely one of its place."""
    named = [(text, -0.1), *likeliest]
    tops = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in named]
    return {**tops[0], "top_logprobs": tops}


def completion(*places: dict[str, Any], **choice: Any) -> dict[str, Any]:
    content = "".join(each["token"] for each in places)
    logprobs = {"content": list(places)}
    said = {"message": {"content": content}, "logprobs": logprobs, "finish_reason": "stop", **choice}
    return {"choices": [said], "usage": {"prompt_tokens": 7}}


HELLO = completion(place("Hel", ("Hi", -2.5)), place("lo", ("p", -3.0)))


def measured(
    reply: Callable[[str, Any], object], engine: Engine = ATTACHED, items: Items = ITEMS, **more: Any
) -> tuple[list[Asked], QualityRecord]:
    return measured_by(reply, engine, items, **more)


def ways(rows: Iterable[Asked]) -> Counter[str]:
    return Counter(row.way for row in rows)


def test_each_prompt_is_asked_alone_twice_and_in_company() -> None:
    asked: list[dict[str, Any]] = []

    def reply(path: str, body: dict[str, Any]) -> object:
        asked.append({"path": path, **body})
        return HELLO

    rows, record = measured(reply, in_flight=5)
    assert ways(rows) == {"chat": 3, "again": 2, "load": 5}
    assert rows[0] == Asked(
        "chat",
        0,
        (Token("Hel", -0.1, {"Hel": -0.1, "Hi": -2.5}), Token("lo", -0.1, {"lo": -0.1, "p": -3.0})),
        finish_reason="stop",
        prompt_tokens=7,
        answer="Hello",
    )
    plain = {
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "max_tokens": MAX_TOKENS,
        "stream": False,
    }
    assert all(plain.items() <= each.items() for each in asked)
    assert {each["path"] for each in asked} == {"/v1/chat/completions"}
    assert asked[0]["messages"] == [{"role": "user", "content": "one"}]
    assert (record.in_flight, record.logprobs, record.bits) == (5, 20, 16.0)
    assert record.missing == {"text": because("no_probabilities_of_text")}


def test_as_many_are_in_flight_as_at_the_highest_load() -> None:
    counts, meeting = itertools.count(1), threading.Barrier(3)

    def reply(path: str, body: dict[str, Any]) -> object:
        if next(counts) > 5:  # after three alone, and two again
            meeting.wait(30)  # broken unless three are there at once
        return HELLO

    rows, _ = measured(reply, in_flight=3)
    assert ways(rows)["load"] == 3
    assert not [row.error for row in rows if row.error]


def test_a_load_of_one_user_is_no_company() -> None:
    rows, _ = measured(lambda path, body: HELLO, in_flight=1)
    assert ways(rows) == {"chat": 3, "again": 2}


def test_bytes_that_are_no_text_and_names_that_come_twice() -> None:
    half = {"token": "\ufffd", "logprob": -1.0, "bytes": [0xF0, 0x9F]}
    tops = [half, {"token": "x", "logprob": math.log(0.2)}, {"token": "x", "logprob": math.log(0.1)}]
    rows, _ = measured(lambda path, body: completion({**half, "top_logprobs": tops}))
    (token,) = rows[0].tokens
    assert token.name == "\\xf0\\x9f"
    assert token.top == {"\\xf0\\x9f": -1.0, "x": pytest.approx(math.log(0.3))}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (completion(place("a")) | {"choices": []}, "has no choices"),
        (completion(place("a", ("b", 0.5))), "it gives 0.5 as the log-probability of 'b'"),
        (json.dumps(HELLO).replace("-2.5", "NaN").encode(), "cannot read (JSON is malformed"),
        (completion({**place("a"), "bytes": [300]}), "bytes"),
        (b"<html>Bad gateway</html>", "cannot read (JSON is malformed: invalid character (byte 0)): <html>"),
        (None, "answered 500"),
        ({"choices": "none"}, "cannot read (Expected `array`, got `str` - at `$.choices`)"),
        ([1, 2], "cannot read (Expected `object`"),
    ],
)
def test_an_answer_that_tells_nothing_is_a_reason_and_no_error(said: object, why: str) -> None:
    rows, record = measured(lambda path, body: said)
    assert rows == []
    assert why in str(record.missing["chat"])
    assert "\n" not in str(record.missing["chat"])


@pytest.mark.parametrize(
    "said", [b"<html>Bad gateway</html>", {"id": "<html>Bad gateway</html>", "choices": 1}]
)
def test_what_the_server_sent_is_kept_apart_from_what_it_did(said: object) -> None:
    _, record = measured(lambda path, body: said)
    why = record.missing["chat"]
    assert why.values["what"] == "POST /v1/chat/completions answered what bench cannot read"
    assert "Bad gateway" in str(why.values["sent"])


@pytest.mark.parametrize(
    ("logprobs", "said"),
    [
        (0, {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}),
        (20, {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}),
        (20, completion({"token": "Hello", "logprob": -0.1})),
    ],
)
def test_answers_without_probabilities_are_kept_as_text_and_asked_again(logprobs: int, said: object) -> None:
    asked: list[dict[str, Any]] = []

    def reply(path: str, body: dict[str, Any]) -> object:
        asked.append(body)
        return said

    rows, record = measured(reply, replace(ATTACHED, logprobs=logprobs))
    assert ways(rows) == {"chat": 3, "again": 2, "load": 3}
    assert {(row.tokens, row.answer, row.finish_reason) for row in rows} == {((), "Hello", "stop")}
    assert record.missing["chat"] == because("no_probabilities_of_tokens")
    assert {"logprobs" in body or "top_logprobs" in body for body in asked} == {bool(logprobs)}


def test_a_server_that_refuses_to_name_probabilities_is_asked_without() -> None:
    said = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    rows, record = measured(lambda path, body: None if "logprobs" in body else said)
    assert ways(rows) == {"chat": 3, "again": 2, "load": 3}
    assert {(row.answer, row.error) for row in rows} == {("Hello", None)}
    assert "answered 500" in str(record.missing["chat"])


def test_one_bad_answer_leaves_the_others() -> None:
    def reply(path: str, body: dict[str, Any]) -> object:
        return None if body["messages"][0]["content"] == "two" else HELLO

    rows, record = measured(reply)
    bad = [row for row in rows if row.error]
    assert {(row.way, row.item) for row in bad} == {("chat", 1), ("again", 1), ("load", 1)}
    assert "answered 500" in (bad[0].error or "")
    assert "chat" not in record.missing


def test_a_first_answer_that_fails_leaves_the_others() -> None:
    counts = itertools.count()
    rows, record = measured(lambda path, body: HELLO if next(counts) else None)
    assert [row.error is None for row in rows if row.way == "chat"] == [False, True, True]
    assert "chat" not in record.missing


def test_two_answers_that_fail_are_enough() -> None:
    asked: list[dict[str, Any]] = []
    rows, record = measured(lambda path, body: asked.append(body))
    assert rows == []
    assert ["logprobs" in body for body in asked] == [True, True, False, False]
    assert "answered 500" in str(record.missing["chat"])


def test_a_count_of_tokens_that_is_none_is_refused() -> None:
    _, record = measured(lambda path, body: {**HELLO, "usage": {"prompt_tokens": 2**40}})
    assert str(record.missing["chat"]) == "it counts 1099511627776 tokens of a prompt"


def test_an_empty_answer_is_an_answer() -> None:
    said = {"choices": [{"message": {"content": ""}, "finish_reason": "stop", "logprobs": None}]}
    rows, record = measured(lambda path, body: said)
    assert (rows[0].tokens, rows[0].finish_reason, rows[0].error) == ((), "stop", None)
    assert "chat" not in record.missing


def test_without_time_the_first_of_each_way_is_asked() -> None:
    engine = replace(ATTACHED, given_text=lambda ask, model, text, most: [Token("1")])

    def reply(path: str, body: dict[str, Any]) -> object:
        time.sleep(0.02)  # with the first answer the time of all ways is over
        return HELLO

    rows, _ = measured(reply, engine, budget_s=0.01)
    assert ways(rows) == {"chat": 1, "again": 1, "load": 2, "text": 1}, "two at once are the first of a load"


def test_a_text_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving_bench.harness.quality.measure._LEAST_S", 0.05)
    endless = replace(ATTACHED, given_text=lambda *_: itertools.repeat(Token("1")))
    rows, record = measured(lambda path, body: HELLO, endless, budget_s=0.05)
    assert "text" not in ways(rows)
    assert record.missing["text"] == because("asked_too_late", budget="0.05 s")


def test_a_way_that_blocks_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving_bench.harness.quality.measure._LEAST_S", 0.05)
    over = threading.Event()

    def blocks(ask: Ask, model: str, text: str, most: int) -> Iterable[Token]:
        over.wait(60)
        return [Token(text)]

    rows, record = measured(lambda path, body: HELLO, replace(ATTACHED, given_text=blocks), budget_s=0.05)
    over.set()
    assert "text" not in ways(rows)
    assert record.missing["text"] == because("asked_too_late", budget="0.05 s")


def test_requests_that_hang_have_one_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving_bench.harness.quality.measure._LEAST_S", 0.2)
    asked, over = list[dict[str, Any]](), threading.Event()

    def reply(path: str, body: dict[str, Any]) -> object:
        asked.append(body)
        over.wait(60)
        return HELLO

    rows, record = measured(reply, budget_s=0.2)
    over.set()
    assert rows == []
    assert record.missing["chat"] == because("asked_too_late", budget="0.2 s")
    assert sum("logprobs" in body for body in asked) <= 1, "the first one had the time of all"


MORE = Items(("one", "two", "three"), ("a", "b", "c", "d"), first=2)


@pytest.mark.parametrize(
    ("reads_texts", "at_length", "asked"),
    [
        (True, False, {"chat": 2, "again": 2, "load": 2, "text": 2}),
        (True, True, {"chat": 2, "again": 2, "load": 2, "text": 4}),
        (False, False, {"chat": 2, "again": 2, "load": 2}),
        (False, True, {"chat": 3, "again": 2, "load": 3}),
    ],
)
def test_later_texts_or_without_any_prompts_are_asked_at_length(reads_texts, at_length, asked) -> None:
    given = (lambda ask, model, text, most: [Token(text)]) if reads_texts else None
    engine = replace(ATTACHED, given_text=given)
    rows, record = measured(lambda path, body: HELLO, engine, items=MORE, at_length=at_length)
    assert ways(rows) == asked
    assert record.sha256 == MORE.sha256, "of all, so that a brief and a long asking can be compared"
    assert [row.tokens[0].name for row in rows if row.way == "text"] == list("abcd")[: asked.get("text", 0)]


def test_later_texts_are_asked_while_time_lasts() -> None:
    def slow(ask: Ask, model: str, text: str, most: int) -> Iterable[Token]:
        time.sleep(0.3)
        return [Token(text)]

    engine = replace(ATTACHED, given_text=slow)
    rows, _ = measured(lambda path, body: HELLO, engine, items=MORE, budget_s=0.2, at_length=True)
    assert [row.item for row in rows if row.way == "text"] == [0]


@dataclass(frozen=True)
class Ids:
    ids: list[str]


def test_engines_of_given_texts_are_asked_through_the_server() -> None:
    def given(ask: Ask, model: str, text: str, most: int) -> Iterable[Token]:
        said = ask(HttpCall("POST", "/score", {"text": text, "model": model, "most": most}), Ids)
        return [Token(each, -1.0, {}) for each in said.ids]

    def prompt(ask: Ask, model: str, messages: Sequence[Message]) -> Sequence[str]:
        return ask(HttpCall("POST", "/ids", {"text": messages[0].content}), Ids).ids

    asked: list[tuple[str, Any]] = []

    def reply(path: str, body: dict[str, Any]) -> object:
        asked.append((path, body.get("text")))
        return {"ids": ["5", "6"]} if path in ("/score", "/ids") else HELLO

    engine = replace(ATTACHED, given_text=given, prompt_tokens=prompt)
    rows, record = measured(reply, engine, in_flight=1)
    assert ways(rows) == {"prompt": 3, "chat": 3, "again": 2, "text": 2}
    assert rows[-1].tokens == (Token("5", -1.0, {}), Token("6", -1.0, {}))
    assert record.missing == {}
    told = [each for each in asked if each[0] in ("/ids", "/score")]
    assert told == [*(("/ids", text) for text in ITEMS.prompts), *(("/score", text) for text in ITEMS.texts)]


def test_llama_cpp_reads_a_text_by_prompts_that_grow() -> None:
    given = ENGINES["llama_cpp"].given_text
    assert given is not None
    asked: list[dict[str, Any]] = []

    def ask(call: HttpCall, kind: type[Any]) -> Any:
        return msgspec.convert(page(call.path, dict(call.body or {})), kind)

    def page(path: str, body: dict[str, Any]) -> object:
        if path == "/tokenize":
            return {"tokens": [1] if body["content"] == "a" else [11, 12, 13]}
        asked.append(body)
        if body.get("post_sampling_probs"):
            # p = 0.001 under a bias of 12 on its logit.
            q = 0.001 * math.exp(12) / (1 - 0.001 + 0.001 * math.exp(12))
            return {"completion_probabilities": [{"id": 13, "top_probs": [{"id": 13, "prob": q}]}]}
        tops = [{"id": 12, "logprob": -0.5}, {"id": 99, "logprob": -1.5}]
        return {"completion_probabilities": [{"id": 1, "logprob": -9.0, "top_logprobs": tops}]}

    tokens = list(given(ask, "tiny", "abc", 2))
    assert [token.name for token in tokens] == ["11", "12", "13"]
    assert [token.logprob for token in tokens] == [None, -0.5, pytest.approx(math.log(0.001))]
    assert tokens[1].top == {"12": -0.5, "99": -1.5}
    assert [each["prompt"] for each in asked] == [[11], [11, 12], [11, 12]]
