"""Trust: what the checks found, and what a reader needs to believe the numbers or to measure them again.

The checks are open. Every other part is one line that says what it comes to, and unfolds.
"""

import shlex

from serving_bench.harness.contracts import masked_argv
from serving_bench.reports.data import Run, command
from serving_bench.reports.measures import metrics_of, plural
from serving_bench.reports.page import grounds
from serving_bench.reports.page.looks import macro, prose
from serving_bench.reports.page.parts import Fold, Notes, Part, Topic
from serving_bench.reports.words import grounds as words
from serving_bench.reports.words.described import device


def checks(run: Run) -> Topic:
    return Topic("distrust", words.checks_title(run), [grounds.checks(run)])


def foundations(run: Run) -> Topic:
    """Return what the numbers rest on."""
    fairness: list[Part] = [Notes(words.fairness_notes(run)), *grounds.fairness(run)]
    client: list[Part] = [Notes(words.client_notes(run)), grounds.client(run)]
    cells: list[Part] = [Notes(words.guard_notes(run)), grounds.cells(run)]
    order: list[Part] = [grounds.starts(run), *grounds.logs(run)]
    skips = plural(len(run.record.plan.skips), "combination") if run.record.plan.skips else ""
    metrics = f"{len(metrics_of(run))} metrics with their formulas, and the rules for all of them"
    folds = [
        Fold("fairness", "Fairness", words.fairness_claim(run), fairness),
        Fold("own-error", "bench's own error", words.error_claim(run), client),
        Fold("errors", "Failures", words.failures_claim(run), [grounds.failures(run)]),
        Fold("cells", "Cells", words.cells_claim(run), cells),
        Fold("order", "Order of the starts", words.order_claim(run), order),
        Fold("skipped", "Not run", skips, [grounds.skipped(run)]),
        Fold("environment", "Traffic and machine", device(run), grounds.machine(run)),
        Fold("servers", "Servers", words.servers_claim(run), grounds.servers(run)),
        Fold("method", "Method", metrics, [prose("rules", run), grounds.definitions(run)]),
    ]
    return Topic("grounds", "What the numbers rest on", folds)


def again(run: Run) -> Topic:
    commands = macro("rerun", command(run), shlex.join(masked_argv(run.record.argv)))
    return Topic("rerun", "Run it again", [commands])
