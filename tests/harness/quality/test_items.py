"""The items of bench's own tasks are the same in every run, and each can be answered rightly."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from serving_bench.engines.inside.ask_tasks import chosen_letter, is_right
from serving_bench.harness.quality.items import Question, basics, gsm8k, mmlu

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
    assert digest == "81e409130aaa2bfacaa57f0f333298d32b2198eda17d34e44fba77eda062ccd2"


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
        (Question("", "", "letter", "B", "ACD"), "Because it is an animal: B", True),
        (Question("", "", "letter", "B", "ACD"), "A or B", False),
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


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("**B) horse**", "B"),
        ("B - horse. A - saw", "B"),
        ("B\nA horse is an animal.", "B"),
        ("I think it is B", "B"),
        ("A horse is an animal, so B.", "B"),
        ("Answer: C\nA) saw is a tool.", "C"),
        ("The correct answer is **B) horse**. A) saw is a tool.", "B"),
        ("A saw is a tool. B is right", "B"),
        ("A is correct", "A"),
        ("It's C!", "C"),
        ("A horse is an animal", None),
        ("I'd say a horse", None),
        ("A or B", None),
        ("A, B or C", None),
        ("E", None),
    ],
)
def test_the_letter_that_an_answer_chooses(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, set("ABCD")) == letter


def test_an_item_of_ten_choices_may_be_answered_by_the_letter_i() -> None:
    assert chosen_letter("I think it is B", set("ABCDEFGHIJ")) == "B"
    assert chosen_letter("I'm sure: I) lemon", set("ABCDEFGHIJ")) == "I"


def test_packed_items_are_read(tmp_path: Path) -> None:
    row = {"id": "gsm8k-test-0", "question": "Two and two?", "answer": "4"}
    (tmp_path / "gsm8k-v1.jsonl").write_text(json.dumps(row) + "\n")
    choices = {"id": "mmlu-test-0", "question": "Which?", "choices": ["this", "that"], "answer": "B"}
    (tmp_path / "mmlu-v1.jsonl").write_text(json.dumps(choices) + "\n")
    (number,), (letter,) = gsm8k(tmp_path), mmlu(tmp_path)
    assert (number.id, number.check, number.expected) == ("gsm8k-test-0", "number", "4")
    assert number.prompt.startswith("Two and two?")
    assert letter.prompt == "Which?\nA) this\nB) that\nAnswer with the letter only."
    assert (letter.check, letter.expected, letter.others) == ("letter", "B", ["A"])


def test_a_part_of_packed_items_has_all_subjects(tmp_path: Path) -> None:
    rows = [{"id": f"{subject}-{n}", "question": "?", "answer": "4"} for subject in "abcd" for n in range(50)]
    (tmp_path / "gsm8k-v1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [each.id for each in gsm8k(tmp_path)]
    assert {each[0] for each in found[:20]} == set("abcd")
    assert sorted(found) == sorted(row["id"] for row in rows)
