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

from harness.contracts import Conversation, Message, Scenario, Turn
from harness.errors import UserError
from scenarios.lengths import length, lengths, need
from scenarios.text import TextOptions, prose

_SYSTEM = "Answer from the documents below. Name the document that you took the answer from."


@dataclass(frozen=True)
class RagOptions(TextOptions):
    """Lengths in tokens, written as in `fixed`. A prompt has `retrieved` of the `documents`.

    `zipf`: how much rarer later documents are.
    """

    documents: int = 200
    retrieved: int = 4
    zipf: float = 1.0
    document_tokens: int | str = "192..320"
    input_tokens: int | str = 32
    output_tokens: int | str = 48

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self, 1, 10_000, "documents", "retrieved")
        need(self, 0, 10, "zipf")
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
        own = Random(f"{seed} {number}")
        return f"Document {number + 1}: {prose(own, options.words(document_tokens(own)))}"

    rarities = [(1 + place) ** options.zipf for place in range(options.documents)]
    while True:
        # Weighted draws without replacement: Efraimidis and Spirakis 2006, Inf. Process. Lett. 97:181.
        drawn = [log(1 - rng.random()) * rarity for rarity in rarities]
        found = nlargest(options.retrieved, range(options.documents), key=drawn.__getitem__)
        question = f"Question: {prose(rng, options.words(inputs(rng)))}"
        prompt = "\n\n".join([*map(document, found), question])
        yield Conversation((Turn((Message("system", _SYSTEM), Message("user", prompt)), outputs(rng)),))


SCENARIO = Scenario(
    "rag",
    "long retrieved contexts that overlap between users, short answers (scenario.retrieved=8)",
    RagOptions,
    conversations,
)
