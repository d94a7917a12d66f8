"""Ask for the greedy answer to a chat, with the probabilities of its tokens (OpenAI's logprobs)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from serving_bench.harness.contracts import Ask, Asked, HttpCall, Token, Way, merged_logprobs
from serving_bench.harness.errors import ServerError


class _Named(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Place(_Named):
    top_logprobs: list[_Named] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Place] | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None


def greedy(ask: Ask, path: str, way: Way, item: int, body: Mapping[str, Any], logprobs: int) -> Asked:
    """Return the answer to a chat request, with the `logprobs` likeliest tokens at each position.

    It has no tokens if none are asked for (0) or the server names none. Raises ServerError if the response
    has no answer.
    """
    named = {"logprobs": True, "top_logprobs": logprobs} if logprobs else {}
    completion = ask(
        HttpCall("POST", path, {**body, "temperature": 0, "stream": False, **named}), _Completion
    )
    if not completion.choices:
        raise ServerError("its answer has no choices")
    choice = completion.choices[0]
    places = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
    is_told = any(place.top_logprobs for place in places)
    return Asked(
        way,
        item,
        tuple(map(_token, places)) if is_told else (),
        finish_reason=choice.finish_reason,
        prompt_tokens=completion.usage.prompt_tokens if completion.usage else None,
        answer=choice.message.content or "",
    )


def _token(place: _Place) -> Token:
    likeliest = [(_name(each), each.logprob) for each in place.top_logprobs or ()]
    return Token(_name(place), place.logprob, merged_logprobs(likeliest))


def _name(named: _Named) -> str:
    try:
        return bytes(named.bytes or ()).decode("utf-8", "backslashreplace") or named.token
    except ValueError as error:
        raise ServerError(f"the bytes of its token {named.token!r:.40} are invalid: {named.bytes}") from error
