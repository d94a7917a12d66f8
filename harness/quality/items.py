"""Make the items of bench's own tasks, and read those of GSM8K and MMLU: a prompt and the right answer.

`is_right` in engines/inside/ask_tasks.py checks an answer as the item's `check` says.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

# What makes an answer right. number: its last number equals `expected`. letter: the letter that it chooses
# does (chosen_letter in engines/inside/ask_tasks.py). json: its value does. named: it contains `expected` and
# none of `others`. pattern: all of it matches the regular expression.
Check = Literal["number", "letter", "named", "pattern", "json"]

# The fields of a Question after its id.
Asks = tuple[str, Check, str] | tuple[str, Check, str, Sequence[str]]
_NAMES = ("Ana", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Irene", "Jonas", "Karim", "Lucy")
_CITIES = ("Lisbon", "Oslo", "Vienna", "Dublin", "Athens", "Prague", "Madrid", "Warsaw", "Cairo", "Lima")
_THINGS = ("apples", "books", "coins", "stamps", "pencils", "cards", "eggs", "chairs")
_MONTHS = ("January", "March", "April", "June", "July", "August", "October", "December")
_MONTH_NUMBERS = (1, 3, 4, 6, 7, 8, 10, 12)
LETTERS = "ABCDEFGHIJ"
_PLURALS = ("animals", "colors", "fruits", "countries", "tools", "cities", "vehicles", "drinks", "sports")
_GROUPS = {
    "an animal": ("horse", "rabbit", "tiger", "sheep", "eagle", "whale"),
    "a color": ("red", "blue", "green", "yellow", "purple", "brown"),
    "a fruit": ("apple", "banana", "cherry", "grape", "peach", "lemon"),
    "a country": ("France", "Japan", "Brazil", "Canada", "Kenya", "Norway"),
    "a tool": ("hammer", "saw", "drill", "wrench", "shovel", "pliers"),
    "a part of the body": ("arm", "knee", "nose", "elbow", "ear", "shoulder"),
    "a vehicle": ("car", "bus", "train", "bicycle", "truck", "tram"),
}


@dataclass(frozen=True)
class Question:
    """An item of a task of bench's own.

    `others`: for `named`, what the answer must not contain; for `letter`, the other letters.
    """

    id: str
    prompt: str
    check: Check
    expected: str
    others: Sequence[str] = ()


class _Drawn:
    """Seeded draws that use only random(), whose sequence Python keeps from version to version."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        return low + int(self._rng.random() * (high - low + 1))

    def some(self, words: Sequence[str], count: int) -> list[str]:
        left = list(words)
        return [left.pop(self.number(0, len(left) - 1)) for _ in range(count)]

    def one(self, words: Sequence[str]) -> str:
        return self.some(words, 1)[0]


def basics() -> list[Question]:
    """Return the 300 items of bench-basics: 60 of each kind in turn, so that any part has all kinds."""
    kinds: Mapping[str, Callable[[_Drawn, int], Asks]] = {
        "arithmetic": _arithmetic,
        "extraction": _extraction,
        "format": _format,
        "choice": _choice,
        "json": _json,
    }
    of_kinds = []
    for kind, ask in kinds.items():
        drawn, distinct = _Drawn(kind), dict[str, Question]()
        while (number := len(distinct)) < 60:
            prompt, *answer = ask(drawn, number)
            distinct.setdefault(prompt, Question(f"{kind}-{number:02d}", prompt, *answer))
        of_kinds.append(distinct.values())
    return [question for row in zip(*of_kinds, strict=True) for question in row]


def _arithmetic(drawn: _Drawn, number: int) -> Asks:
    a, b = drawn.number(2, 9 if number % 3 else 40), drawn.number(2, 9 if number % 3 else 40)
    if number % 4 == 3:
        name, things = drawn.one(_NAMES), drawn.one(_THINGS)
        question = f"{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?"
        return f"{question} Answer with the number only.", "number", str(a + b)
    sign, result = (("+", a + b), ("-", a), ("*", a * b))[number % 4]
    left = a + b if sign == "-" else a
    return f"What is {left} {sign} {b}? Answer with the number only.", "number", str(result)


def _extraction(drawn: _Drawn, number: int) -> Asks:
    buyer, seller = drawn.some(_NAMES, 2)
    origin, target = drawn.some(_CITIES, 2)
    amount, order = drawn.number(11, 99), drawn.number(1000, 9999)
    things, month = drawn.one(_THINGS), drawn.one(_MONTHS)
    text = (
        f"{buyer} from {target} ordered {amount} {things} from {seller} in {origin}. "
        f"The order has the number {order} and arrives in {month}."
    )
    facts = [
        ("Who ordered?", buyer),
        ("What was ordered?", things),
        ("What is the number of the order?", str(order)),
        ("In which month does the order arrive?", month),
        (f"Which city is {seller} in?", origin),
        (f"Which city is {buyer} from?", target),
        (f"How many {things} were ordered?", str(amount)),
    ]
    question, expected = facts[number % len(facts)]
    others = [each for _, each in facts if each != expected]
    return f"{text}\n{question} Answer with one word or number only.", "named", expected, others


def _format(drawn: _Drawn, number: int) -> Asks:
    group = drawn.one(list(_GROUPS))
    word, count = drawn.one(_GROUPS[group]), drawn.number(2, 4)
    day, month = drawn.number(10, 28), drawn.number(0, len(_MONTHS) - 1)
    lines = [rf"{place}\. [\w'-]+( [\w'-]+){{0,3}}" for place in range(1, count + 1)]
    formats = (
        (
            f"Write a numbered list of {count} {drawn.one(_PLURALS)}, with their names only.",
            r"\n".join(lines),
        ),
        (f"Is {word} the name of {group}? Answer with Yes or No only.", r"(Yes|No)\.?"),
        (f"What is meant by {word}? Answer in one short sentence.", r"[A-Z][^.!?\n]{3,100}\."),
        (f"Write a title of one line about {word}. It must begin with #.", r"#[^#\n]+"),
        (f"Write the word {word} in capital letters. Write nothing else.", word.upper()),
        (
            f"Write the date {day} {_MONTHS[month]} 2024 as day/month/year. Write nothing else.",
            f"{day}/0?{_MONTH_NUMBERS[month]}/2024",
        ),
    )
    return formats[number % len(formats)][0], "pattern", formats[number % len(formats)][1]


def _choice(drawn: _Drawn, number: int) -> Asks:
    right, *wrong = drawn.some(list(_GROUPS), 4)
    place = drawn.number(0, 3)
    words = [drawn.one(_GROUPS[kind]) for kind in wrong]
    words.insert(place, drawn.one(_GROUPS[right]))
    return _chosen(f"Which of these is {right}?", words), "letter", LETTERS[place], _others(LETTERS[place], 4)


def _json(drawn: _Drawn, number: int) -> Asks:
    name, city, age = drawn.one(_NAMES), drawn.one(_CITIES), drawn.number(18, 80)
    numbers = [drawn.number(1, 99) for _ in range(3)]
    objects: tuple[tuple[str, object], ...] = (
        (f"Write a JSON list of these numbers: {', '.join(map(str, numbers))}", numbers),
        (f'Write a JSON object with the key "age" and the value {age}.', {"age": age}),
        (
            f'Write a JSON object with the keys "name" and "city" for: {name} lives in {city}.',
            {"name": name, "city": city},
        ),
        (
            f'Write a JSON object with the keys "name" and "age" (a number) for: {name} is {age} years old.',
            {"name": name, "age": age},
        ),
    )
    task, expected = objects[number % len(objects)]
    return f"{task}\nWrite the JSON only.", "json", json.dumps(expected)


def _chosen(question: str, choices: Sequence[str]) -> str:
    lines = [f"{letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *lines, "Answer with the letter only."])


def _others(letter: str, choices: int) -> list[str]:
    return [each for each in LETTERS[:choices] if each != letter]


def gsm8k(folder: Path) -> list[Question]:
    """Read the test items of GSM8K from a package's folder. Raises OSError, KeyError."""
    return [
        Question(
            row["id"],
            f"{row['question']}\nThink step by step, and end with the number that is the answer.",
            "number",
            row["answer"],
        )
        for row in _rows(folder / "gsm8k-v1.jsonl")
    ]


def mmlu(folder: Path) -> list[Question]:
    """Read 1,000 test items of MMLU likewise. They have no examples, and the model writes the letter."""
    return [
        Question(
            row["id"],
            _chosen(row["question"], row["choices"]),
            "letter",
            row["answer"],
            _others(row["answer"], len(row["choices"])),
        )
        for row in _rows(folder / "mmlu-v1.jsonl")
    ]


def _rows(path: Path) -> list[Any]:
    """Return the items ordered by the hash of their names, so that the first few have all subjects."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return sorted(rows, key=lambda row: sha256(row["id"].encode()).digest())
