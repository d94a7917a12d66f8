"""What was asked for and not run, with each reason."""

from reports.data.run import Run
from reports.page.charts import Section
from reports.page.markup import table


def section(run: Run) -> Section | None:
    """None where nothing was skipped."""
    rows = [[skip.what, skip.reason] for skip in run.record.plan.skips]
    return Section("Skipped", table(["what", "why"], rows, "words", "Skipped")) if rows else None
