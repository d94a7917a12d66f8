"""The page's sections in their order: a line and a file each."""

from collections.abc import Callable

from reports.data.run import Run
from reports.page.charts import Section
from reports.page.sections import (
    decision,
    energy,
    frontier,
    latency,
    memory,
    paired,
    pareto,
    search,
    summary,
    throughput,
    timeline,
    trust,
    turns,
    verdicts,
    why,
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
    "memory": ("Memory", memory.section),
    "turns": ("Turns and cache", turns.section),
    "pareto": ("Trade-offs", pareto.section),
    "energy": ("Cost and energy", energy.section),
    "why": ("Why", why.section),
    "trust": ("Trust", trust.section),
}
