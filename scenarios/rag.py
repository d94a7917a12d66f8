"""Generate questions about retrieved documents: long prompts, short answers.

Popular documents are retrieved for many questions, so prompts overlap. But the order differs each time, so a
prefix cache helps only with the beginning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from heapq import nlargest
from math import log
from random import Random

from serving_bench.harness.contracts import Conversation, Message, Scenario, Turn, key, within
from serving_bench.harness.errors import UserError
from serving_bench.scenarios.lengths import ANSWER, PROMPT, length, length_key, lengths
from serving_bench.scenarios.text import TextOptions, prose

_SYSTEM = "Answer from the documents below. Name the document that you took the answer from."


@dataclass(frozen=True)
class RagOptions(TextOptions):
    documents: int = key(200, "How many documents there are.", within(1, 10_000))
    retrieved: int = key(4, "How many of them a prompt has.", within(1, 10_000), ask_above=32)
    zipf: float = key(1.0, "How much rarer later ones are, by Zipf's law; 0: all alike.", within(0, 10))
    document_tokens: int | str = length_key("192..320", "The tokens of a document.")
    input_tokens: int | str = length_key(32, PROMPT)
    output_tokens: int | str = length_key(48, ANSWER)

    def __post_init__(self) -> None:
        if self.retrieved > self.documents:
            raise UserError(
                f"scenario.retrieved={self.retrieved}: more than scenario.documents={self.documents}"
            )


def conversations(options: RagOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end. Each cell has its own documents."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    document_tokens, seed = length("document_tokens", options.document_tokens), rng.getrandbits(64)

    @lru_cache(maxsize=4096)
    def document(number: int) -> str:
        own_rng = Random(f"{seed} {number}")
        return f"Document {number + 1}: {prose(own_rng, options.words(document_tokens(own_rng)))}"

    rarities = [(1 + place) ** options.zipf for place in range(options.documents)]
    while True:
        # Weighted draws without replacement: Efraimidis and Spirakis 2006, Inf. Process. Lett. 97:181.
        drawn = [log(1 - rng.random()) * rarity for rarity in rarities]
        nearest = nlargest(options.retrieved, range(options.documents), key=drawn.__getitem__)
        question = f"Question: {prose(rng, options.words(inputs(rng)))}"
        prompt = "\n\n".join([*map(document, nearest), question])
        yield Conversation((Turn((Message("system", _SYSTEM), Message("user", prompt)), outputs(rng)),))


SCENARIO = Scenario(
    "rag",
    "long retrieved contexts that overlap between users, short answers (scenario.retrieved=8)",
    RagOptions,
    conversations,
)
