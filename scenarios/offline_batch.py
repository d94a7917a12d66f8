"""Generate single requests of many lengths, such as a job over a data set sends all at once.

The spread of the lengths is about that of ShareGPT's chats, but they are shorter.
"""

from dataclasses import dataclass

from serving_bench.harness.contracts import Scenario
from serving_bench.scenarios.fixed import FixedOptions, conversations
from serving_bench.scenarios.lengths import ANSWER, PROMPT, length_key


@dataclass(frozen=True)
class OfflineBatchOptions(FixedOptions):
    input_tokens: int | str = length_key("lognormal:100:0.9", PROMPT)
    output_tokens: int | str = length_key("lognormal:48:0.7", ANSWER)


SCENARIO = Scenario(
    "offline_batch",
    "requests of many lengths (load.arrival=batch load.conversations=64: all at once)",
    OfflineBatchOptions,
    conversations,
)
