"""The page's sections in order, each of one or more topics. The answer stands before them."""

from dataclasses import replace

from serving_bench.reports.data import Run
from serving_bench.reports.page.parts import Section
from serving_bench.reports.page.sections import (
    energy,
    latency,
    memory,
    quality,
    race,
    side_by_side,
    throughput,
    traffic,
    traffic_parts,
    trust,
    why,
)


def sections_of(run: Run) -> list[Section]:
    """Return the sections of this run's page, without topics and sections that have nothing to show."""
    against = throughput.search(run) if run.record.search else throughput.against(run)
    of_traffic = [
        traffic_parts.cache(run),
        traffic.rates(run),
        traffic_parts.depths(run),
        traffic_parts.adapters(run),
        traffic.validity(run),
        *traffic.of_scenarios(run),
        traffic.batch(run),
        traffic.burst(run),
    ]
    of_why = [why.bounds(run), why.decode(run), why.speculation(run), why.reported(run)]
    of_trust = [trust.checks(run), trust.foundations(run), trust.again(run)]
    sections = [
        Section("race", "Race", [race.race(run)]),
        Section("side", "Side by side", [side_by_side.values(run)]),
        Section("frontier", "Throughput", [against], "Throughput against latency"),
        Section("latency", "Latency", [latency.latency(run)]),
        Section("traffic", "Traffic", of_traffic),
        Section("memory", "Memory", [memory.held(run), memory.course(run)]),
        Section("quality", "Quality", [quality.fidelity(run)]),
        Section("cost", "Cost", [energy.energy_and_cost(run)], "Cost and energy"),
        Section("why", "Why", of_why),
        Section("trust", "Trust", of_trust),
    ]
    shown = [replace(each, topics=list(filter(None, each.topics))) for each in sections]
    return [each for each in shown if each.topics]
