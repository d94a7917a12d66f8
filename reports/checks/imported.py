"""Whether bench measured a run itself."""

from collections.abc import Iterator

from reports.checks.finding import Seen, check
from reports.data import Run


@check(
    "Measured by another tool",
    "{}.",
    "bench run engine=openai engine.base_url=URL measures that server.",
    (),
    marks=True,
    is_at_name=True,
)
def measured_by_another_tool(run: Run) -> Iterator[Seen]:
    if source := run.record.foreign:
        origin = "Latencies count from the sending, under a schedule too"
        said = [source.words, *source.definitions, origin, f"Not in its files: {'; '.join(source.missing)}"]
        yield ". ".join(said), run.planned_cells
