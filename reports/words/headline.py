"""The run's answer in one line of plain text, for a terminal and the index of runs."""

from reports.checks.examine import SIGN, findings_of
from reports.data.run import Run
from reports.measures.written import plural
from reports.words.said import HEADLINE_AT_MOST, clipped
from reports.words.whole_answer import whole_answer


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
    count = len(findings_of(run))
    end = more + (f" ({SIGN} {plural(count, 'reason')} to distrust)" if count else "")
    return clipped(first, HEADLINE_AT_MOST - len(end)) + end
