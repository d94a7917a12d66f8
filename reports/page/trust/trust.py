"""Trust: what checks found, and what a reader needs to believe the numbers or to measure them again.

The checks are open; each other part is a line that says what it comes to, and opens.
"""

import shlex
from collections.abc import Sequence

from harness.contracts import CacheReset, masked, masked_argv
from reports.checks.examine import SIGN, examine, findings_of
from reports.checks.finding import Finding
from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.written import NOTHING, number, plural, several
from reports.page.drawing.charts import Block, Part, Section
from reports.page.listed import fold, listed, tabled
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, details, join, paragraph, tag
from reports.page.trust.client import client_part, own_error_part, steadiness_part
from reports.page.trust.fairness import fairness_part
from reports.page.trust.machine import machine_part, method_part, servers_part
from reports.words.described import command

# Heading, what it means, and which findings stand there; each stands in the first that fits.
_GROUPS = (
    ("Numbers that bear a mark", f"The values of these cells are marked {SIGN} wherever they are shown."),
    ("To know", "Reasons to look twice, worst first; no number is marked for them."),
)
# More cells than these are told by their number alone.
_CELLS_AT_MOST = 12
_LOOKS_FOR = (
    "other processes on the device, memory that is not free again, throttling, low clocks, a lost device, "
    "other programs or other guests of the host on the processor, swapping, a full disk, few open files"
)
_GUARD_MEANS = {
    "mark": "A cell on an unfit machine is measured, and suspect.",
    "strict": "A cell on an unfit machine is refused; one whose window was disturbed is invalid.",
}
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
    return Section(title, parts=[_checks(run, found), _clean(clean)])


def grounds(run: Run) -> Section:
    """Return what the numbers rest on: each part is a line that says what it comes to, and opens."""
    parts = (
        fairness_part(run),
        own_error_part(run),
        client_part(run),
        steadiness_part(run),
        _errors_part(run),
        _guard_part(run),
        _resets_part(run),
        _order_part(run),
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


# --- checks ----------------------------------------------------------------------------------------


def _checks(run: Run, found: Sequence[Finding]) -> Html:
    parts = [
        part
        for number, (title, meaning) in enumerate(_GROUPS)
        if (own := [each for each in found if each.marks == (number == 0)])
        for part in (
            tag("h3", f"{title} ({len(own)})"),
            paragraph(meaning),
            tag("ul", *(_item(run, each) for each in own)),
        )
    ]
    nothing = paragraph("No check found a reason to distrust these numbers. That proves nothing yet.")
    return tag("div", *parts, class_="why-box") if parts else nothing


def _item(run: Run, finding: Finding) -> Html:
    """Return a finding; its place is what a mark links to."""
    where = f" {_where(run, finding)}".rstrip()
    said = (tag("b", finding.title), f": {finding.text} ", tag("span", finding.remedy, class_="fix"))
    return tag("li", *said, tag("span", where, class_="where"), id=f"distrust-{finding.check}")


def _where(run: Run, finding: Finding) -> str:
    """Return the numbers of its cells, where they are not all of the run."""
    count, total = len(finding.cells), len(run.planned_cells)
    if not count or count == total:
        return ""
    if count > _CELLS_AT_MOST:
        return f"{count} of {plural(total, 'cell')}."
    word = "Cell" if count == 1 else "Cells"
    return f"{word} {', '.join(f'{number:03d}' for number in finding.cells)} of {total}."


def _clean(clean: Sequence[str]) -> Html:
    items = tag("ul", *(tag("li", looked_for) for looked_for in clean), class_="clean")
    note = "As far as the run recorded what each check needs."
    return details(f"Looked for and not found: {plural(len(clean), 'reason')}", items, paragraph(note))


# --- what failed -----------------------------------------------------------------------------------


def _of(cell: Cell) -> Of:
    return Of(cell.label, cell.load_label, start=cell.planned.repeat + 1)


def _errors_part(run: Run) -> Html:
    """Return requests, cells and starts that failed, with what they said; that none did is said, too."""
    cells = [cell for cell in run.planned_cells if cell.status != "completed"]
    starts = [record for record in run.start_records if record.error or record.status == "failed"]
    requests = int((run.requests["outcome"] != "ok").sum())
    counts = {"request": requests, "cell": len(cells), "start": len(starts)}
    claim = ", ".join(plural(count, word) for word, count in counts.items() if count)
    logs = [
        join(
            [
                paragraph(f"{record.name}: {record.error or record.status}", "plain-text"),
                details("End of the server's log", tag("pre", record.log_tail)) if record.log_tail else "",
            ]
        )
        for record in starts
    ]
    of_cells = listed(
        "Cells",
        "",
        {
            "cell": lambda cell: f"{cell.number:03d}",
            "deployment": lambda cell: cell.label,
            "load": lambda cell: cell.load_label,
            "start": lambda cell: str(cell.planned.repeat + 1),
            "status": lambda cell: cell.status,
            "reason": lambda cell: cell.reason or NOTHING,
        },
        cells,
        _of,
        "words",
    )
    of_starts = [Block("Starts", logs)] if logs else []
    content = [*_failed_requests(run), *of_cells, *of_starts]
    return fold("errors", "Failures", claim or "no request, cell or start failed", *content)


def _failed_requests(run: Run) -> list[Part]:
    cells = {cell.number: cell for cell in run.planned_cells}
    failed = run.requests[run.requests["outcome"] != "ok"]
    keyed = failed.assign(
        deployment=failed["cell"].map(lambda at: cells[at].label),
        load=failed["cell"].map(lambda at: cells[at].load_label),
        inside=failed["in_window"].fillna(False).astype(bool),
        said=failed["error"].map(masked, na_action="ignore"),
    )
    return listed(
        "Requests",
        "Failed requests are left out of every latency.",
        {
            "deployment": lambda pair: pair[0][0],
            "load": lambda pair: pair[0][1],
            "kind": lambda pair: pair[0][2],
            "in the window": lambda pair: f"{int(pair[1]['inside'].sum()):,}",
            "in all": lambda pair: f"{len(pair[1]):,}",
            "most frequent message": lambda pair: _most_frequent(pair[1]["said"].value_counts()),
        },
        [
            (tuple(map(str, key)), own)
            for key, own in keyed.groupby(["deployment", "load", "outcome"], sort=False)
        ],
        lambda pair: Of(pair[0][0], pair[0][1]),
        "words",
    )


def _most_frequent(messages: object) -> Html | str:
    texts = list(getattr(messages, "index", ()))
    if not texts:
        return NOTHING
    more = f" (and {len(texts) - 1} other messages)" if len(texts) > 1 else ""
    return join([tag("code", str(texts[0])[:300]), more])


def _skipped_part(run: Run) -> Html | None:
    skips = run.record.plan.skips
    columns = {"what": lambda skip: skip.what, "why": lambda skip: skip.reason}
    table = tabled("Not run", columns, skips, look="words")
    return fold("skipped", "Not run", plural(len(skips), "combination"), table) if skips else None


# --- how it was measured ---------------------------------------------------------------------------


def _guard_part(run: Run) -> Html | None:
    """Return what the guard found. None if no cell came so far."""
    begun = [cell for cell in run.planned_cells if cell.record]
    looked = [cell for cell in begun if cell.record and cell.record.guard_mode is not None]
    if not looked:
        claim = "nobody looked whether the machine was fit (guard=off, or no cell came so far)"
        return fold("guard", "The guard", claim) if begun else None
    found = [(cell, each) for cell in begun if cell.record for each in cell.record.guard]
    modes = list(dict.fromkeys(cell.record.guard_mode for cell in looked if cell.record))
    touched = len({cell.number for cell, _ in found})
    claim = f"looked at {plural(len(looked), 'cell')}, {touched or 'none'} had something to report"
    means = " ".join(_GUARD_MEANS[mode] for mode in modes if mode in _GUARD_MEANS)
    table = tabled(
        "Guard",
        {
            "cell": lambda pair: f"{pair[0].number:03d}",
            "deployment": lambda pair: pair[0].label,
            "load": lambda pair: pair[0].load_label,
            "start": lambda pair: str(pair[0].planned.repeat + 1),
            "when": lambda pair: pair[1].when,
            "what": lambda pair: pair[1].text,
        },
        found,
        lambda pair: _of(pair[0]),
        "words",
    )
    said = f"guard={' and '.join(map(str, modes))}. {means} It looks for {_LOOKS_FOR}."
    return fold("guard", "The guard", claim, paragraph(said), *([table] if found else []))


def _resets_part(run: Run) -> Html | None:
    """Return how the prefix cache was emptied before each cell, so that none finds prompts of another."""
    found: dict[tuple[str, str, str | None], list[tuple[Cell, CacheReset]]] = {}
    for cell in sorted(run.planned_cells, key=lambda cell: list(run.deployments).index(cell.label)):
        if cell.record and (reset := cell.record.cache_reset):
            found.setdefault((cell.label, reset.how, reset.note), []).append((cell, reset))
    if not found:
        return None
    table = tabled(
        "Prefix cache before each cell",
        {
            "deployment": lambda pair: named(looks(run)[pair[0][0]]),
            "prefix cache": lambda pair: _RESETS[pair[0][1]],
            "cells": lambda pair: _which(run, pair[1]),
            "cached after it": lambda pair: _cached(pair[1]),
            "why": lambda pair: pair[0][2] or NOTHING,
        },
        list(found.items()),
        lambda pair: Of(pair[0][0]),
        "words",
    )
    hows = dict.fromkeys(_RESETS[how] for _, how, _ in found)
    note = (
        "Checked: a prompt that was cached before is sent once more after the reset, and was read again; "
        "beside it how much of it was cached then."
    )
    return fold("resets", "Prefix cache before each cell", "; ".join(hows), paragraph(note), table)


def _which(run: Run, each: Sequence[tuple[Cell, CacheReset]]) -> str:
    label = each[0][0].label
    of_all = sum(cell.label == label and cell.record is not None for cell in run.planned_cells)
    numbers = [f"{cell.number:03d}" for cell, _ in each]
    return f"all {of_all}" if len(each) == of_all else several(numbers)


def _cached(each: Sequence[tuple[Cell, CacheReset]]) -> str:
    """Return the most that a probe found, of its tokens."""
    known = [
        (reset.cached_tokens, reset.prompt_tokens)
        for _, reset in each
        if reset.cached_tokens is not None and reset.prompt_tokens is not None
    ]
    cached, of = max(known, key=lambda pair: pair[0] / max(pair[1], 1), default=(None, 0))
    return NOTHING if cached is None else f"{cached:,} of {of:,} tokens"


def _order_part(run: Run) -> Html | None:
    """Return the starts in the order in which they ran."""
    ordered = sorted(run.start_records, key=lambda record: record.spawned_ns or 0)
    if len(ordered) < 2:
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
        },
        ordered,
        lambda record: Of(record.deployment.label, start=record.repeat + 1),
        "words",
    )
    repeats = len({record.repeat for record in ordered})
    note = paragraph("Each repeat is a new start; whether values depend on their turn is a check.")
    how = "interleaved" if repeats > 1 else "one after the other"
    return fold("order", "Order", f"{len(ordered)} starts, {how}", note, table)
