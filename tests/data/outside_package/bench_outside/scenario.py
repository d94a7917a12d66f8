"""Generate questions with one right answer, a sum each."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from serving_bench import COUNT, Conversation, Message, Scenario, ScenarioOptions, Turn, key


@dataclass(frozen=True)
class Options(ScenarioOptions):
    digits: int = key(3, "The digits of each number.", COUNT)


def conversations(options: Options, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one question without end."""
    while True:
        first, second = (rng.randrange(10**options.digits) for _ in range(2))
        yield Conversation((Turn((Message("user", f"What is {first} plus {second}?"),), 8),))


SCENARIO = Scenario("sums", "one sum in each conversation", Options, conversations)
