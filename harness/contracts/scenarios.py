"""Types for scenarios: what users say."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Turn:
    """One request of a conversation. `think_time_s` passes before it is sent.

    `messages` are added to the history before; `answer` goes back into it instead of the model's own text
    where the scenario's history is scripted.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    think_time_s: float = 0.0
    answer: str | None = None


@dataclass(frozen=True)
class Conversation:
    """The turns of one user. `arrival_s`: seconds from the start of its trace to its beginning; None: any."""

    turns: tuple[Turn, ...]
    arrival_s: float | None = None


@dataclass(frozen=True)
class ScenarioOptions:
    """Options that every scenario has. `history`: whose answers go back into it."""

    history: Literal["model", "scripted"] = "model"


@dataclass(frozen=True)
class Scenario:
    """A seeded generator of conversations: `SCENARIO = Scenario(...)` in a file of scenarios/.

    Its functions are pure, but may read a file that an option names. They raise UserError for a value that
    cannot work.
    """

    name: str
    description: str
    # The frozen dataclass of its own keys (`scenario.turns`), a ScenarioOptions.
    options: type[ScenarioOptions]
    # Yield conversations, without end unless the source ends; the same for the same state of the rng.
    conversations: Callable[[Any, Random], Iterator[Conversation]]
    # Return each conversation's `arrival_s` and output tokens, in order, without making any text. None: they
    # have no instants. The iterator raises UserError if the source cannot be played to its end.
    arrivals: Callable[[Any], Iterable[tuple[float, int]] | None] = lambda options: None
