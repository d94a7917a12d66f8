"""The run's answer in one line of plain text, for a terminal and the index of runs."""

from reports.checks.examine import SIGN, findings_of
from reports.data.run import Run
from reports.measures.written import plural
from reports.words.answer import answers_of
from reports.words.said import HEADLINE_AT_MOST, clipped


def headline(run: Run) -> str:
    """Return `Serve vllm bf16: 1.64x the output tokens/s of tgi bf16 at 4 users`, or why nothing is named.

    With how many reasons there are to distrust it: 160 characters at most, on one line. Of several scenarios
    or models the first, and how many more.
    """
    said = answers_of(run)
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    count = len(findings_of(run))
    end = more + (f" ({SIGN} {plural(count, 'reason')} to distrust)" if count else "")
    return clipped(" ".join(said[0].headline.split()), HEADLINE_AT_MOST - len(end)) + end
