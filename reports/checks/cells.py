"""Reasons to distrust cells and their starts: missing, marked, failed or cut requests, too few, or unlike."""

import math

import numpy as np

from reports.checks.finding import (
    RATES,
    SPEED,
    TOKENS,
    Finding,
    Seen,
    cell_name,
    drift_text,
    found,
    measured_cells,
)
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate, by_start, withheld
from reports.measures.written import plural, several, shown
from reports.stats.drift import start_drifts
from reports.stats.family import STARTS_NEEDED

# Of the requests of a group, so many lost or cut make its numbers of other work than was asked for.
LOST_SHARE = 0.01
STARTS_DIFFER = 0.2


# --- cells and requests ----------------------------------------------------------------------------


def cells_missing(run: Run) -> list[Finding]:
    """Find cells that failed, were interrupted or never measured."""
    to_come = ("in flight", "not measured") if run.is_going_on else ()
    missing = [cell for cell in run.planned_cells if cell.status not in ("completed", *to_come)]
    return found(
        "cells_missing",
        "Cells are missing",
        f"{len(missing)} of {plural(len(run.planned_cells), 'cell')} gave no values ({{}}).",
        "See Errors for the reasons; bench run --resume measures them again.",
        [(f"{cell_name(cell)}: {cell.status}", [cell]) for cell in missing],
        (),
    )


def cells_marked(run: Run) -> list[Finding]:
    """Find cells that the run itself called suspect or invalid, by more than what the guard saw."""
    findings = []
    for kind in ("invalid", "suspect"):
        cells = [cell for cell in run.planned_cells if cell.validity == kind and _has_own_reason(cell)]
        is_invalid = kind == "invalid"
        findings += found(
            f"cells_{kind}",
            f"Cells are {kind}",
            f"{plural(len(cells), 'cell')} ({{}}).",
            "They are left out of the values." if is_invalid else "They count; look at the reasons.",
            [(f"{cell_name(cell)}: {cell.reason or 'no reason given'}", [cell]) for cell in cells],
            (),
            marks=is_invalid,
        )
    return findings


def _has_own_reason(cell: Cell) -> bool:
    if cell.record is None:
        return True
    seen = tuple(each.text for each in cell.record.guard)
    return not all(reason.startswith(seen) for reason in cell.record.reasons)


def requests_failed(run: Run) -> list[Finding]:
    """Find failed requests: what is left may be the easy ones."""
    seen, many = list[Seen](), list[Seen]()
    for group in run.groups:
        sent = {cell.number: run.window_requests(cell.number) for cell in group.counted}
        failed = {number: int((frame["outcome"] != "ok").sum()) for number, frame in sent.items()}
        count, total = sum(failed.values()), sum(map(len, sent.values()))
        if count:
            said = f"{group.deployment} at {group.load}: {count:,} of {total:,}"
            case = (said, [cell for cell in group.counted if failed[cell.number]])
            (many if count >= LOST_SHARE * total else seen).append(case)
    return found(
        "requests_failed",
        "Requests failed",
        "{}; latencies are of the others.",
        "See Errors; a slow server that drops requests looks fast. load.timeout=300s, or a lower load.",
        _lost(many, seen),
        (*SPEED, "success_share"),
        marks=bool(many),
    )


def answers_cut(run: Run) -> list[Finding]:
    """Find answers that ended before the length asked for: the context was full, or the engine stopped though
    it was told not to."""
    seen, many = list[Seen](), list[Seen]()
    for group in run.groups:
        full = stopped = total = 0
        cut = []
        for cell in group.counted:
            ok = run.ok_requests(cell.number, "token_source", "output_tokens", "max_tokens", "finish_reason")
            ok = ok[ok["token_source"] == "server"]
            # A server that leaves the end-of-sequence token out counts one fewer.
            is_short = (ok["output_tokens"] < ok["max_tokens"] - 1).fillna(False).astype(bool)
            is_full = is_short & (ok["finish_reason"] == "length")
            start = run.start_of(cell)
            is_stopped = is_short & ~is_full & bool(start and start.forces_length)
            full, stopped, total = full + int(is_full.sum()), stopped + int(is_stopped.sum()), total + len(ok)
            cut += [cell] if (is_full | is_stopped).any() else []
        ends = [(full, "by `length`, as where the context is full"), (stopped, "of themselves")]
        if words := [f"{count:,} {how}" for count, how in ends if count]:
            said = f"{group.deployment} at {group.load}: {' and '.join(words)}, of {total:,} answers"
            (many if full + stopped >= LOST_SHARE * total else seen).append((said, cut))
    return found(
        "answers_cut",
        "Answers were cut short",
        "Ended before the length asked for: {}. Shorter answers look faster.",
        "A longer engine.context_length, or shorter conversations (scenario.turns, scenario.output_tokens).",
        _lost(many, seen),
        ("e2e_s", "slo_share", *RATES),
        marks=bool(many),
    )


def _lost(many: list[Seen], few: list[Seen]) -> list[Seen]:
    """Return all cases, those that lost many first; of the others no cell is marked beside such a one."""
    return [*many, *((said, ()) for said, _ in few)] if many else few


# --- starts ----------------------------------------------------------------------------------------


def single_repeat(run: Run) -> list[Finding]:
    """Find deployments with fewer starts than a verdict needs: their luck is not told from their speed."""
    starts = {group.key: _starts(run, group) for group in run.groups}
    few = [group for group in run.groups if 0 < starts[group.key] < STARTS_NEEDED]
    others = {group.deployment for group in run.groups if starts[group.key] >= STARTS_NEEDED}
    names = [f"{g.deployment} at {g.load}" if g.deployment in others else g.deployment for g in few]
    is_single = all(starts[group.key] == 1 for group in few)
    count = "one start only" if is_single else f"fewer than {STARTS_NEEDED} starts"
    were = "was" if len(set(names)) == 1 else "were"
    return found(
        "single_repeat",
        "A single start" if is_single else "Few starts",
        f"{several(names)} {were} measured on {count}; start-up luck and drift cannot be told from the "
        "engine, and no verdict is given.",
        "repeats=5 or more, which can tell a difference of 10 %.",
        [("", group.counted) for group in few],
        (),
    )


def _starts(run: Run, group: Group) -> int:
    """Return how many starts a group's values come from; in a search, where each start tries other loads, how
    many its deployment has."""
    if run.record.search is None:
        return len(group.counted)
    own = [g for g in run.groups if (g.deployment, g.scenario) == (group.deployment, group.scenario)]
    return len({cell.planned.repeat for each in own for cell in each.counted}) if group.counted else 0


def server_attached(run: Run) -> list[Finding]:
    """Find a server that bench did not start."""
    if not any(record.attached for record in run.start_records):
        return []
    return [
        Finding(
            "attached",
            "The server was not started by bench",
            "Repeats are blocks on one start, and its settings, load and memory are not known.",
            "Let bench start the engine: engine=NAME without engine.base_url.",
        )
    ]


def repeats_disagree(run: Run) -> list[Finding]:
    """Find starts of one deployment at one load whose values lie far apart; a finding for each metric."""
    findings = []
    for name, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50 ms")):
        spread: list[tuple[float, Group, str]] = []
        for group in run.groups:
            value = aggregate(run, group, name)
            if value.mean and value.low is not None and value.high is not None:
                ends = f"{shown(name, value.low)} to {shown(name, value.high)}"
                spread.append(((value.high - value.low) / value.mean, group, ends))
        far = sorted((each for each in spread if each[0] > STARTS_DIFFER), key=lambda each: -each[0])
        metric = metric_of(name).name
        findings += found(
            f"repeats_disagree_{metric}",
            "Starts disagree",
            "{}.",
            "More repeats, and a quiet machine; until=ci:5% repeats until the interval is narrow.",
            [
                (
                    f"{group.deployment} at {group.load}: {title} {ends} ({100 * share:.0f} % of the mean)",
                    group.counted,
                )
                for share, group, ends in far
            ],
            TOKENS if metric in TOKENS else (metric,),
        )
    return findings


def drift_over_run(run: Run) -> list[Finding]:
    """Find deployments that drift from start to start otherwise than all together: what the pairing of
    repeats does not take out. Not of a search, which chooses its loads, nor of blocks on one server."""
    if run.record.search is not None or any(record.attached for record in run.start_records):
        return []
    seen: list[Seen] = []
    for metric, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50")):
        logs = {label: own for label in run.deployments if (own := _logs(run, label, metric))}
        # Two metrics are tested, so each at half of the level.
        for label, drift in start_drifts(logs, run.record.compare.margin_share, tests=2).items():
            cells = [cell for cell in measured_cells(run) if cell.label == label]
            seen.append((f"{label}: {title} {drift_text(drift)} from start to start", cells))
    beside = ", beside what all deployments have in common" if len(run.deployments) > 1 else ""
    return found(
        "drift_over_run",
        "A deployment drifted over the run",
        f"{{}}{beside}.",
        "A machine that has warmed up and is quiet, and more repeats.",
        seen,
    )


def _logs(run: Run, label: str, metric: str) -> dict[int, float]:
    """Return by repeat the mean logarithm of a value over the deployment's loads, each beside its own mean;
    of repeats that have all loads."""
    by_load = []
    for group in run.groups:
        if group.deployment != label or withheld(run, group.key, metric):
            continue
        values = by_start(run, group, metric)
        logs = {k: math.log(each.value) for k, each in values.items() if each.value and each.value > 0}
        if logs:
            mean = sum(logs.values()) / len(logs)
            by_load.append({repeat: log - mean for repeat, log in logs.items()})
    repeats = set.intersection(*map(set, by_load)) if by_load else set()
    return {repeat: float(np.mean([each[repeat] for each in by_load])) for repeat in repeats}
