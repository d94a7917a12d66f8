"""All reasons to distrust a run, and the marks that numbers bear for them. Draws nothing."""

from collections.abc import Iterable, Sequence

from reports.checks import answers, cells, client, equal_work
from reports.checks.finding import Check, Finding
from reports.data.cells import Cell
from reports.data.run import Run, once

SIGN = "▲"
LEGEND = f"{SIGN} 2 behind a value: two reasons not to compare it, and a link to them."
# Worst first.
CHECKS: tuple[Check, ...] = (
    equal_work.kernels_stand_in,
    equal_work.prompts_differ,
    equal_work.output_lengths_differ,
    cells.requests_failed,
    cells.answers_cut,
    cells.cells_not_valid,
    client.error_not_small,
    client.client_late,
    client.conversations_never_began,
    answers.token_counts_differ,
    answers.cache_not_reset,
    cells.single_repeat,
    cells.drift_over_run,
    client.machine_unfit,
    equal_work.terms_not_matched,
    answers.quality_not_measured,
    answers.server_counts_differ,
    cells.queue_only_grew,
    cells.repeats_disagree,
    cells.window_drifted,
    cells.bimodal,
    client.beyond_selftest,
    client.stamps_not_kernel,
    cells.short_windows,
    client.cores_shared,
    answers.weights_noted,
)


@once
def examine(run: Run) -> dict[str, Finding | None]:
    """Return what each check found, by the reason that its docstring says it looks for, worst first."""
    return {(each.__doc__ or "").partition(".")[0].removeprefix("Look for "): each(run) for each in CHECKS}


@once
def findings_of(run: Run) -> tuple[Finding, ...]:
    """Return the reasons to distrust a run, worst first: those that mark a number, then the others."""
    return tuple(sorted(filter(None, examine(run).values()), key=lambda each: not each.marks))


def marks_of(run: Run, cells: Iterable[Cell], *metrics: str) -> tuple[Finding, ...]:
    """Return the findings that mark a value of these cells by one of several metrics (`ttft_s.p95`)."""
    numbers, names = {cell.number for cell in cells}, {metric.partition(".")[0] for metric in metrics}
    return tuple(
        found
        for found in findings_of(run)
        if found.marks
        and not numbers.isdisjoint(found.cells)
        and (not found.metrics or not names.isdisjoint(found.metrics))
    )


def mark_text(found: Sequence[object]) -> str:
    """Return `▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(found)}" if found else ""
