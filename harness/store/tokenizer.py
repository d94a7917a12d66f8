"""Split texts into tokens with a model's tokenizer.json, which the optional package `tokenizers` reads."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from serving_bench.harness.errors import UserError


class Tokenizer:
    """A model's tokenizer, without special tokens. `encoder`: that of the package."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def split(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        return [each.ids for each in self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(each) for each in self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)]


@lru_cache(maxsize=4)
def read_tokenizer(path: str) -> Tokenizer:
    """Read a tokenizer. Raises UserError if the package is missing or the file is not a tokenizer."""
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            f"load.tokenizer={path}: needs the package tokenizers; install 'tokenizers>=0.20' into bench's "
            "environment"
        ) from error
    try:
        encoder = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the package raises plain Exception, whatever is wrong with the file
        reason = (str(error).splitlines() or ["unreadable"])[0][:200]
        raise UserError(f"load.tokenizer={path}: not a tokenizer.json ({reason})") from error
    encoder.no_truncation()
    encoder.no_padding()
    return Tokenizer(encoder)
