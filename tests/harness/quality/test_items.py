"""The items of bench's own tasks are the same in every run, and each can be answered rightly."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from engines.inside.ask_tasks import is_right
from harness.quality.items import Question, basics, gsm8k, mmlu

# A right answer to an item, as a model may write it: to those of one format by their number.
WRITTEN = {
    "number": "The answer is {}.",
    "letter": "{}) it is",
    "named": "It was {}.",
    "json": "```json\n{}\n```",
}


FORMATS = {
    "format-00": "1. France\n2. South Korea\n3. Peru\n",
    "format-01": "No.",
    "format-02": "A whale is an animal of the sea.",
    "format-03": "# All about whales",
    "format-04": "PURPLE",
    "format-05": "27/04/2024",
}


def checked(question: Question, answer: str) -> bool:
    return is_right(msgspec.to_builtins(question), answer)


def test_bench_basics_has_sixty_different_items_of_each_kind_in_turn() -> None:
    found = basics()
    kinds = [each.id.partition("-")[0] for each in found]
    assert Counter(kinds) == dict.fromkeys(("arithmetic", "extraction", "format", "choice", "json"), 60)
    assert kinds[:5] * 60 == kinds
    assert len({each.prompt for each in found}) == len({each.id for each in found}) == 300


def test_bench_basics_is_what_it_was() -> None:
    """Else two runs would compare answers to other questions under the same names."""
    digest = hashlib.sha256(msgspec.json.encode(basics())).hexdigest()
    assert digest == "c13cfea685b9c1ffb70a384a62278424d1e3b25e8f4b9f98f6424397c73adcc4"


def test_the_expected_answer_is_right_and_none_is_wrong() -> None:
    for question in (each for each in basics() if each.check != "pattern"):
        assert checked(question, WRITTEN[question.check].format(question.expected)), question
        assert checked(question, f"<think>{question.prompt}</think>{question.expected}"), question
        assert not checked(question, "I cannot say."), question
        assert not checked(question, ""), question


def test_a_format_is_right_where_nothing_else_is_written() -> None:
    known = {each.id: each for each in basics()}
    for item, answer in FORMATS.items():
        assert checked(known[item], answer), known[item]
        assert not checked(known[item], f"Here it is:\n{answer}"), known[item]
        assert not checked(known[item], f"{answer}\nIs there more?"), known[item]


@pytest.mark.parametrize(
    ("question", "answer", "is_so"),
    [
        (Question("", "", "number", "1234"), "1,200 + 34 = 1,234.0", True),
        (Question("", "", "number", "4"), "4 is 2 + 2", False),
        (Question("", "", "number", "-4"), "It is -4", True),
        (Question("", "", "letter", "B"), "Because it is an animal: B", True),
        (Question("", "", "letter", "B"), "A or B", False),
        (Question("", "", "named", "May", ("Oslo", "12")), "in may", True),
        (Question("", "", "named", "May", ("Oslo", "12")), "In May, in Oslo", False),
        (Question("", "", "named", "12", ("May",)), "128", False),
        (Question("", "", "pattern", "1, ?2"), "1,2 ", True),
        (Question("", "", "pattern", "1, ?2"), "1, 2.", False),
        (Question("", "", "json", '{"age": 31}'), '{ "age": 31.0 }', True),
        (Question("", "", "json", '{"age": 31}'), '{"age": "31"}', False),
        (Question("", "", "json", "[1]"), "[1] is it", False),
    ],
)
def test_an_answer_is_checked_exactly(question: Question, answer: str, is_so: bool) -> None:
    assert checked(question, answer) is is_so


def test_packed_items_are_read(tmp_path: Path) -> None:
    row = {"id": "gsm8k-test-0", "question": "Two and two?", "answer": "4"}
    (tmp_path / "gsm8k-v1.jsonl").write_text(json.dumps(row) + "\n")
    choices = {"id": "mmlu-test-0", "question": "Which?", "choices": ["this", "that"], "answer": "B"}
    (tmp_path / "mmlu-v1.jsonl").write_text(json.dumps(choices) + "\n")
    (number,), (letter,) = gsm8k(tmp_path), mmlu(tmp_path)
    assert (number.id, number.check, number.expected) == ("gsm8k-test-0", "number", "4")
    assert number.prompt.startswith("Two and two?")
    assert letter.prompt == "Which?\nA) this\nB) that\nAnswer with the letter only."
    assert (letter.check, letter.expected) == ("letter", "B")


def test_a_part_of_packed_items_has_all_subjects(tmp_path: Path) -> None:
    rows = [{"id": f"{subject}-{n}", "question": "?", "answer": "4"} for subject in "abcd" for n in range(50)]
    (tmp_path / "gsm8k-v1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [each.id for each in gsm8k(tmp_path)]
    assert {each[0] for each in found[:20]} == set("abcd")
    assert sorted(found) == sorted(row["id"] for row in rows)
