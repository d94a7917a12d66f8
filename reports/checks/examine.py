"""All reasons to distrust a run, and the marks that numbers bear for them. Draws nothing."""

from collections.abc import Callable, Sequence, Set
from typing import Protocol

from reports.checks import answers, cells, client, equal_work, machine, windows
from reports.checks.finding import Finding, by_weight
from reports.data.cells import Group
from reports.data.run import Run, once
from reports.verdicts.searches import Capacity, cells_at_highest, slo_metrics

SIGN = "▲"
LEGEND = f"{SIGN} 2 behind a value: two reasons not to compare it, and a link to them."
# Each with what it looks for, in the words for a run in which it is not there; worst first.
CHECKS: dict[Callable[[Run], list[Finding]], str] = {
    equal_work.kernels_stand_in: "stand-ins for kernels",
    equal_work.prompts_differ: "unequal prompts",
    equal_work.output_lengths_differ: "unequal lengths of answers",
    cells.requests_failed: "failed requests",
    cells.answers_cut: "answers cut short",
    cells.cells_missing: "missing cells",
    cells.cells_marked: "cells that the run called suspect or invalid",
    client.error_not_small: "a TTFT near bench's own error",
    client.client_late: "a late client",
    client.schedule_not_kept: "a schedule that was not kept",
    client.conversations_never_began: "conversations that never began",
    answers.token_counts_differ: "token counts that the tokenizer does not confirm",
    answers.cache_not_reset: "a prefix cache that was not reset",
    cells.server_attached: "a server that ran already",
    cells.single_repeat: "too few starts",
    cells.drift_over_run: "deployments that drift over the run",
    machine.machine_unfit: "what the guard looks for",
    machine.foreign_load: "other programs on the processor",
    equal_work.processor_use_differs: "unequal use of the processor",
    equal_work.terms_not_matched: "terms that were not matched",
    equal_work.served_one_at_a_time: "requests served one at a time",
    equal_work.system_prompt_dropped: "a dropped system prompt",
    equal_work.lengths_not_forced: "answers of free length",
    equal_work.builds_differ: "other builds of one engine",
    answers.quality_not_measured: "several quantizations with quality not measured",
    answers.server_counts_differ: "server's counters unlike its answers",
    windows.queue_only_grew: "a queue that only grew",
    cells.repeats_disagree: "starts that disagree",
    windows.window_drifted: "windows over which speed drifts",
    windows.bimodal: "latencies with two humps",
    answers.warm_cache: "a warm prefix cache",
    answers.cache_unchecked: "a prefix cache that nobody saw empty",
    client.beyond_selftest: "loads beyond the self-test",
    client.stamps_not_kernel: "arrivals without the kernel's stamp",
    windows.few_requests: "too few requests",
    windows.short_windows: "short windows",
    machine.cores_shared: "client and server on the same cores",
    answers.weights_noted: "weights of another origin",
}


@once
def examine(run: Run) -> dict[str, tuple[Finding, ...]]:
    """Return what each check found, by what it looks for, in the order of CHECKS."""
    return {looked_for: tuple(check(run)) for check, looked_for in CHECKS.items()}


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
    return marks_of_answer(run, cells_at_highest(found.answers), slo_metrics(run))


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
