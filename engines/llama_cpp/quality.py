"""Ask llama.cpp's server for the probabilities of a given text's tokens, and for the tokens of a chat.

Its API has no logprobs for a prompt, so a text is sent as prompts that grow by one token each; the server
keeps the earlier tokens in its cache. Source: llama.cpp, tools/server/README.md (`n_probs`,
`post_sampling_probs`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving_bench.engines.common.tokens import Tokenized
from serving_bench.harness.contracts import Ask, HttpCall, Message, Token, merged_logprobs
from serving_bench.harness.errors import ServerError

# Biases to add to the logit of a token that is not among the likeliest. The first raises a probability of
# 1e-8 to 1.6e-3, the second one of 1e-13 to 2.6e-3. The lower two are for tokens that are part of a
# character: if the server samples such a token, it withholds the token and all probabilities.
_BIASES = (12.0, 24.0, 8.0, 4.0)
# The sampled token does not change the probabilities before sampling, but it must be a whole character.
_WHOLE, _SURE = "a", 1000.0


@dataclass(frozen=True)
class _Named:
    id: int
    logprob: float | None = None
    prob: float | None = None


@dataclass(frozen=True)
class _Place(_Named):
    top_logprobs: list[_Named] | None = None
    top_probs: list[_Named] | None = None


@dataclass(frozen=True)
class _Completion:
    completion_probabilities: list[_Place] = field(default_factory=list)


@dataclass(frozen=True)
class _Prompt:
    prompt: str


def given_text(ask: Ask, model: str, text: str, most: int) -> Iterator[Token]:
    """Yield the tokens of a text, each but the first with the `most` likeliest at its position."""
    ids, whole = _ids(ask, text), _ids(ask, _WHOLE)[-1:]
    if not ids or not whole:
        raise ServerError("POST /tokenize gives no tokens for a text")
    yield Token(str(ids[0]))
    for end in range(1, len(ids)):
        place = _next(ask, ids[:end], {"n_probs": most, "logit_bias": [[whole[0], _SURE]]})
        if place is None or place.top_logprobs is None:
            raise ServerError("POST /completion gives no probabilities")
        likeliest = [(str(each.id), each.logprob) for each in place.top_logprobs]
        top = merged_logprobs((name, value) for name, value in likeliest if value is not None)
        logprob = top.get(str(ids[end]))
        yield Token(str(ids[end]), _rare(ask, ids[:end], ids[end], most) if logprob is None else logprob, top)


def _rare(ask: Ask, ids: Sequence[int], token: int, most: int) -> float | None:
    """Return the log-probability of a token that is not among the likeliest; None if it cannot be found.

    A bias b on its logit turns p into q = p e^b / (1 - p + p e^b), from which p follows.
    """
    for bias in _BIASES:
        fields = {"logit_bias": [[token, bias]], "samplers": ["temperature"], "temperature": 1}
        place = _next(ask, ids, {**fields, "n_probs": most, "post_sampling_probs": True})
        probabilities = [each.prob for each in (place and place.top_probs) or () if each.id == token]
        for q in (each for each in probabilities if each and 0 < each < 1):
            odds = math.log(q / (1 - q)) - bias
            return odds - math.log1p(math.exp(odds))
    return None


def _next(ask: Ask, ids: Sequence[int], fields: dict[str, Any]) -> _Place | None:
    body = {
        "prompt": list(ids),
        "n_predict": 1,
        "cache_prompt": True,
        "response_fields": ["completion_probabilities"],
        **fields,
    }
    places = ask(HttpCall("POST", "/completion", body), _Completion).completion_probabilities
    return places[0] if places else None


def prompt_tokens(ask: Ask, model: str, messages: Sequence[Message]) -> list[str]:
    """Return the token ids of a chat, rendered by the server's template."""
    rendered = ask(
        HttpCall("POST", "/apply-template", {"messages": [message.fields for message in messages]}), _Prompt
    )
    return list(map(str, _ids(ask, rendered.prompt, parse_special=True)))


def _ids(ask: Ask, text: str, *, parse_special: bool = False) -> Sequence[int]:
    body = {"content": text, "add_special": True, "parse_special": parse_special}
    return ask(HttpCall("POST", "/tokenize", body), Tokenized).tokens
