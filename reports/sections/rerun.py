"""How to run the same again."""

from __future__ import annotations

import shlex

from harness.contracts import masked_argv
from reports.answering.described import command
from reports.frames import Run
from reports.page.charts import Section
from reports.page.markup import join, paragraph, tag


def section(run: Run) -> Section | None:
    """The command that asks for the same settings, quoted for a shell."""
    given = tag("code", shlex.join(masked_argv(run.record.argv))) if run.record.argv else "not recorded"
    asked = tag("p", "Given as: ", given, class_="note")
    note = paragraph("The same settings and seed give the same conversations to every deployment.")
    return Section("Run it again", join([tag("pre", tag("code", command(run))), asked, note]))
