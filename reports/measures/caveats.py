"""What a reader has to know of a deployment wherever its name stands: fewer requests at once, other kernels.

Goes by what servers say of themselves and what their engines could not be told; draws nothing.
"""

import re
from dataclasses import dataclass

from reports.data.run import Run

_ONE = re.compile(r"\bone\b[^;.]*\bat a time\b", re.IGNORECASE)


@dataclass(frozen=True)
class AtOnce:
    """Requests that a server was to serve at once, and why it does not; `is_one`: it serves one at a time."""

    asked: int
    clause: str | None
    is_one: bool


def too_few_at_once(run: Run) -> dict[str, AtOnce]:
    """Deployments that serve one request at a time though more are offered, or cannot be told how many."""
    found = {}
    offered = max((cell.load.concurrency or 0 for cell in run.planned_cells), default=0)
    for label, deployment in run.deployments.items():
        records = run.starts_of(label)
        asked = deployment.terms.concurrent_sequences or offered
        clause = next((c for r in records if (c := r.unmatched.get("concurrent_sequences"))), None)
        counts = [count for r in records if (count := r.resolved.get("concurrent_sequences")) is not None]
        is_one = any(count == 1 for count in counts) or bool(_ONE.search(clause or ""))
        if asked > 1 and (is_one or (clause is not None and not counts)):
            found[label] = AtOnce(asked, clause, is_one)
    return found


def stand_ins(run: Run) -> dict[str, str]:
    """Deployments whose kernels were replaced, and by what."""
    found = {}
    for label in run.deployments:
        for record in run.starts_of(label):
            if what := record.resolved.get("kernel_stand_in"):
                found[label] = "its kernels are replaced" if what is True else str(what)
    return found
