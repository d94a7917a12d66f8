"""Count the tokens of texts with a tokenizer.json: beside the server's count, or if it gives none.

The only importer of `tokenizers`, which is optional (`pip install tokenizers`). Knows no request.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from harness.errors import UserError
from harness.store.request_table import CountTokens


@lru_cache(maxsize=4)
def counter(path: str) -> CountTokens:
    """Return a function from texts to their numbers of tokens, without special tokens. Read the file once.

    Raises UserError with one line if the package is missing or the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(
            f"load.tokenizer={path}: needs the package tokenizers; pip install 'tokenizers>=0.20'"
        ) from error
    if not Path(path).is_file():
        raise UserError(f"load.tokenizer={path}: no such file; give a model's tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the package raises Exception itself, for whatever is wrong with the file
        reason = (str(error).splitlines() or ["unreadable"])[0][:200]
        raise UserError(f"load.tokenizer={path}: not a tokenizer.json ({reason})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(each) for each in encoded]

    return count
