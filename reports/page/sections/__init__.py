"""The page's sections in order, each of one or more topics. The answer stands before them."""

from collections.abc import Mapping

from serving_bench.reports.data import Run
from serving_bench.reports.page.declared import Section
from serving_bench.reports.page.drawing import charts
from serving_bench.reports.page.sections import (
    energy,
    latency,
    memory,
    quality,
    side_by_side,
    throughput,
    traffic,
    traffic_parts,
    trust,
    why,
)

SECTIONS: Mapping[str, Section] = {
    each.id: each
    for each in (
        Section("side", "Side by side", [side_by_side.VALUES]),
        Section(
            "frontier", "Throughput", [throughput.AGAINST, throughput.SEARCH], "Throughput against latency"
        ),
        Section("latency", "Latency", [latency.LATENCY]),
        Section(
            "traffic",
            "Traffic",
            [
                traffic_parts.CACHE,
                traffic.RATES,
                traffic_parts.DEPTHS,
                traffic_parts.ADAPTERS,
                traffic.VALIDITY,
                traffic.TASKS,
                traffic.THINKING,
                traffic.LEFT,
                traffic.BATCH,
                traffic.BURST,
            ],
        ),
        Section("memory", "Memory", [memory.HELD, memory.OVER_TIME]),
        Section("quality", "Quality", [quality.FIDELITY]),
        Section("cost", "Cost", [energy.ENERGY_AND_COST], "Cost and energy"),
        Section("why", "Why", [why.BOUNDS, why.DECODE, why.SPECULATION, why.TOLD]),
        Section("trust", "Trust", [trust.CHECKS, trust.GROUNDS, trust.AGAIN]),
    )
}


def sections_of(run: Run) -> dict[str, dict[str, charts.Section]]:
    """Return what each section shows of this run, by the ids of section and topic, without empty topics."""
    return {
        name: contents
        for name, section in SECTIONS.items()
        if (contents := {topic.id: content for topic in section.topics if (content := topic(run)).parts})
    }
