"""Cells and starts: missing, marked, too few, or unlike each other."""

from __future__ import annotations

from collections.abc import Iterator

from reports.cells import Cell
from reports.checks.finding import Finding, cell_name
from reports.frames import Run
from reports.markup import plural, several, shown

STARTS_DIFFER = 0.2


def cells_missing(run: Run) -> Iterator[Finding]:
    """Cells that failed, were interrupted or never measured."""
    missing = [cell for cell in run.planned_cells if cell.status != "completed"]
    if missing:
        yield Finding(
            "cells_missing",
            "Cells are missing",
            f"{len(missing)} of {plural(len(run.planned_cells), 'cell')} gave no values "
            f"({several([f'{cell_name(cell)}: {cell.status}' for cell in missing])}).",
            "See Errors for the reasons; bench run --resume measures them again.",
        )


def cells_marked(run: Run) -> Iterator[Finding]:
    """Cells that the run itself called suspect or invalid."""
    for kind in ("suspect", "invalid"):
        cells = [cell for cell in run.planned_cells if cell.validity == kind and _has_own_reason(cell)]
        if cells:
            reasons = [f"{cell_name(cell)}: {cell.reason or 'no reason given'}" for cell in cells]
            yield Finding(
                f"cells_{kind}",
                f"Cells are {kind}",
                f"{plural(len(cells), 'cell')} ({several(reasons)}).",
                "They are left out of the values." if kind == "invalid" else "They count, and are marked.",
            )


def _has_own_reason(cell: Cell) -> bool:
    """One beside what the guard saw, of which there are findings by cause."""
    if cell.record is None:
        return True
    seen = tuple(found.text for found in cell.record.guard)
    return not all(reason.startswith(seen) for reason in cell.record.reasons)


def requests_failed(run: Run) -> Iterator[Finding]:
    """Requests of the windows that failed: what is left may be the easy ones."""
    said = []
    for group in run.groups:
        sent = [run.window_requests(cell.number) for cell in group.counted]
        count = sum(int((frame["outcome"] != "ok").sum()) for frame in sent)
        total = sum(map(len, sent))
        if count:
            said.append(f"{group.deployment} at {group.load}: {count:,} of {total:,}")
    if said:
        yield Finding(
            "requests_failed",
            "Requests failed",
            f"{several(said)}; latencies are of the others.",
            "See Errors; a slow server that drops requests looks fast.",
        )


def single_repeat(run: Run) -> Iterator[Finding]:
    """One start per deployment: its luck is not told from its speed."""
    single = [group for group in run.groups if len(group.counted) == 1]
    others = {group.deployment for group in run.groups if len(group.counted) > 1}
    alone = [f"{g.deployment} at {g.load}" if g.deployment in others else g.deployment for g in single]
    if alone:
        yield Finding(
            "single_repeat",
            "A single start",
            f"{several(alone)} {'was' if len(set(alone)) == 1 else 'were'} measured on one start "
            "only; start-up "
            "luck and drift cannot be told from the engine.",
            "repeats=3 or more.",
        )
    if any(record.attached for record in run.start_records):
        yield Finding(
            "attached",
            "The server was not started by bench",
            "Repeats are blocks on one start, and its settings, load and memory are not known.",
            "Let bench start the engine.",
        )


def repeats_disagree(run: Run) -> Iterator[Finding]:
    """Starts of one deployment at one load whose values lie far apart."""
    said = []
    for group in run.groups:
        for name, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50 ms")):
            found = run.aggregate(group, name)
            if found.mean is None or found.low is None or found.high is None or found.k < 2:
                continue
            share = (found.high - found.low) / found.mean if found.mean else 0.0
            if share > STARTS_DIFFER:
                values = f"{shown(name, found.low)} to {shown(name, found.high)}"
                text = (
                    f"{group.deployment} at {group.load}: {title} {values} ({100 * share:.0f} % of the mean)"
                )
                said.append((share, text))
    if said:
        yield Finding(
            "repeats_disagree",
            "Starts disagree",
            f"{several([text for _, text in sorted(said, reverse=True)], '; ')}.",
            "More repeats, and a quiet machine.",
        )
