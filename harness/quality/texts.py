"""Read the prompts and texts that every deployment is asked: bench's own, or those of the user's file."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from serving_bench.harness.contracts import plural
from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import read_text, value_of
from serving_bench.harness.quality.own_texts import FIRST, PROMPTS, TEXTS

# A longer text of a file is cut, and later items are left out.
_CHARACTERS, _ITEMS = 1200, 64
# A hundred times what is used of a file.
_FILE_BYTES = 16 << 20
_FIELDS = ("prompt", "text")
_SUCH_AS = 'give paragraphs, or JSON lines such as {"prompt": "Why is the sky blue?"}'


@dataclass(frozen=True)
class Items:
    """What is asked: `prompts` each as a chat of one user message, `texts` as they are.

    `first`: how many of each are always asked; a server that is asked at length gets the rest too. `note`:
    which part of a file is asked, if not all of it.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    first: int = _ITEMS
    note: str | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(msgspec.json.encode([self.prompts, self.texts])).hexdigest()


def items(path: str | None) -> Items:
    """Return bench's own prompts and texts, or those of a file.

    A .json or .jsonl file has objects with a `prompt`, a `text`, or ShareGPT's `conversations`, whose first
    message is a prompt and whose first answer is a text. In any other file each paragraph is a text. A file
    without prompts, or without texts, gets bench's first ones. Raises UserError if it has neither.
    """
    if path is None:
        return Items(PROMPTS, TEXTS, FIRST)
    given = f"quality.text={path}"
    turns = dict.fromkeys(_found(path, given, read_text(Path(path), given, _FILE_BYTES)))
    of_each = [[text for kind, text in turns if kind == field and text] for field in _FIELDS]
    prompts, texts = (tuple(text[:_CHARACTERS] for text in each[:_ITEMS]) for each in of_each)
    if not prompts and not texts:
        raise UserError(f"{given}: has no prompt and no text; {_SUCH_AS}")
    note = _note(dict(zip(_FIELDS, of_each, strict=True)))
    return Items(prompts or PROMPTS[:FIRST], texts or TEXTS[:FIRST], note=note)


def _note(by_kind: Mapping[str, Sequence[str]]) -> str | None:
    notes = []
    for field, each in by_kind.items():
        long = sum(len(text) > _CHARACTERS for text in each[:_ITEMS])
        if len(each) > _ITEMS:
            notes.append(f"of {plural(len(each), field)} the first {_ITEMS}")
        if long:
            notes.append(f"of {plural(long, field)} the first {_CHARACTERS:,} characters")
        if not each:
            notes.append(f"{FIRST} {field}s of bench's own, since it has none")
    return ", ".join(notes) or None


def _found(path: str, given: str, content: str) -> Iterator[tuple[str, str]]:
    if path.endswith(".jsonl"):
        for number, line in enumerate(content.split("\n"), 1):
            if line.strip():
                yield from _of_object(f"{given}: line {number}", _decoded(f"{given}: line {number}", line))
    elif path.endswith(".json"):
        objects = _decoded(f"{given}:", content)
        for number, each in enumerate(objects if isinstance(objects, list) else [objects], 1):
            yield from _of_object(f"{given}: object {number}", each)
    else:
        yield from (("text", paragraph.strip()) for paragraph in content.split("\n\n"))


def _decoded(where: str, content: str) -> Any:
    try:
        return value_of(content)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); {_SUCH_AS}") from error


def _of_object(where: str, record: Any) -> Iterator[tuple[str, str]]:
    """Yield (field, text) for each prompt and text of an object.

    Raises UserError if it has none of the fields: probably one is misspelt.
    """
    fields = (*_FIELDS, "conversations")
    if not isinstance(record, dict) or not record.keys() & {*fields}:
        names = f"only {', '.join(record)}" if isinstance(record, dict) and record else "nothing of the kind"
        raise UserError(f"{where} has no {', no '.join(fields)}, {names:.60}; {_SUCH_AS}")
    talk = record.get("conversations")
    parts = [each.get("value") for each in talk if isinstance(each, dict)] if isinstance(talk, list) else []
    for field, text in [
        *((field, record.get(field)) for field in _FIELDS),
        *zip(_FIELDS, parts, strict=False),
    ]:
        if isinstance(text, str):
            yield field, text.strip()
        elif text is not None:
            raise UserError(f"{where}: {field} must be text; {_SUCH_AS}")
