"""The page's sections in their order. Before them all stands the answer (answer.py)."""

from collections.abc import Mapping

from reports.data.run import Run
from reports.page.declared import Notes, Section, Topic
from reports.page.drawing import charts
from reports.page.sections import energy, latency, memory, side_by_side, throughput, trust, why

SECTIONS: Mapping[str, Section] = {
    each.id: each
    for each in (
        side_by_side.SECTION,
        throughput.SECTION,
        latency.SECTION,
        memory.SECTION,
        Section(
            "quality",
            "Quality",
            [Topic("kept", "Quality", [Notes("Not measured: a smaller quantization may answer worse.")])],
        ),
        energy.SECTION,
        why.SECTION,
        trust.SECTION,
    )
}


def sections_of(run: Run) -> dict[str, dict[str, charts.Section]]:
    """Return what each section has of this run, by the ids of sections and topics."""
    found = {
        name: {topic.id: made for topic in section.topics if (made := topic(run)).parts}
        for name, section in SECTIONS.items()
    }
    return {name: topics for name, topics in found.items() if topics}
