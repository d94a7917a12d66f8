"""What is wrong with the cells that a table's row comes from: marks in words, their reasons in tooltips."""

from __future__ import annotations

from reports.cells import Group
from reports.frames import Run
from reports.launches import start_title
from reports.page.markup import Html, join, tag

LEGEND = "▲ suspect, ✕ invalid or failed, ≠ other prompts."


def cell_marks(run: Run, group: Group) -> Html:
    said: list[Html] = []
    if why := run.work.per_token_only.get(group.key):
        said.append(_mark("▲", "per-token figures only", why, "warn"))
    for cell in group.cells:
        record = run.start_of(cell)
        start = start_title(run, record) if record else str(cell.planned.repeat + 1)
        if cell.status != "completed":
            said.append(_mark("✕", f"start {start} {cell.status}", cell.reason, "bad"))
        elif cell.validity != "valid":
            sign, kind = ("▲", "warn") if cell.validity == "suspect" else ("✕", "bad")
            said.append(_mark(sign, f"start {start} {cell.validity}", cell.reason, kind))
    return join(list(dict.fromkeys(said)))


def _mark(sign: str, words: str, reason: str | None, kind: str) -> Html:
    return tag("span", f"{sign} {words}", title=reason or words, class_=f"said {kind}")


def starts_that_count(group: Group) -> str:
    """`1 of 2`: the starts whose cells are in a row's values; a search may have several windows of each."""
    counted, all_of_them = ({cell.planned.repeat for cell in cells} for cells in (group.counted, group.cells))
    return f"{len(counted)} of {len(all_of_them)}"
