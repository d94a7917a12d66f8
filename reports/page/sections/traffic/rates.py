"""The table that everybody publishes: how fast prompts of a length are read, and answers made."""

from reports.data import Group, Run
from reports.measures import aggregate
from reports.measures.traffic.parts import groups_under
from reports.page.declared import Topic
from reports.page.looks import prose
from reports.page.sections.traffic.by_group import group_table


def _by_length(run: Run) -> list[Group]:
    found = groups_under(run, "fixed")
    lengths = {group.scenario: aggregate(run, group, "input_tokens").mean or 0.0 for group in found}
    return sorted(found, key=lambda group: lengths[group.scenario])


RATES = Topic(
    "rates",
    "Prefill and decode apart",
    [
        group_table(
            _by_length, ["input_tokens", "output_tokens", "prefill_tokens_per_s", "decode_tokens_per_s"]
        )
    ],
    prose("rates"),
)
