"""Errors: requests that failed, by kind, and the starts and cells that failed, with what they said."""

from harness.contracts import masked
from reports.data.run import Run
from reports.measures.written import NOTHING
from reports.page.charts import Section
from reports.page.markup import Html, Of, Row, details, join, paragraph, table, tag, text


def section(run: Run) -> Section | None:
    """Always there: that nothing failed is said, too."""
    parts = [*_requests(run), *_cells(run), *_starts(run)]
    return Section("Errors", join(parts) if parts else paragraph("No request, cell or start failed."))


def _requests(run: Run) -> list[Html]:
    labels = {cell.number: cell for cell in run.planned_cells}
    failed = run.requests[run.requests["outcome"] != "ok"]
    if failed.empty:
        return []
    keyed = failed.assign(
        deployment=[labels[number].label for number in failed["cell"]],
        load=[labels[number].load_label for number in failed["cell"]],
    )
    rows: list[Row] = []
    for (deployment, load, outcome), group in keyed.groupby(["deployment", "load", "outcome"], sort=False):
        inside = int(group["in_window"].fillna(False).astype(bool).sum())
        messages = group["error"].dropna().map(masked).value_counts()
        example = messages.index[0] if len(messages) else NOTHING
        more = f" (and {len(messages) - 1} other messages)" if len(messages) > 1 else ""
        example = join([tag("code", str(example)[:300]), more])
        found: list[Html | str] = [
            str(deployment),
            str(load),
            str(outcome),
            f"{inside:,}",
            f"{len(group):,}",
            example,
        ]
        rows.append(Row(found, Of(str(deployment), str(load))))
    columns = ["deployment", "load", "kind", "in the window", "in all", "most frequent message"]
    note = paragraph("Failed requests are left out of every latency.")
    return [tag("h3", "Requests"), table(columns, rows, "words", "Errors of requests"), note]


def _cells(run: Run) -> list[Html]:
    rows = [
        Row(
            [f"{c.number:03d}", c.label, c.load_label, str(c.planned.repeat + 1), c.status, text(c.reason)],
            Of(c.label, c.load_label, start=c.planned.repeat + 1),
        )
        for c in run.planned_cells
        if c.status != "completed"
    ]
    columns = ["cell", "deployment", "load", "start", "status", "reason"]
    return [tag("h3", "Cells"), table(columns, rows, "words", "Errors of cells")] if rows else []


def _starts(run: Run) -> list[Html]:
    failed = [record for record in run.start_records if record.error or record.status == "failed"]
    parts = [
        join(
            [
                paragraph(f"{record.name}: {record.error or record.status}", "plain-text"),
                details("End of the server's log", tag("pre", record.log_tail)) if record.log_tail else "",
            ]
        )
        for record in failed
    ]
    return [tag("h3", "Starts"), *parts] if parts else []
