"""Reasons to distrust a run: one function each, from a run to its findings.

A finding says what was seen, with its numbers, and what would help. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reports.checks import (
    answers,
    cells,
    client,
    equal_work,
    guard,
    machine,
    selftest,
    serving,
    tokens,
    window,
)
from reports.checks.finding import Finding
from reports.frames import Run

CHECKS: tuple[Callable[[Run], Iterator[Finding]], ...] = (
    cells.cells_missing,
    cells.cells_marked,
    cells.requests_failed,
    equal_work.kernels_stand_in,
    equal_work.prompts_differ,
    equal_work.system_prompt_dropped,
    equal_work.chat_templates_differ,
    equal_work.lengths_not_forced,
    equal_work.output_lengths_differ,
    equal_work.terms_not_matched,
    equal_work.processor_use_differs,
    equal_work.builds_differ,
    equal_work.served_one_at_a_time,
    tokens.token_counts_differ,
    tokens.chunks_of_several_tokens,
    serving.server_counts_differ,
    cells.single_repeat,
    cells.repeats_disagree,
    window.few_requests,
    window.short_windows,
    window.queue_only_grew,
    window.not_steady,
    client.schedule_not_kept,
    client.client_late,
    client.stamps_not_kernel,
    client.clocks_apart,
    selftest.beyond_selftest,
    selftest.error_not_small,
    answers.warm_cache,
    machine.cores_shared,
    machine.machine_busy,
    machine.foreign_load,
    guard.machine_unfit,
    machine.memory_not_returned,
    answers.weights_noted,
    answers.quality_not_measured,
)


def findings(run: Run) -> list[Finding]:
    """All findings, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(run)]
