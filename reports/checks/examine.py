"""All reasons to distrust a run, and the marks that numbers bear for them. Draws nothing."""

from collections.abc import Sequence, Set
from typing import Protocol

from reports.checks import answers, cells, client, equal_work, machine, windows
from reports.checks.finding import Check, Finding, by_weight
from reports.data.cells import Group
from reports.data.run import Run, once
from reports.verdicts.searches import Capacity, slo_metrics

SIGN = "▲"
LEGEND = f"{SIGN} 2 behind a value: two reasons not to compare it, and a link to them."
# Worst first.
CHECKS: tuple[Check, ...] = (
    equal_work.kernels_stand_in,
    equal_work.prompts_differ,
    equal_work.output_lengths_differ,
    cells.requests_failed,
    cells.answers_cut,
    cells.cells_missing,
    cells.cells_invalid,
    cells.cells_suspect,
    client.error_not_small,
    client.client_late,
    client.schedule_not_kept,
    client.conversations_never_began,
    answers.token_counts_differ,
    answers.cache_not_reset,
    cells.attached,
    cells.single_repeat,
    cells.drift_over_run,
    machine.machine_unfit,
    machine.foreign_load,
    equal_work.processor_use_differs,
    equal_work.terms_not_matched,
    equal_work.served_one_at_a_time,
    equal_work.system_prompt_dropped,
    equal_work.lengths_not_forced,
    equal_work.builds_differ,
    answers.quality_not_measured,
    answers.server_counts_differ,
    windows.queue_only_grew,
    cells.repeats_disagree,
    windows.window_drifted,
    windows.bimodal,
    answers.warm_cache,
    answers.cache_unchecked,
    client.beyond_selftest,
    client.stamps_not_kernel,
    windows.few_requests,
    windows.short_windows,
    machine.cores_shared,
    answers.weights_noted,
)


@once
def examine(run: Run) -> dict[str, tuple[Finding, ...]]:
    """Return what each check found, by what it looks for, in the order of CHECKS."""
    return {each.looks_for: each.findings(run) for each in CHECKS}


@once
def findings_of(run: Run) -> tuple[Finding, ...]:
    """Return the reasons to distrust a run, worst first: those that mark a number, then the others."""
    return tuple(by_weight(finding for found in examine(run).values() for finding in found))


# --- marks -----------------------------------------------------------------------------------------


class Marking(Protocol):
    """What a mark is made of: the check's name, which its link goes to, and the title of what it found."""

    @property
    def check(self) -> str: ...
    @property
    def title(self) -> str: ...


def marks_of(run: Run, group: Group | tuple[str, str, str], metric: str) -> tuple[Finding, ...]:
    """Return the findings that mark a value (`ttft_s.p95`) of a group, or of its key: those about one of its
    cells that count, and that metric."""
    key = group.key if isinstance(group, Group) else group
    return marks_of_answer(run, _counted(run).get(key, frozenset()), [metric])


def marks_of_answer(run: Run, cells: Set[int], metrics: Sequence[str]) -> tuple[Finding, ...]:
    """Return the findings that mark an answer which comes from several metrics of these cells. None of no
    cell. A page asks thousands of times."""
    names = {metric.partition(".")[0] for metric in metrics}
    marking = _marking(run)
    about = {place for cell in cells for place in (*marking.get(cell, ()), *marking.get(None, ()))}
    found = (findings_of(run)[place] for place in sorted(about))
    return tuple(each for each in found if not each.metrics or names & set(each.metrics))


def marks_of_capacity(run: Run, found: Capacity) -> tuple[Finding, ...]:
    """Return the findings about the highest loads kept in a search; above those an overload is expected."""
    return marks_of_answer(run, found.cells_at_highest, slo_metrics(run))


def marks_between(run: Run, a: Group, b: Group, metric: str) -> tuple[Finding, ...]:
    """Return the findings that mark a comparison of two groups on a metric: those of a number of either."""
    cells = {cell.number for group in (a, b) for cell in group.counted}
    return marks_of_answer(run, cells, [metric])


@once
def _marking(run: Run) -> dict[int | None, list[int]]:
    """Return by cell the places of the findings that mark it; by None of those that mark the whole run."""
    places: dict[int | None, list[int]] = {}
    for place, found in enumerate(findings_of(run)):
        for cell in found.cells or (None,):
            if found.marks:
                places.setdefault(cell, []).append(place)
    return places


@once
def _counted(run: Run) -> dict[tuple[str, str, str], frozenset[int]]:
    return {group.key: frozenset(cell.number for cell in group.counted) for group in run.groups}


def mark_text(found: Sequence[Marking]) -> str:
    """Return `▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(found)}" if found else ""
