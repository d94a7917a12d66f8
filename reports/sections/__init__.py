"""The page's sections in their order: a line and a file each."""

from __future__ import annotations

from collections.abc import Callable

from reports.frames import Run
from reports.page.charts import Section
from reports.sections import (
    anatomy,
    bounds,
    client,
    decision,
    distrust,
    energy,
    environment,
    errors,
    fairness,
    frontier,
    guard,
    latency,
    memory,
    method,
    paired,
    pareto,
    rerun,
    search,
    serving,
    skipped,
    startup,
    steadiness,
    summary,
    throughput,
    timeline,
    turns,
    verdicts,
)

# id of the section: its name in the navigation, and what makes it
SECTIONS: dict[str, tuple[str, Callable[[Run], Section | None]]] = {
    "decision": ("Decision", decision.section),
    "verdicts": ("Verdicts", verdicts.section),
    "summary": ("Values", summary.section),
    "frontier": ("Frontier", frontier.section),
    "latency": ("Latency", latency.section),
    "paired": ("Same requests", paired.section),
    "timeline": ("Timeline", timeline.section),
    "throughput": ("Throughput", throughput.section),
    "search": ("Service levels", search.section),
    "bounds": ("Why", bounds.section),
    "memory": ("Memory", memory.section),
    "anatomy": ("Anatomy", anatomy.section),
    "turns": ("Turns and cache", turns.section),
    "pareto": ("Trade-offs", pareto.section),
    "energy": ("Energy", energy.section),
    "startup": ("Start-up", startup.section),
    "serving": ("Servers", serving.section),
    "fairness": ("Fairness", fairness.section),
    "distrust": ("Checks", distrust.section),
    "steadiness": ("Steadiness", steadiness.section),
    "client": ("Client", client.section),
    "guard": ("Guard", guard.section),
    "errors": ("Errors", errors.section),
    "skipped": ("Skipped", skipped.section),
    "environment": ("Environment", environment.section),
    "method": ("Method", method.section),
    "rerun": ("Rerun", rerun.section),
}
