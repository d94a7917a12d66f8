"""Generate single requests of many lengths, as a job that runs over a data set sends them: all at once.

Their lengths are spread about as those of ShareGPT's chats, but shorter.
"""

from dataclasses import dataclass

from harness.contracts import Scenario
from scenarios.fixed import FixedOptions, conversations


@dataclass(frozen=True)
class OfflineBatchOptions(FixedOptions):
    """Lengths in tokens, as those of `fixed`."""

    input_tokens: int | str = "lognormal:100:0.9"
    output_tokens: int | str = "lognormal:48:0.7"


SCENARIO = Scenario(
    "offline_batch",
    "requests of many lengths (load.arrival=batch load.conversations=64: all at once)",
    OfflineBatchOptions,
    conversations,
)
