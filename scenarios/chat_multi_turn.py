"""Generate chats with a growing history: a shared system prompt, then short questions that refer back."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from serving_bench.harness.contracts import (
    COUNT,
    Conversation,
    Message,
    Range,
    Scenario,
    ScenarioOptions,
    Turn,
    key,
    within,
)
from serving_bench.scenarios.lengths import THINK_TIME
from serving_bench.scenarios.text import TOKENS_PER_WORD, prose


@dataclass(frozen=True)
class ChatMultiTurnOptions(ScenarioOptions):
    """Lengths are means; each turn draws its own within `spread` of it."""

    turns: int = key(4, "The turns of a conversation.", COUNT, ask_above=32)
    system_words: int = key(60, "The words of the system prompt; 0: none.", Range(0))
    input_words: int = key(24, "The mean words of what a user says.", COUNT)
    output_tokens: int = key(32, "The mean tokens of an answer.", COUNT, foreign="length")
    spread: float = key(0.5, "How far a length is from its mean; 0.5: half to one and a half.", within(0, 1))
    think_time_s: float = key(0.2, THINK_TIME, Range(0))


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
