"""A load process with its own scenario, for tests: `python tests/support/loads/tiny_load.py JOB.json`.

The job's scenario options choose what it does; see TinyOptions.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Conversation, Fairness, Message, Scenario, ScenarioOptions, Turn
from serving_bench.harness.errors import UserError
from serving_bench.harness.load.answer import APIS, openai
from serving_bench.harness.load.answer.api import Chunk, Tokens
from serving_bench.harness.load.worker import main
from serving_bench.scenarios import SCENARIOS


@dataclass(frozen=True)
class TinyOptions(ScenarioOptions):
    turns: int = 2
    think_time_s: float = 0.0
    width: int = 1  # requests of each turn
    leave_after_s: float | None = None  # of the last request of each turn
    conversations: int | None = None  # how many there are; without end unless given
    mistake: str | None = None  # the text of a UserError to raise
    prints: str | None = None  # to stdout, by print and by descriptor, with each conversation


def conversations(options: TinyOptions, rng: Random) -> Iterator[Conversation]:
    number = 0
    while options.conversations is None or number < options.conversations:
        if options.mistake:
            raise UserError(options.mistake)
        if options.prints:
            print(options.prints)
            os.write(1, options.prints.encode() + b"\n")
        word = rng.randrange(1_000_000)
        yield Conversation(tuple(turn_of(options, number, turn, word) for turn in range(options.turns)))
        number += 1


def turn_of(options: TinyOptions, number: int, turn: int, word: int) -> Turn:
    requests = [
        Turn(
            (Message("user", f"c{number} t{turn} {f'p{part} ' if part else ''}{word}"),),
            max_tokens=turn + 4,
            think_time_s=options.think_time_s,
            answer=f"scripted {turn}",
            leave_after_s=options.leave_after_s if part == options.width - 1 else None,
        )
        for part in range(options.width)
    ]
    return replace(requests[0], parallel=tuple(requests[1:]))


SCENARIO = Scenario("tiny", "for tests", TinyOptions, conversations)


@dataclass(frozen=True)
class TinyEngineOptions:
    min_tokens: int = 0


class TinyEngine:
    name = "tiny"
    options = TinyEngineOptions

    def __init__(self, api: str = "openai") -> None:
        self.api = api

    def request_fields(self, turn: Turn, options: TinyEngineOptions, fairness: Fairness) -> Mapping[str, Any]:
        return {"ignore_eos": True, "min_tokens": options.min_tokens}


def _raising_read(data: bytes) -> Chunk:
    if b"raise" in data:
        raise KeyError(data.decode())
    return openai.API.read(data)


def _raising_tokens(usage: Mapping[str, Any]) -> Tokens:
    if usage.get("completion_tokens") == 13:
        return openai.API.tokens(usage)[:2]  # too few
    return openai.API.tokens(usage)


# An API whose functions raise unexpected errors for some answers.
RAISING = replace(openai.API, read=_raising_read, tokens=_raising_tokens)


def register() -> None:
    """Register the scenario, the engines and the API in this process."""
    SCENARIOS["tiny"] = SCENARIO
    ENGINES["tiny"] = TinyEngine()  # type: ignore[assignment]
    ENGINES["raising"] = TinyEngine("raising")  # type: ignore[assignment]
    APIS["raising"] = RAISING  # type: ignore[index]


if __name__ == "__main__":
    register()
    sys.exit(main(sys.argv))
