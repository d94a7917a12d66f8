"""Reasons to distrust cells and their starts: missing, failed or cut, too few starts, or starts unlike."""

import math
from collections.abc import Iterator

import numpy as np

from reports.checks.finding import RATES, SPEED, Seen, cell_name, check, drift_text, measured_cells
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate, by_start, withheld
from reports.measures.written import shown
from reports.stats.drift import start_drifts
from reports.stats.family import STARTS_NEEDED

# Of the requests of a group, so many lost or cut make its numbers of other work than was asked for.
LOST_SHARE = 0.01
STARTS_DIFFER = 0.2


# --- cells and requests ----------------------------------------------------------------------------


@check(
    "missing cells",
    "Cells are missing",
    "{}.",
    "See Errors for the reasons; bench run --resume measures them again.",
    (),
)
def cells_missing(run: Run) -> Iterator[Seen]:
    """Find cells that failed, were interrupted or never measured."""
    to_come = ("in flight", "not measured") if run.is_going_on else ()
    for cell in run.planned_cells:
        if cell.status not in ("completed", *to_come):
            yield f"{cell_name(cell)}: {cell.status}", [cell]


@check("invalid cells", "Cells are invalid", "{}.", "They are left out of the values.", (), marks=True)
def cells_invalid(run: Run) -> Iterator[Seen]:
    """Find cells that the run called invalid."""
    return _called(run, "invalid")


@check("suspect cells", "Cells are suspect", "{}.", "They count; look at the reasons.", ())
def cells_suspect(run: Run) -> Iterator[Seen]:
    """Find cells that the run called suspect."""
    return _called(run, "suspect")


def _called(run: Run, validity: str) -> Iterator[Seen]:
    """Yield the cells with a reason beside what the guard saw, of which there is a check."""
    for cell in run.planned_cells:
        if cell.validity == validity and cell.record:
            seen = tuple(each.text for each in cell.record.guard)
            if not all(reason.startswith(seen) for reason in cell.record.reasons):
                yield f"{cell_name(cell)}: {cell.reason or 'no reason given'}", [cell]


@check(
    "failed requests",
    "Requests failed",
    "{}; latencies are of the others.",
    "See Errors; a slow server that drops requests looks fast. load.timeout=300s, or a lower load.",
    (*SPEED, "success_share"),
    marks=True,
)
def requests_failed(run: Run) -> Iterator[Seen]:
    """Find failed requests: what is left may be the easy ones. From LOST_SHARE on their cells are marked."""
    for group in run.groups:
        sent = [(cell, run.window_requests(cell.number)["outcome"]) for cell in group.counted]
        failed = [cell for cell, outcomes in sent if (outcomes != "ok").any()]
        count, total = sum(int((each != "ok").sum()) for _, each in sent), sum(len(each) for _, each in sent)
        if count:
            said = f"{group.deployment} at {group.load}: {count:,} of {total:,}"
            yield said, failed if count >= LOST_SHARE * total else ()


@check(
    "answers cut short",
    "Answers were cut short",
    "Ended before the length asked for: {}. Shorter answers look faster.",
    "A longer engine.context_length, or shorter conversations (scenario.turns, scenario.output_tokens).",
    ("e2e_s", "slo_share", *RATES),
    marks=True,
)
def answers_cut(run: Run) -> Iterator[Seen]:
    """Find answers that ended before the length asked for: the context was full, or the engine stopped though
    it was told not to. From LOST_SHARE on their cells are marked."""
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
            yield said, cut if full + stopped >= LOST_SHARE * total else ()


# --- starts ----------------------------------------------------------------------------------------


@check(
    "too few starts",
    "Few starts",
    "{}: start-up luck and drift cannot be told from the engine, and no verdict is given.",
    "repeats=5 or more, which can tell a difference of 10 %.",
    (),
)
def single_repeat(run: Run) -> Iterator[Seen]:
    """Find deployments with fewer starts than a verdict needs: their luck is not told from their speed."""
    starts = {group.key: _starts(run, group) for group in run.groups}
    others = {group.deployment for group in run.groups if starts[group.key] >= STARTS_NEEDED}
    for group in run.groups:
        count = starts[group.key]
        if 0 < count < STARTS_NEEDED:
            where = f" at {group.load}" if group.deployment in others else ""
            one = "one start only" if count == 1 else f"fewer than {STARTS_NEEDED} starts"
            yield f"{group.deployment}{where} was measured on {one}", group.counted


def _starts(run: Run, group: Group) -> int:
    """Return how many starts a group's values come from; in a search, where each start tries other loads, how
    many its deployment has."""
    if run.record.search is None:
        return len(group.counted)
    own = [g for g in run.groups if (g.deployment, g.scenario) == (group.deployment, group.scenario)]
    return len({cell.planned.repeat for each in own for cell in each.counted}) if group.counted else 0


@check(
    "a server that ran already",
    "The server was not started by bench",
    "Repeats are blocks on one start, and its settings, load and memory are not known.",
    "Let bench start the engine: engine=NAME without engine.base_url.",
    (),
)
def attached(run: Run) -> Iterator[Seen]:
    """Find a server that bench did not start."""
    if any(record.attached for record in run.start_records):
        yield "", ()


@check(
    "starts that disagree",
    "Starts disagree",
    "{}.",
    "More repeats, and a quiet machine; until=ci:5% repeats until the interval is narrow.",
)
def repeats_disagree(run: Run) -> Iterator[Seen]:
    """Find starts of one deployment at one load whose values lie far apart, furthest first."""
    far: list[tuple[float, str, list[Cell]]] = []
    for name, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50 ms")):
        for group in run.groups:
            value = aggregate(run, group, name)
            if value.mean and value.low is not None and value.high is not None:
                share = (value.high - value.low) / value.mean
                ends = f"{shown(name, value.low)} to {shown(name, value.high)}"
                said = f"{group.deployment} at {group.load}: {title} {ends} ({100 * share:.0f} % of the mean)"
                far += [(share, said, group.counted)] if share > STARTS_DIFFER else []
    for _, said, cells in sorted(far, key=lambda each: -each[0]):
        yield said, cells


@check(
    "deployments that drift over the run",
    "A deployment drifted over the run",
    "From start to start, beside what all deployments have in common: {}.",
    "A machine that has warmed up and is quiet, and more repeats.",
)
def drift_over_run(run: Run) -> Iterator[Seen]:
    """Find deployments that drift from start to start otherwise than all together: what the pairing of
    repeats does not take out. Not of a search, which chooses its loads, nor of blocks on one server."""
    if run.record.search is not None or any(record.attached for record in run.start_records):
        return
    for metric, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50")):
        logs = {label: own for label in run.deployments if (own := _logs(run, label, metric))}
        # Two metrics are tested, so each at half of the level.
        for label, drift in start_drifts(logs, run.record.compare.margin_share, tests=2).items():
            cells = [cell for cell in measured_cells(run) if cell.label == label]
            yield f"{label}: {title} {drift_text(drift)}", cells


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
