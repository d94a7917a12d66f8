"""What users say: conversations, and the scenarios that make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Turn:
    """One request of a conversation.

    `messages` are added to the history before the request is sent. `think_time_s` passes between the end of
    the turn before and the sending of this one. `answer` goes back into the history instead of the model's
    own text where the scenario's history is scripted.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    think_time_s: float = 0.0
    answer: str | None = None


@dataclass(frozen=True)
class Conversation:
    """`arrival_s`: when it begins, in seconds from the start of the trace it comes from; None: whenever."""

    turns: tuple[Turn, ...]
    arrival_s: float | None = None


@dataclass(frozen=True)
class ScenarioOptions:
    """Options that every scenario has. `history`: `model` sends the model's own answers back, `scripted`
    the scenario's."""

    history: Literal["model", "scripted"] = "model"


class Scenario(Protocol):
    """A seeded generator of conversations: one file in scenarios/, `SCENARIO = ...`."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def options(self) -> type[ScenarioOptions]: ...

    def conversations(self, options: Any, rng: Random) -> Iterator[Conversation]:
        """Yield conversations, without end unless the source ends; the same for the same rng state.

        Pure but for reading a file that an option names. Raises UserError where an option's value cannot
        work.
        """
        ...

    def span_s(self, options: Any) -> float | None:
        """Return the seconds between the first and the last conversation's `arrival_s`; None if they have
        none.

        Reads the whole source, and raises UserError where it cannot be played to its end.
        """
        ...


@dataclass(frozen=True)
class ScenarioChoice:
    """A scenario with its options decoded into its own dataclass (a mapping when read back from a file).

    `span_s`: how long it goes on, for one that has arrival times.
    """

    name: str
    options: Any
    label: str
    span_s: float | None = None
