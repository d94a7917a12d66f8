"""The page's sections in their order: a line and a file each."""

from __future__ import annotations

from collections.abc import Callable

from reports.charts import Section
from reports.frames import Run
from reports.sections import (
    client,
    distrust,
    environment,
    errors,
    fairness,
    latency,
    memory,
    method,
    rerun,
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
    "startup": ("Start-up", startup.section),
    "fairness": ("Fairness", fairness.section),
    "steadiness": ("Steadiness", steadiness.section),
    "client": ("Client", client.section),
    "errors": ("Errors", errors.section),
    "skipped": ("Skipped", skipped.section),
    "environment": ("Environment", environment.section),
    "method": ("Method", method.section),
    "rerun": ("Rerun", rerun.section),
}
