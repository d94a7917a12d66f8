"""Generate chats with a growing history: a shared system prompt, then short questions that refer back."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from random import Random

from harness.contracts import Conversation, Message, Scenario, ScenarioOptions, Turn
from scenarios.lengths import need
from scenarios.text import TOKENS_PER_WORD, prose


@dataclass(frozen=True)
class ChatMultiTurnOptions(ScenarioOptions):
    """Lengths are means; each turn draws its own within `spread` of it (0.5: half to one and a half).

    `system_words` is the length of the system prompt, the same in all conversations; 0 leaves it out.
    """

    turns: int = 4
    system_words: int = 60
    input_words: int = 24
    output_tokens: int = 32
    spread: float = 0.5
    think_time_s: float = 0.2

    def __post_init__(self) -> None:
        need(self, 1, inf, "turns", "input_words", "output_tokens")
        need(self, 0, inf, "system_words", "think_time_s")
        need(self, 0, 1, "spread")


_TOPICS = (
    "a kitchen garden",
    "a night train",
    "an old bridge",
    "a harbour town",
    "a public library",
    "a small bakery",
    "a mountain path",
    "a school orchestra",
    "a wooden boat",
    "a winter market",
    "a weather station",
    "a bicycle workshop",
)
_OPENINGS = (
    "Tell me about {topic}.",
    "I am planning {topic} and need advice.",
    "Explain how {topic} works.",
    "Describe {topic} to a child.",
)
_FOLLOW_UPS = (
    "Go on from there.",
    "Say more about your last point.",
    "Why is that so?",
    "What would you do first?",
    "Give another example.",
    "What could go wrong with that?",
    "Put it in other words.",
)


def _around(rng: Random, mean: int, spread: float) -> int:
    return max(1, round(rng.uniform(mean * (1 - spread), mean * (1 + spread))))


def conversations(options: ChatMultiTurnOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations without end; each has `turns` turns and its own topic."""
    # The system prompt does not depend on the cell's seed: in real traffic everybody has the same one.
    system = "You are a patient assistant. " + prose(Random(0), options.system_words)
    while True:
        yield _conversation(options, system, Random(rng.getrandbits(64)))


def _conversation(options: ChatMultiTurnOptions, system: str, rng: Random) -> Conversation:
    topic = rng.choice(_TOPICS)
    turns = []
    for index in range(options.turns):
        lead = rng.choice(_FOLLOW_UPS) if index else rng.choice(_OPENINGS).format(topic=topic)
        user = Message("user", f"{lead} {prose(rng, _around(rng, options.input_words, options.spread))}")
        first = (Message("system", system),) if index == 0 and options.system_words else ()
        max_tokens = _around(rng, options.output_tokens, options.spread)
        turns.append(
            Turn(
                messages=(*first, user),
                max_tokens=max_tokens,
                think_time_s=rng.uniform(0.5, 1.5) * options.think_time_s if index else 0.0,
                # Only scripted histories use it.
                answer=prose(rng, max(1, round(max_tokens / TOKENS_PER_WORD))),
            )
        )
    return Conversation(tuple(turns))


SCENARIO = Scenario(
    "chat_multi_turn",
    "a shared system prompt, then turns that grow one history",
    ChatMultiTurnOptions,
    conversations,
)
