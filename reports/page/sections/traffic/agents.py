"""Tasks of agents: how fast, how many were finished, and of reasoning models when the answer begins."""

from reports.page.declared import Topic
from reports.page.looks import prose
from reports.page.sections.traffic.by_group import group_table

TASKS = Topic(
    "tasks",
    "Agents' tasks",
    [
        group_table(
            "agent_loop",
            ["task_s", "finished_share", "steps_per_s", "output_tokens", "ttft_s.p50"],
        )
    ],
    prose("agents"),
)
THINKING = Topic(
    "thinking",
    "Thoughts before the answer",
    [
        group_table(
            "reasoning", ["ttft_s.p50", "first_answer_s", "thinking_share", "tpot_s.p50", "output_tokens"]
        )
    ],
    prose("thinking"),
)
LEFT = Topic(
    "left",
    "Users who do not wait",
    [
        group_table(
            "code_completion",
            ["left_share", "in_time_share", "wasted_share", "answered_per_s", "goodput_per_s", "ttft_s.p50"],
        )
    ],
    prose("left"),
)
