"""The page's sections in their order. Before them all stands the answer (reports/page/opening.py)."""

from collections.abc import Callable, Mapping

from reports.data.run import Run
from reports.page import trust
from reports.page.declared import Section as Declared
from reports.page.drawing.charts import Section
from reports.page.markup import paragraph
from reports.page.sections import energy, latency, memory, side_by_side, throughput, why

Maker = Callable[[Run], Section]


def _quality(run: Run) -> Section:
    return Section("Quality", parts=[paragraph("Not measured: a smaller quantization may answer worse.")])


def _declared(section: Declared) -> tuple[str, Mapping[str, Maker]]:
    return section.name, {topic.id: topic for topic in section.topics}


# A section's id: its name in the bar, and what makes its parts, each with an id of its own.
SECTIONS: Mapping[str, tuple[str, Mapping[str, Maker]]] = {
    "side": _declared(side_by_side.SECTION),
    "frontier": _declared(throughput.SECTION),
    "latency": _declared(latency.SECTION),
    "memory": _declared(memory.SECTION),
    "quality": ("Quality", {"kept": _quality}),
    "cost": _declared(energy.SECTION),
    "why": _declared(why.SECTION),
    "trust": ("Trust", {"distrust": trust.checks, "grounds": trust.grounds, "rerun": trust.rerun}),
}
# Where the heading says more than the bar has room for.
TITLES = {"frontier": "Throughput against latency", "cost": "Cost and energy"}


def sections_of(run: Run) -> dict[str, dict[str, Section]]:
    """Return the parts of each section that this run has, by the ids of both."""
    found = {
        name: {part: made for part, make in makers.items() if (made := make(run)).parts}
        for name, (_, makers) in SECTIONS.items()
    }
    return {name: parts for name, parts in found.items() if parts}
