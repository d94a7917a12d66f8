"""Reasons to distrust a run: one function each, from a run to its findings.

A finding says what was seen, with its numbers, and what would help. Draws nothing.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Protocol

from reports.checks import (
    answers,
    cells,
    client,
    equal_work,
    guard,
    machine,
    order,
    selftest,
    serving,
    shape,
    tokens,
    window,
)
from reports.checks.finding import Finding
from reports.data.cells import Group
from reports.data.run import Run, once
from reports.verdicts.searches import Capacity, cells_at_highest, slo_metrics

# Each with what it looks for, in the words for a run in which it is not there.
CHECKS: dict[Callable[[Run], Iterator[Finding]], str] = {
    cells.cells_missing: "missing cells",
    cells.cells_marked: "cells that the run called suspect or invalid",
    cells.requests_failed: "failed requests",
    equal_work.kernels_stand_in: "stand-ins for kernels",
    equal_work.prompts_differ: "unequal prompts",
    equal_work.system_prompt_dropped: "a dropped system prompt",
    equal_work.chat_templates_differ: "other chat templates",
    equal_work.lengths_not_forced: "answers of free length",
    equal_work.output_lengths_differ: "unequal lengths of answers",
    equal_work.terms_not_matched: "terms that were not matched",
    equal_work.processor_use_differs: "unequal use of the processor",
    equal_work.builds_differ: "other builds of one engine",
    equal_work.served_one_at_a_time: "requests served one at a time",
    tokens.token_counts_differ: "token counts that the tokenizer does not confirm",
    tokens.chunks_of_several_tokens: "chunks of several tokens",
    tokens.answers_cut: "answers cut short",
    serving.server_counts_differ: "server's counters unlike its answers",
    cells.single_repeat: "too few starts, or a server that ran already",
    cells.repeats_disagree: "starts that disagree",
    window.few_requests: "too few requests",
    window.short_windows: "short windows",
    window.windows_differ: "windows of unequal length",
    window.conversations_cut: "conversations cut short",
    window.queue_only_grew: "a queue that only grew",
    window.mostly_queued: "requests that wait longer than they are served",
    window.not_steady: "windows that are not steady",
    window.latency_drifted: "TTFT or TPOT that drifts over a window",
    shape.bimodal: "latencies with two humps",
    order.order_effects: "effects of the order, drift over the run",
    client.schedule_not_kept: "a schedule that was not kept",
    client.client_late: "a late client",
    client.stamps_not_kernel: "arrivals without the kernel's stamp",
    selftest.beyond_selftest: "loads beyond the self-test",
    selftest.error_not_small: "a TTFT near bench's own error",
    answers.warm_cache: "a warm prefix cache",
    answers.cache_not_reset: "a prefix cache that was not reset",
    answers.cache_unchecked: "a prefix cache that nobody saw empty",
    machine.cores_shared: "client and server on the same cores",
    machine.machine_busy: "a busy machine",
    machine.foreign_load: "other programs on the processor",
    guard.machine_unfit: "what the guard looks for",
    machine.memory_not_returned: "memory that was not returned",
    answers.weights_noted: "weights of another origin",
    answers.quality_not_measured: "several quantizations with quality not measured",
}


@once
def examine(run: Run) -> dict[str, tuple[Finding, ...]]:
    """What each check found, by what it looks for, in the order of CHECKS."""
    return {looked_for: tuple(check(run)) for check, looked_for in CHECKS.items()}


def findings(run: Run) -> list[Finding]:
    """All findings, in the order of CHECKS."""
    return [finding for found in examine(run).values() for finding in found]


def findings_of(run: Run) -> tuple[Finding, ...]:
    """Return the reasons to distrust a run, in the order of the checks."""
    return tuple(finding for found in examine(run).values() for finding in found)


SIGN = "▲"
LEGEND = f"{SIGN} 2 behind a value: two reasons to distrust it, and a link to them."
# Checks that bear on comparisons across quantizations, and on no other.
_ACROSS_QUANTIZATIONS = ("quality_not_measured",)


class Marking(Protocol):
    """What a mark is made of: the check's name, which its link goes to, and the title of what it found."""

    @property
    def check(self) -> str: ...
    @property
    def title(self) -> str: ...


def marks_of(run: Run, group: Group | tuple[str, str, str], metric: str) -> tuple[Finding, ...]:
    """The findings that mark a value (`ttft_s.p95`) of a group, or of its key (deployment, scenario, load):
    those that touch one of its cells that count, and that metric. In the order of the checks."""
    key = group.key if isinstance(group, Group) else group
    return _touching(run, _counted(run).get(key, frozenset()), metric)


def marks_of_cell(run: Run, number: int, metric: str) -> tuple[Finding, ...]:
    """The findings that mark a value of one cell."""
    return _touching(run, {number}, metric)


def marks_of_answer(run: Run, cells: Set[int], metrics: Sequence[str]) -> tuple[Finding, ...]:
    """The findings that mark an answer which comes from several metrics of these cells."""
    return tuple(
        found
        for found in _about(run, cells)
        if found.marks and any(_bears_on(found, metric) for metric in metrics)
    )


def marks_of_capacity(run: Run, found: Capacity) -> tuple[Finding, ...]:
    """Return the findings about the highest loads kept in a search; above those an overload is expected."""
    return marks_of_answer(run, cells_at_highest(found.answers), slo_metrics(run))


def marks_between(run: Run, a: Group, b: Group, metric: str) -> tuple[Finding, ...]:
    """The findings that mark a comparison of two groups on a metric: those that mark a number of either, and
    those that only make the two unlike."""
    cells = {cell.number for group in (a, b) for cell in group.counted}
    is_across = a.quantization != b.quantization
    return tuple(
        each
        for each in _about(run, cells)
        if (each.marks or each.compares)
        and _bears_on(each, metric)
        and (is_across or each.check not in _ACROSS_QUANTIZATIONS)
    )


def marks_across_quantizations(run: Run) -> tuple[Finding, ...]:
    """What an answer that chooses between quantizations bears."""
    return tuple(each for each in findings_of(run) if each.check in _ACROSS_QUANTIZATIONS)


def _touching(run: Run, cells: Set[int], metric: str) -> tuple[Finding, ...]:
    return tuple(each for each in _about(run, cells) if each.marks and _bears_on(each, metric))


def _bears_on(found: Finding, metric: str) -> bool:
    return not found.metrics or metric.partition(".")[0] in found.metrics


def _about(run: Run, cells: Set[int]) -> list[Finding]:
    """The findings about one of these cells or about the whole run, in the order of the checks; none of no
    cell. A page asks thousands of times."""
    places = _places(run)
    about = {place for cell in cells for place in (*places.get(cell, ()), *places.get(None, ()))}
    return [findings_of(run)[place] for place in sorted(about)]


@once
def _places(run: Run) -> dict[int | None, list[int]]:
    """Places among the findings of those about each cell; of None: about the whole run."""
    places: dict[int | None, list[int]] = {}
    for place, found in enumerate(findings_of(run)):
        for cell in found.cells or (None,):
            places.setdefault(cell, []).append(place)
    return places


@once
def _counted(run: Run) -> dict[tuple[str, str, str], frozenset[int]]:
    """The numbers of the cells that count, by their key."""
    return {group.key: frozenset(cell.number for cell in group.counted) for group in run.groups}


def mark_text(found: Sequence[Marking]) -> str:
    """`▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(found)}" if found else ""
