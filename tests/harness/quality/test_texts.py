"""Prompts and texts come from a user's file, in the shapes that such files have, or are bench's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.quality.texts import Items, items


def test_the_items_of_bench_are_all_different_and_named_by_a_hash() -> None:
    own = items(None)
    assert len(set(own.prompts)) == len(own.prompts) == 24
    assert len(set(own.texts)) == len(own.texts) == 32
    assert own.first == 8
    assert own.sha256 == items(None).sha256 != Items(own.prompts, own.texts[1:]).sha256


def test_every_fourth_of_the_later_texts_is_long() -> None:
    later = items(None).texts[8:]
    assert [number for number, text in enumerate(later) if len(text) > 400] == [3, 7, 11, 15, 19, 23]


def test_the_items_of_bench_are_what_they_were() -> None:
    """Else answers of an earlier run could not be the reference: whoever changes an item says so here."""
    assert items(None).sha256 == "f2cae8941b4cdd11dc81553fb490c3067a759d8a355a6c6f439d5b82e1ab1c1e"


PARAGRAPHS = " = Title = \n\n First paragraph\nof two lines. \n\n\n"
LINES = '{"prompt": "Why?"}\n\n{"text": "Because."}\n{"prompt": "Why?"}\n'
TALK = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("wiki.txt", PARAGRAPHS, ((), ("= Title =", "First paragraph\nof two lines."))),
        ("own.jsonl", LINES, (("Why?",), ("Because.",))),
        ("share.json", json.dumps([{"conversations": TALK}]), (("Hi",), ("Hello.",))),
    ],
)
def test_files_of_prompts_and_texts(
    tmp_path: Path, name: str, content: str, found: tuple[object, object]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    own = items(str(path))
    assert (own.prompts, own.texts) == found


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none.txt", b"", "has no prompt and no text"),
        ("odd.jsonl", b'{"question": "Why?"}\n[1]\n', "has no prompt and no text"),
        ("torn.json", b'[{"prompt": "Wh', "is not JSON"),
        ("number.json", b"7", "has no prompt and no text"),
        ("latin.txt", b"caf\xe9", "no UTF-8 text"),
    ],
)
def test_a_file_without_items_is_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"quality.text={path}: .*{why}") as error:
        items(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        items(str(tmp_path / "nowhere.txt"))
