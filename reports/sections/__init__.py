"""The page's sections in their order: a line and a file each."""

from __future__ import annotations

from collections.abc import Callable

from reports.charts import Section
from reports.frames import Run
from reports.sections import (
    anatomy,
    client,
    distrust,
    energy,
    environment,
    errors,
    fairness,
    guard,
    latency,
    memory,
    method,
    rerun,
    serving,
    skipped,
    startup,
    steadiness,
    summary,
    throughput,
)

# id of the section: its name in the navigation, and what makes it
SECTIONS: dict[str, tuple[str, Callable[[Run], Section | None]]] = {
    "summary": ("Values", summary.section),
    "distrust": ("Checks", distrust.section),
    "throughput": ("Throughput", throughput.section),
    "latency": ("Latency", latency.section),
    "memory": ("Memory", memory.section),
    "serving": ("Servers", serving.section),
    "anatomy": ("Anatomy", anatomy.section),
    "energy": ("Energy", energy.section),
    "startup": ("Start-up", startup.section),
    "fairness": ("Fairness", fairness.section),
    "steadiness": ("Steadiness", steadiness.section),
    "client": ("Client", client.section),
    "guard": ("Guard", guard.section),
    "errors": ("Errors", errors.section),
    "skipped": ("Skipped", skipped.section),
    "environment": ("Environment", environment.section),
    "method": ("Method", method.section),
    "rerun": ("Rerun", rerun.section),
}
