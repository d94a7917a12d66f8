"""The table that everybody publishes: how fast prompts of a length are read, and answers made."""

from reports.page.declared import Topic
from reports.page.looks import prose
from reports.page.sections.traffic.by_group import group_table

RATES = Topic(
    "rates",
    "Prefill and decode apart",
    [group_table("fixed", ["input_tokens", "output_tokens", "prefill_tokens_per_s", "decode_tokens_per_s"])],
    prose("rates"),
)
