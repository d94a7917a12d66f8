"""Prompts and texts come from a user's file, in the shapes that such files have, or are bench's own."""

import json
from pathlib import Path

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.harness.quality.texts import Items, items


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


PROMPTS, TEXTS = items(None).prompts[:8], items(None).texts[:8]
PARAGRAPHS = " = Title = \n\n First paragraph\nof two lines. \n\n\n"
LINES = '{"prompt": "Why?"}\n\n{"text": "Because."}\n{"prompt": "Why?"}\n'
TALK = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("wiki.txt", PARAGRAPHS, (PROMPTS, ("= Title =", "First paragraph\nof two lines."))),
        ("own.jsonl", LINES, (("Why?",), ("Because.",))),
        ("asks.jsonl", '{"prompt": "Why?"}', (("Why?",), TEXTS)),
        ("share.json", json.dumps([{"conversations": TALK}]), (("Hi",), ("Hello.",))),
    ],
)
def test_files_of_prompts_and_texts(tmp_path: Path, name: str, content: str, found: tuple[object, object]):
    path = tmp_path / name
    path.write_text(content)
    own = items(str(path))
    assert (own.prompts, own.texts) == found


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none.txt", b"", "has no prompt and no text; give paragraphs, or JSON lines such as"),
        ("none.jsonl", b'{"prompt": " "}\n', "has no prompt and no text; give"),
        ("odd.jsonl", b'{"text": "x"}\n\n{"promt": "Why?"}', "line 3 has no prompt, .*, only promt; give"),
        ("odd.jsonl", b'{"prompt": "Why?"}\n[1]\n', "line 2 has no prompt, .*, nothing of the kind; give"),
        ("kind.jsonl", b'{"prompt": "Why?"}\n{"text": 7}\n', "line 2: text must be text; give"),
        ("torn.jsonl", b'{"prompt": "Why?"}\n{"prompt"\n', "line 2 is not JSON .*; give"),
        ("torn.json", b'[{"prompt": "Wh', "is not JSON .*; give"),
        ("odd.json", b'[{"prompt": "Why?"}, {}]', "object 2 has no prompt"),
        ("number.json", b"7", "object 1 has no prompt"),
        ("latin.txt", b"caf\xe9", r"cannot be read \(not UTF-8 text\)"),
    ],
)
def test_a_file_without_items_is_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"quality.text={path}: .*{why}") as error:
        items(str(path))
    assert "\n" not in str(error.value)


def test_what_is_not_asked_of_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(f"{number} {'x' * 1200 * (number < 2)}" for number in range(65)))
    own = items(str(path))
    assert [len(text) for text in own.texts[:3]] == [1200, 1200, 1]
    without = "8 prompts of bench's own, since it has none"
    assert own.note == f"{without}, of 65 texts the first 64, of 2 texts the first 1,200 characters"
    assert items(None).note is None
    path.write_text("short")
    assert items(str(path)).note == without
    path = tmp_path / "both.jsonl"
    path.write_text(LINES)
    assert items(str(path)).note is None


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(UserError, match=r"\(60,000,000 bytes, more than the 16,777,216 that are read\)"):
        items(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        items(str(tmp_path / "nowhere.txt"))
