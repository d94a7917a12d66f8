"""Trust: what checks found, and what a reader needs to believe the numbers or to measure them again.

The checks are open; each other part is a line that says what it comes to, and opens.
"""

import shlex

from harness.contracts import Skip, masked_argv
from reports.checks.ledger import ledger_of
from reports.data.run import Run
from reports.measures.metrics import METRICS
from reports.measures.written import plural
from reports.page import grounds
from reports.page.cells import became
from reports.page.declared import Fold, Notes, Section, Table, Topic
from reports.page.looks import macro
from reports.words import grounds as words
from reports.words.described import command, device

_SKIPPED = Table[Skip](
    "Not run",
    lambda run: run.record.plan.skips,
    lambda _: {"what": lambda skip: skip.what, "why": lambda skip: skip.reason},
    look="words",
    is_bare=True,
)


def _cells(run: Run) -> str:
    doubted = sum(became(cell) != "valid" for cell in run.planned_cells)
    return f"{doubted or 'none'} of {len(run.planned_cells)} failed or in doubt"


GROUNDS = Topic(
    "grounds",
    "What the numbers rest on",
    [
        Fold(
            "fairness",
            "Fairness",
            words.fairness_claim,
            [Notes(words.fairness_notes), grounds.fairness],
            ledger_of,
        ),
        Fold(
            "own-error", "bench's own error", words.error_claim, [Notes(words.client_notes), grounds.CLIENT]
        ),
        Fold("errors", "Failures", words.failures_claim, [grounds.FAILURES]),
        Fold("cells", "Cells", _cells, [Notes(words.guard_notes), grounds.CELLS], words.guard_notes),
        Fold(
            "order",
            "Starts in their order",
            words.order_claim,
            [grounds.STARTS, grounds.logs],
            grounds.in_order,
        ),
        Fold(
            "skipped",
            "Not run",
            lambda run: plural(len(run.record.plan.skips), "combination"),
            [_SKIPPED],
            lambda run: run.record.plan.skips,
        ),
        Fold("environment", "Traffic and machine", device, [grounds.machine]),
        Fold("servers", "Servers", words.servers_claim, [grounds.servers], grounds.in_order),
        Fold(
            "method",
            "Method",
            f"{len(METRICS)} metrics with their formulas, and the rules that hold for all",
            [lambda _: [macro("rules", words.RULES)], grounds.DEFINITIONS],
        ),
    ],
)
SECTION = Section(
    "trust",
    "Trust",
    [
        Topic("distrust", words.checks_title, [grounds.checks]),
        GROUNDS,
        Topic(
            "rerun",
            "Run it again",
            [lambda run: [macro("rerun", command(run), shlex.join(masked_argv(run.record.argv)))]],
        ),
    ],
)
