"""The run's answer in one line of plain text, for a terminal and the index of runs."""

from __future__ import annotations

from reports import decision_text
from reports.answer import answer_of
from reports.frames import Run
from reports.said import HEADLINE_AT_MOST, clipped


def headline(run: Run) -> str:
    """`vllm bf16: 1.64x [1.33, 2.01] the output tokens/s of llama_cpp bf16 at 4 users`, or why there is no
    winner: 160 characters at most, on one line. Of several scenarios or models the first, and how many more.
    """
    said = decision_text.answers(run) or list(answer_of(run).said)
    if not said:
        return "No answer"
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    first = " ".join(said[0].headline.split())
    return clipped(first, HEADLINE_AT_MOST - len(more)) + more
