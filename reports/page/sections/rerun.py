"""How to run the same again."""

import shlex

from harness.contracts import masked_argv
from reports.data.run import Run
from reports.page.charts import Section
from reports.page.markup import join, paragraph, tag
from reports.words.described import command


def section(run: Run) -> Section | None:
    """The command that asks for the same settings, quoted for a shell."""
    given = tag("code", shlex.join(masked_argv(run.record.argv))) if run.record.argv else "not recorded"
    asked = tag("p", "Given as: ", given, class_="note")
    note = paragraph("The same settings and seed give the same conversations to every deployment.")
    return Section("Run it again", join([tag("pre", tag("code", command(run))), asked, note]))
