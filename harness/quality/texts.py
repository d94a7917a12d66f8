"""The prompts and texts that are asked of every deployment: bench's own, or a file of the user's."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import UserError
from harness.quality.own_texts import FIRST, PROMPTS, TEXTS

# Of a file: what is longer is cut, and what comes later is left out.
_CHARACTERS, _ITEMS = 1200, 64
_FIELDS = ("prompt", "text")


@dataclass(frozen=True)
class Items:
    """What is asked: `prompts` as a user's one message of a chat, `texts` as they are. `first`: how many of
    each are asked in any case; the rest only of a server that is asked at length."""

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    first: int = _ITEMS

    @property
    def sha256(self) -> str:
        return hashlib.sha256(msgspec.json.encode([self.prompts, self.texts])).hexdigest()


def items(path: str | None) -> Items:
    """Return bench's own prompts and texts, or those of a file. Raises UserError if it has none.

    A JSON list or JSON lines of objects with a `prompt`, a `text`, or ShareGPT's `conversations` (whose first
    message is a prompt and whose first answer a text); of any other file each paragraph is a text.
    """
    if path is None:
        return Items(PROMPTS, TEXTS, FIRST)
    given = f"quality.text={path}"
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise UserError(f"{given}: cannot be read: {why}") from error
    found = dict.fromkeys(_found(path, given, content))
    prompts, texts = (
        [text.strip()[:_CHARACTERS] for kind, text in found if kind == field and text.strip()][:_ITEMS]
        for field in _FIELDS
    )
    if not prompts and not texts:
        raise UserError(
            f"{given}: has no prompt and no text; give paragraphs, or JSON lines such as "
            '{"prompt": "Why is the sky blue?"}'
        )
    return Items(tuple(prompts), tuple(texts))


def _found(path: str, given: str, content: str) -> Iterator[tuple[str, str]]:
    if not path.endswith((".json", ".jsonl")):
        yield from (("text", paragraph) for paragraph in content.split("\n\n"))
        return
    try:
        lines = [line for line in content.splitlines() if line.strip()]
        objects = msgspec.json.decode(content) if path.endswith(".json") else map(msgspec.json.decode, lines)
        for each in objects if isinstance(objects, Iterable) else ():
            yield from _of_object(each)
    except msgspec.DecodeError as error:
        raise UserError(f"{given}: is not JSON: {error}") from error


def _of_object(given: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(given, dict):
        return
    talk = given.get("conversations")
    said = [each.get("value") for each in talk if isinstance(each, dict)] if isinstance(talk, list) else []
    for field, text in [*((field, given.get(field)) for field in _FIELDS), *zip(_FIELDS, said, strict=False)]:
        if isinstance(text, str):
            yield field, text
