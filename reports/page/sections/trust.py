"""Trust: what the checks found, and what a reader needs to believe the numbers or to measure them again.

The checks are open. Every other part is one line that says what it comes to, and unfolds.
"""

import shlex

from serving_bench.harness.contracts import masked_argv
from serving_bench.reports.data import command
from serving_bench.reports.measures import metrics_of, plural
from serving_bench.reports.page import grounds
from serving_bench.reports.page.declared import Fold, Notes, Topic
from serving_bench.reports.page.looks import macro, prose
from serving_bench.reports.words import grounds as words
from serving_bench.reports.words.described import device

CHECKS = Topic("distrust", words.checks_title, [grounds.checks])
GROUNDS = Topic(
    "grounds",
    "What the numbers rest on",
    [
        Fold("fairness", "Fairness", words.fairness_claim, [Notes(words.fairness_notes), grounds.fairness]),
        Fold(
            "own-error", "bench's own error", words.error_claim, [Notes(words.client_notes), grounds.CLIENT]
        ),
        Fold("errors", "Failures", words.failures_claim, [grounds.FAILURES]),
        Fold("cells", "Cells", words.cells_claim, [Notes(words.guard_notes), grounds.CELLS]),
        Fold("order", "Order of the starts", words.order_claim, [grounds.STARTS, grounds.logs]),
        Fold(
            "skipped",
            "Not run",
            lambda run: plural(len(skips), "combination") if (skips := run.record.plan.skips) else "",
            [grounds.SKIPPED],
        ),
        Fold("environment", "Traffic and machine", device, [grounds.machine]),
        Fold("servers", "Servers", words.servers_claim, [grounds.servers]),
        Fold(
            "method",
            "Method",
            lambda run: f"{len(metrics_of(run))} metrics with their formulas, and the rules for all of them",
            [lambda run: [prose("rules")(run)], grounds.DEFINITIONS],
        ),
    ],
)
AGAIN = Topic(
    "rerun",
    "Run it again",
    [lambda run: [macro("rerun", command(run), shlex.join(masked_argv(run.record.argv)))]],
)
