"""Ask servers for tokens, and check what they say of the tokens of a text: what is wrong is one line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from harness.contracts import Ask, HttpCall, Message, Token
from harness.errors import ServerError

# A place of a text: its token's log-probability (None: not told), and the likeliest tokens' by their ids.
Place = tuple[float | None, Mapping[str, float]]


@dataclass(frozen=True)
class Tokenized:
    """What /tokenize answers: ids."""

    tokens: Sequence[int]


def tokenized(
    ask: Ask, model: str, messages: Sequence[Message], more: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the ids that a chat becomes, by /tokenize as vLLM and SGLang have it."""
    body = {"model": model, "messages": [message.fields for message in messages], **(more or {})}
    return list(map(str, ask(HttpCall("POST", "/tokenize", body), Tokenized).tokens))


def placed(path: str, ids: Sequence[int], places: Iterable[Place], most: int) -> Iterator[Token]:
    """Yield a text's tokens, each but the first with what its place says.

    Raises ServerError where that is no probability, or fewer than `most` of the likeliest.
    """
    if not ids:
        raise ServerError(f"POST {path} tells no tokens of the text")
    for number, (token, place) in enumerate(zip_longest(ids, places), start=1):
        logprob, top = place or (None, {})
        if number == 1:
            yield Token(str(token))
        elif token is None or logprob is None:
            raise ServerError(f"POST {path} tells no probability of token {number} of {len(ids)}")
        elif len(top) < most:
            raise ServerError(f"POST {path} names {len(top)} tokens in place {number}, not {most}")
        else:
            yield Token(str(token), logprob, top)
