"""Reasons to distrust a run: one function each, from a run to its findings.

A finding says what was seen, with its numbers, and what would help. Draws nothing.
"""

from collections.abc import Callable, Iterator

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
from reports.data.once import once
from reports.data.run import Run

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
