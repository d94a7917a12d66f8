"""Reasons to distrust the page: what checks found, each with its remedy, and what they found in order."""

from collections.abc import Sequence

from reports.checks.examine import SIGN, examine, findings_of
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.measures.written import plural
from reports.page.charts import Section
from reports.page.markup import Html, details, join, paragraph, tag

# Heading, what it means, and which findings stand there; each stands in the first that fits.
_GROUPS = (
    ("Numbers that bear a mark", f"The values of these cells are marked {SIGN} wherever they are shown."),
    ("To know", "Reasons to look twice, worst first; no number is marked for them."),
)
# More cells than these are told by their number alone.
CELLS_AT_MOST = 12


def section(run: Run) -> Section | None:
    """Always there: that no check found anything is said, too."""
    found = findings_of(run)
    parts = [
        part
        for number, (title, meaning) in enumerate(_GROUPS)
        if (own := [each for each in found if _group(each) == number])
        for part in (tag("h3", f"{title} ({len(own)})"), paragraph(meaning), _list(run, own))
    ]
    nothing = paragraph("No check found one. That proves nothing yet.")
    box = tag("div", *parts, class_="why-box") if parts else nothing
    return Section("Checks", join([box, _not_found(run)]))


def _group(finding: Finding) -> int:
    return 0 if finding.marks else 1


def _list(run: Run, found: Sequence[Finding]) -> Html:
    return tag("ul", *(_item(run, each) for each in found))


def _item(run: Run, finding: Finding) -> Html:
    """Its place is what a mark links to."""
    said: list[Html | str] = [
        tag("b", finding.title),
        f": {finding.text} ",
        tag("span", finding.remedy, class_="fix"),
    ]
    if where := _where(run, finding):
        said += [" ", tag("span", where, class_="where")]
    return tag("li", *said, id=f"distrust-{finding.check}")


def _where(run: Run, finding: Finding) -> str:
    """The numbers of its cells, where they are not all of the run."""
    count, total = len(finding.cells), len(run.planned_cells)
    if not count or count == total:
        return ""
    if count > CELLS_AT_MOST:
        return f"{count} of {plural(total, 'cell')}."
    word = "Cell" if count == 1 else "Cells"
    return f"{word} {', '.join(f'{number:03d}' for number in finding.cells)} of {total}."


def _not_found(run: Run) -> Html:
    """What checks looked for and did not find, so that a reader sees that somebody looked."""
    clean = [looked_for for looked_for, found in examine(run).items() if not found]
    note = "As far as the run recorded what each check needs; see Method, and the section that shows it."
    items = tag("ul", *(tag("li", looked_for) for looked_for in clean), class_="clean")
    return details(f"Looked for and not found: {plural(len(clean), 'reason')}", items, paragraph(note))
