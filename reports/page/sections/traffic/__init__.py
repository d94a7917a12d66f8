"""Topics of one kind of traffic, each on the page where the run has it."""

from collections.abc import Sequence

from reports.page.declared import Topic
from reports.page.sections.traffic import agents, crowds, depths, prefixes, rates, validity

TOPICS: Sequence[Topic] = (
    prefixes.PREFIXES,
    rates.RATES,
    depths.DEPTHS,
    validity.VALIDITY,
    agents.TASKS,
    agents.THINKING,
    agents.LEFT,
    crowds.BATCH,
    crowds.BURST,
)
