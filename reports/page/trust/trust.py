"""Trust: what checks found, and what a reader needs to believe the numbers or to measure them again.

The checks are open; each other part is a line that says what it comes to, and opens.
"""

import shlex
from collections import Counter
from typing import Any

import pandas as pd

from harness.contracts import masked, masked_argv
from reports.checks.examine import SIGN, examine, findings_of
from reports.checks.finding import Finding
from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.written import NOTHING, number, plural, several
from reports.page.drawing.charts import Section
from reports.page.listed import fold, of_cells, tabled
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, details, macro, paragraph, tag
from reports.page.trust.client import client_part, steadiness_part
from reports.page.trust.servers import fairness_part, machine_part, method_part, servers_part
from reports.words.described import command

# Heading, and what it means, of findings that mark a number and of all others.
_MARKS = "Numbers that bear a mark", f"The values of these cells are marked {SIGN} wherever they are shown."
_NO_MARKS = "To know", "Reasons to look twice, worst first; no number is marked for them."
_GUARD_MEANS = {
    "mark": "A cell on an unfit machine is measured, and suspect.",
    "strict": "A cell on an unfit machine is refused; one whose window was disturbed is invalid.",
}
_LOOKS_FOR = (
    "It looks for other processes on the device, memory that is not free again, throttling, low clocks, a "
    "lost device, other programs or guests on the processor, swapping, a full disk, few open files."
)
_RESETS = {
    "reset": "emptied, and checked",
    "unchecked": "emptied, not checked",
    "failed": "not emptied",
    "none": "left as it was",
}


def checks(run: Run) -> Section:
    """Return what checks found, worst first, and what they did not find."""
    found, clean = findings_of(run), [what for what, seen in examine(run).items() if not seen]
    title = f"{plural(len(found), 'reason')} to distrust, {plural(len(clean), 'check')} found nothing"
    items = [(each.marks, macro("reason", each, each.text, _where(run, each))) for each in found]
    kinds = [
        (*words, [item for marks, item in items if marks == wanted])
        for wanted, words in ((True, _MARKS), (False, _NO_MARKS))
    ]
    return Section(title, parts=[macro("checks", kinds, clean)])


def _where(run: Run, finding: Finding) -> str:
    """Return the numbers of its cells, where they are not all of the run."""
    total, numbers = len(run.planned_cells), [f"{cell:03d}" for cell in finding.cells]
    return f"Cells {several(numbers)} of {total}." if 0 < len(numbers) < total else ""


def grounds(run: Run) -> Section:
    """Return what the numbers rest on: each part is a line that says what it comes to, and opens."""
    parts = (
        fairness_part(run),
        client_part(run),
        steadiness_part(run),
        _failures_part(run),
        _cells_part(run),
        _starts_part(run),
        _skipped_part(run),
        machine_part(run),
        servers_part(run),
        method_part(),
    )
    return Section("What the numbers rest on", parts=[part for part in parts if part])


def rerun(run: Run) -> Section:
    """Return the command that asks for the same settings, quoted for a shell."""
    given = tag("code", shlex.join(masked_argv(run.record.argv))) if run.record.argv else "not recorded"
    note = paragraph("The same settings and seed give the same conversations to every deployment.")
    asked = tag("p", "Given as: ", given, class_="note")
    return Section("Run it again", parts=[tag("pre", tag("code", command(run))), asked, note])


# --- what failed, and how it was measured ----------------------------------------------------------


def _failures_part(run: Run) -> Html:
    """Return the requests that failed, by their kinds, with what they said; that none did is said, too."""
    of = {cell.number: Of(cell.label, cell.load_label) for cell in run.planned_cells}
    failed = run.requests[run.requests["outcome"] != "ok"]
    kinds: list[tuple[Any, pd.DataFrame]] = list(
        failed.groupby([failed["cell"].map(of), "outcome"], sort=False)
    )
    table = tabled(
        "Failures",
        {
            "deployment": lambda kind: kind[0][0].deployment,
            "load": lambda kind: kind[0][0].load,
            "kind": lambda kind: kind[0][1],
            "in the window": lambda kind: f"{int(kind[1]['in_window'].fillna(False).sum()):,}",
            "in all": lambda kind: f"{len(kind[1]):,}",
            "most frequent message": lambda kind: _most_frequent(kind[1]["error"]),
        },
        kinds,
        lambda kind: kind[0][0],
        "words",
    )
    claim = f"{plural(len(failed), 'request')}, left out of every latency" if kinds else "no request failed"
    return fold("errors", "Failures", claim, table)


def _most_frequent(messages: pd.Series) -> Html | str:
    counts = messages.value_counts()
    return tag("code", masked(str(counts.index[0]))[:300]) if len(counts) else NOTHING


def _cells_part(run: Run) -> Html | None:
    """Return the cells that failed or are in doubt, with what the guard saw and what was left in the prefix
    cache before them. None if no cell came so far."""
    records = [cell.record for cell in run.planned_cells if cell.record]
    stories = [(cell, _story(cell)) for cell in run.planned_cells]
    told = [(cell, story) for cell, story in stories if story != ("valid", "", "")]
    modes = dict.fromkeys(record.guard_mode for record in records if record.guard_mode)
    guard = [f"guard={mode}. {_GUARD_MEANS.get(mode, '')}" for mode in modes]
    looked = " ".join([*guard, _LOOKS_FOR] if guard else ["Nobody looked whether the machine was fit."])
    resets = Counter(record.cache_reset.how for record in records if record.cache_reset)
    caches = ", ".join(f"{_RESETS[how]} before {plural(count, 'cell')}" for how, count in resets.items())
    table = of_cells(
        "Cells",
        told,
        {
            "status": lambda pair: pair[1][0],
            "reason": lambda pair: pair[0].reason or NOTHING,
            "what the guard saw": lambda pair: pair[1][1],
            "prefix cache before it": lambda pair: pair[1][2],
        },
    )
    claim = f"{len(told) or 'none'} of {len(stories)} failed or in doubt"
    said = (looked, f"Prefix cache: {caches}." if caches else "")
    return fold("cells", "Cells", claim, *said, table) if records else None


def _story(cell: Cell) -> tuple[str, str, str]:
    """Return what became of a cell, what the guard saw, and why the prefix cache may not have been empty."""
    status = cell.validity if cell.status == "completed" else cell.status
    record = cell.record
    seen = "; ".join(f"{each.text} ({each.when})" for each in record.guard) if record else ""
    reset = record.cache_reset if record else None
    left = f"{_RESETS[reset.how]}: {reset.note or NOTHING}" if reset and reset.how != "reset" else ""
    return status, seen, left


def _starts_part(run: Run) -> Html | None:
    """Return the starts in the order in which they ran, and the end of the log of those that failed."""
    ordered = sorted(run.start_records, key=lambda record: record.spawned_ns or 0)
    if not ordered:
        return None
    zero_ns = ordered[0].spawned_ns or 0
    table = tabled(
        "Order of the starts",
        {
            "start": lambda record: record.name,
            "deployment": lambda record: named(looks(run)[record.deployment.label]),
            "repeat": lambda record: start_title(run, record),
            "began, minutes": lambda record: number(((record.spawned_ns or zero_ns) - zero_ns) / 60e9, 1),
            "status": lambda record: record.status,
            "error": lambda record: record.error or "",
        },
        ordered,
        lambda record: Of(record.deployment.label, start=record.repeat + 1),
        "words",
    )
    failed = [record for record in ordered if record.error or record.status == "failed"]
    logs = [
        details(f"End of the log of {each.name}", tag("pre", each.log_tail))
        for each in failed
        if each.log_tail
    ]
    how = "interleaved" if len({record.repeat for record in ordered}) > 1 else "one after the other"
    claim = f"{plural(len(ordered), 'start')}, {how}" + (f"; {len(failed)} failed" if failed else "")
    note = "Each repeat is a new start; whether values depend on their turn is a check."
    return fold("order", "Starts in their order", claim, note, table, *logs)


def _skipped_part(run: Run) -> Html | None:
    skips = run.record.plan.skips
    columns = {"what": lambda skip: skip.what, "why": lambda skip: skip.reason}
    table = tabled("Not run", columns, skips, look="words")
    return fold("skipped", "Not run", plural(len(skips), "combination"), table) if skips else None
