"""Split texts into tokens with a model's tokenizer.json, which the optional package `tokenizers` reads."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from serving_bench.harness.errors import UserError

CountTokens = Callable[[Sequence[str]], list[int]]
SplitTexts = Callable[[Sequence[str]], list[list[int]]]


@lru_cache(maxsize=4)
def _encoder(path: str) -> Callable[[Sequence[str]], list[Any]]:
    """Return a function that encodes texts without special tokens.

    Raises UserError if the package is missing or the file is not a tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(
            f"load.tokenizer={path}: needs the package tokenizers; install 'tokenizers>=0.20' into bench's "
            "environment"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the package raises plain Exception, whatever is wrong with the file
        reason = (str(error).splitlines() or ["unreadable"])[0][:200]
        raise UserError(f"load.tokenizer={path}: not a tokenizer.json ({reason})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: list(tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))


def token_counter(path: str) -> CountTokens:
    """Return a function that counts the tokens of each text. Raises as `_encoder`."""
    encode = _encoder(path)
    return lambda texts: [len(each) for each in encode(texts)]


def token_splitter(path: str) -> SplitTexts:
    """Return a function that gives the token ids of each text. Raises as `_encoder`."""
    encode = _encoder(path)
    return lambda texts: [each.ids for each in encode(texts)]
