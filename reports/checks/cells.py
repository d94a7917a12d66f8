"""Cells and starts: missing, marked, too few, or unlike each other."""

from collections.abc import Iterator

import pandas as pd

from reports.checks.finding import SPEED, TOKENS, Finding, are_all, cell_name, numbers
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate
from reports.measures.written import plural, several, shown
from reports.stats.family import STARTS_NEEDED

STARTS_DIFFER = 0.2


def cells_missing(run: Run) -> Iterator[Finding]:
    """Cells that failed, were interrupted or never measured."""
    to_come = ("in flight", "not measured") if run.is_going_on else ()
    missing = [cell for cell in run.planned_cells if cell.status not in ("completed", *to_come)]
    if missing:
        yield Finding(
            "cells_missing",
            "Cells are missing",
            f"{len(missing)} of {plural(len(run.planned_cells), 'cell')} gave no values "
            f"({several([f'{cell_name(cell)}: {cell.status}' for cell in missing])}).",
            "See Errors for the reasons; bench run --resume measures them again.",
            cells=numbers(missing),
            marks=False,
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
                cells=numbers(cells),
                marks=kind == "suspect",
            )


def _has_own_reason(cell: Cell) -> bool:
    """One beside what the guard saw, of which there are findings by cause."""
    if cell.record is None:
        return True
    seen = tuple(found.text for found in cell.record.guard)
    return not all(reason.startswith(seen) for reason in cell.record.reasons)


def requests_failed(run: Run) -> Iterator[Finding]:
    """Requests of the windows that failed: what is left may be the easy ones."""
    said, touched = [], []
    for group in run.groups:
        sent = [run.window_requests(cell.number) for cell in group.counted]
        count = sum(_failed(frame) for frame in sent)
        total = sum(map(len, sent))
        if count:
            said.append(f"{group.deployment} at {group.load}: {count:,} of {total:,}")
            touched += [cell for cell, frame in zip(group.counted, sent, strict=True) if _failed(frame)]
    if said:
        yield Finding(
            "requests_failed",
            "Requests failed",
            f"{several(said)}; latencies are of the others.",
            "See Errors; a slow server that drops requests looks fast. load.timeout=300s, or a lower load.",
            cells=numbers(touched),
            metrics=(*SPEED, "success_share"),
        )


def _failed(sent: pd.DataFrame) -> int:
    return int((sent["outcome"] != "ok").sum())


def single_repeat(run: Run) -> Iterator[Finding]:
    """Fewer starts of a deployment than a verdict needs: their luck is not told from its speed."""
    starts = {group.key: _starts(run, group) for group in run.groups}
    few = [group for group in run.groups if 0 < starts[group.key] < STARTS_NEEDED]
    if few:
        others = {group.deployment for group in run.groups if starts[group.key] >= STARTS_NEEDED}
        names = [f"{g.deployment} at {g.load}" if g.deployment in others else g.deployment for g in few]
        is_single = all(starts[group.key] == 1 for group in few)
        number = "one start only" if is_single else f"fewer than {STARTS_NEEDED} starts"
        cells = numbers(cell for group in few for cell in group.counted)
        yield Finding(
            "single_repeat",
            "A single start" if is_single else "Few starts",
            f"{several(names)} {'was' if len(set(names)) == 1 else 'were'} measured on {number}; start-up "
            "luck and drift cannot be told from the engine, and no verdict is given.",
            f"repeats={STARTS_NEEDED} or more.",
            cells=cells,
            marks=not are_all(run, cells),
            compares=True,
        )
    if any(record.attached for record in run.start_records):
        yield Finding(
            "attached",
            "The server was not started by bench",
            "Repeats are blocks on one start, and its settings, load and memory are not known.",
            "Let bench start the engine: engine=NAME without engine.base_url.",
            marks=False,
            compares=True,
        )


def _starts(run: Run, group: Group) -> int:
    """How many starts a group's values come from; in a search, where each start tries other loads, how many
    its deployment has."""
    if run.record.search is None:
        return len(group.counted)
    own = [g for g in run.groups if (g.deployment, g.scenario) == (group.deployment, group.scenario)]
    return len({cell.planned.repeat for each in own for cell in each.counted}) if group.counted else 0


def repeats_disagree(run: Run) -> Iterator[Finding]:
    """Starts of one deployment at one load whose values lie far apart; a finding for each metric."""
    for name, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50 ms")):
        spreads = [(_spread(run, group, name), group) for group in run.groups]
        found = sorted((pair for pair in spreads if pair[0] > STARTS_DIFFER), key=lambda pair: -pair[0])
        metric = name.partition(".")[0]
        if found:
            said = [_told_apart(run, group, name, title, share) for share, group in found]
            yield Finding(
                f"repeats_disagree_{metric}",
                "Starts disagree",
                f"{several(said, '; ')}.",
                "More repeats, and a quiet machine; until=ci:5% repeats until the interval is narrow.",
                cells=numbers(cell for _, group in found for cell in group.counted),
                metrics=TOKENS if metric in TOKENS else (metric,),
            )


def _spread(run: Run, group: Group, name: str) -> float:
    """The range of the starts' values as a share of their mean; 0 where there is none."""
    found = aggregate(run, group, name)
    if found.mean is None or found.low is None or found.high is None:
        return 0.0
    return (found.high - found.low) / found.mean if found.mean else 0.0


def _told_apart(run: Run, group: Group, name: str, title: str, share: float) -> str:
    found = aggregate(run, group, name)
    values = f"{shown(name, found.low)} to {shown(name, found.high)}"
    return f"{group.deployment} at {group.load}: {title} {values} ({100 * share:.0f} % of the mean)"
