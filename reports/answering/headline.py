"""The run's answer in one line of plain text, for a terminal and the index of runs."""

from __future__ import annotations

from reports.answering.whole_answer import whole_answer
from reports.frames import Run
from reports.marks import SIGN
from reports.said import HEADLINE_AT_MOST, clipped
from reports.written import plural


def headline(run: Run) -> str:
    """`vllm bf16: 1.64x [1.33, 2.01] the output tokens/s of llama_cpp bf16 at 4 users`, or why there is no
    winner, and how many reasons there are to distrust it: 160 characters at most, on one line. Of several
    scenarios or models the first, and how many more.
    """
    said = whole_answer(run).said
    if not said:
        return "No answer"
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    first = " ".join(said[0].headline.split())
    count = len(run.findings)
    end = more + (f" ({SIGN} {plural(count, 'reason')} to distrust)" if count else "")
    return clipped(first, HEADLINE_AT_MOST - len(end)) + end
