"""Ask servers for tokens, and check the probabilities that they give for a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from serving_bench.harness.contracts import Ask, HttpCall, Message, Token
from serving_bench.harness.errors import ServerError

# A position in a text: the log-probability of its token (None: not given), and of the likeliest tokens by id.
Position = tuple[float | None, Mapping[str, float]]


@dataclass(frozen=True)
class Tokenized:
    """The answer of /tokenize: ids."""

    tokens: Sequence[int]


def tokenized(
    ask: Ask, model: str, messages: Sequence[Message], more: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the token ids of a chat, from /tokenize as vLLM and SGLang have it."""
    body = {"model": model, "messages": [message.fields for message in messages], **(more or {})}
    return list(map(str, ask(HttpCall("POST", "/tokenize", body), Tokenized).tokens))


def placed(path: str, ids: Sequence[int], positions: Iterable[Position], most: int) -> Iterator[Token]:
    """Yield a text's tokens, each but the first with the probabilities at its position.

    Raises ServerError if a position lacks its token's probability or has fewer than `most` likeliest tokens.
    """
    if not ids:
        raise ServerError(f"POST {path} gives no tokens for the text")
    for number, (token, position) in enumerate(zip_longest(ids, positions), start=1):
        logprob, top = position or (None, {})
        if number == 1:
            yield Token(str(token))
        elif token is None or logprob is None:
            raise ServerError(f"POST {path} gives no probability for token {number} of {len(ids)}")
        elif len(top) < most:
            raise ServerError(f"POST {path} names {len(top)} tokens at position {number}, not {most}")
        else:
            yield Token(str(token), logprob, top)
