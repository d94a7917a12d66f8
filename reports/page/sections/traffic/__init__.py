"""Topics of one kind of traffic, each on the page where the run has it."""

from collections.abc import Sequence

from reports.page.declared import Topic
from reports.page.sections.traffic import adapters, agents, cache, crowds, depths, rates, validity

TOPICS: Sequence[Topic] = (
    cache.CACHE,
    rates.RATES,
    depths.DEPTHS,
    adapters.ADAPTERS,
    validity.VALIDITY,
    agents.TASKS,
    agents.THINKING,
    agents.LEFT,
    crowds.BATCH,
    crowds.BURST,
)
