"""Reasons to distrust the page: what checks found, each with its remedy."""

from __future__ import annotations

from reports.charts import Section
from reports.checks import findings
from reports.frames import Run
from reports.markup import join, paragraph, plural, tag


def section(run: Run) -> Section | None:
    """Always there: that no check found anything is said, too."""
    found = findings(run)
    if not found:
        return Section("Reasons to distrust", paragraph("No check found one. That proves nothing yet."))
    items = [
        tag("li", join([tag("b", item.title), f": {item.text} ", tag("span", item.remedy, class_="fix")]))
        for item in found
    ]
    box = tag("div", tag("ul", *items), class_="why-box")
    return Section(f"{plural(len(found), 'reason')} to distrust these numbers", box)
