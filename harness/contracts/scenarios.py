"""Types for scenarios: what users say, and in what form they want it answered."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from serving_bench.harness.contracts.keys import key


@dataclass(frozen=True)
class ToolCall:
    """A call of a function that a model asks for. `arguments`: JSON, as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """A message of a chat. An assistant's may have a `call`, which the next message, a tool's, answers."""

    role: str
    content: str
    call: ToolCall | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Return its fields as the chat API has them, without the call."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Tool:
    """A function that a model may call. `parameters`: the JSON Schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """What an answer must be: a call of one of `tools`, or JSON that `schema` (a JSON Schema) allows.

    `is_forced`: the server is told, and may not answer otherwise; if not, only the prompt says it.
    """

    name: str
    tools: tuple[Tool, ...] = ()
    schema: Mapping[str, Any] | None = None
    is_forced: bool = True


@dataclass(frozen=True)
class Turn:
    """One request of a conversation, or several at once. `think_time_s` passes before it is sent.

    `messages` are added to the history first. If the scenario's history is scripted, `answer` and `call` go
    back into it instead of the model's own text and call; `call` does so, too, if the model made none.
    `leave_after_s`: how long after sending it the client goes away, unless the answer has ended.

    `parallel`: what the user sends beside it at the same instant, each after the same history. The next turn
    waits for all of them. Their messages and answers do not go into the history.

    `adapter`: the name of the adapter that is to answer; None: the model without one.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    think_time_s: float = 0.0
    answer: str | None = None
    form: Form | None = None
    call: ToolCall | None = None
    leave_after_s: float | None = None
    parallel: "tuple[Turn, ...]" = ()
    adapter: str | None = None

    @property
    def requests(self) -> "tuple[Turn, ...]":
        """Return what is sent at once: this turn, then its parallel ones."""
        return (self, *self.parallel)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, under the name by which requests ask for it.

    `source`: a directory in PEFT's layout, or the name that a running server has for it. None: an adapter
    with random weights, which depend only on its name and the model's shape.
    """

    name: str
    source: str | None = None


@dataclass(frozen=True)
class Conversation:
    """The turns of one user.

    `arrival_s`: seconds from the start of its trace to its beginning; None: any. `group`: the number of its
    kind, if a scenario has several kinds, which differ in their first text, their length or their adapter.
    """

    turns: tuple[Turn, ...]
    arrival_s: float | None = None
    group: int | None = None


@dataclass(frozen=True)
class ScenarioOptions:
    """Options that every scenario has, and what follows from them."""

    history: Literal["model", "scripted"] = key("model", "Whose answers stand in the history.")

    @property
    def width(self) -> int:
        """Return how many requests a user sends at once, at most."""
        return 1

    @property
    def lora(self) -> tuple[Adapter, ...]:
        """Return the adapters that conversations name. A conversation's group is its adapter's index."""
        return ()


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
    # Return the forms that its turns may ask for, by which answers are judged.
    forms: Callable[[Any], tuple[Form, ...]] = lambda options: ()
    # Whether an answer ends where the model ends it, so that no engine is told to go on to max_tokens.
    ends_itself: bool = False
    # Return about how many tokens the largest request and its answer have; None if the options do not say.
    largest: Callable[[Any], int | None] = lambda options: None
