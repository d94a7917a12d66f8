"""All reasons to distrust a run, and the marks that numbers bear for them. Draws nothing."""

from collections.abc import Sequence, Set
from typing import Protocol

from reports.checks import answers, cells, client, equal_work
from reports.checks.finding import Check, Finding
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
    cells.cells_not_valid,
    client.error_not_small,
    client.client_late,
    client.conversations_never_began,
    answers.token_counts_differ,
    answers.cache_not_reset,
    cells.attached,
    cells.single_repeat,
    cells.drift_over_run,
    client.machine_unfit,
    equal_work.terms_not_matched,
    equal_work.builds_differ,
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


class Marking(Protocol):
    """What a mark is made of: the check's name, which its link goes to, and the title of what it found."""

    @property
    def check(self) -> str: ...
    @property
    def title(self) -> str: ...


def marks_of_answer(run: Run, cells: Set[int], metrics: Sequence[str]) -> tuple[Finding, ...]:
    """Return the findings that mark an answer from these cells by several metrics (`ttft_s.p95`)."""
    names = {metric.partition(".")[0] for metric in metrics}
    return tuple(
        found
        for found in findings_of(run)
        if found.marks
        and not cells.isdisjoint(found.cells)
        and (not found.metrics or names & {*found.metrics})
    )


def marks_of(run: Run, group: Group, metric: str) -> tuple[Finding, ...]:
    """Return the findings that mark a value of a group: those about one of its cells that count."""
    return marks_of_answer(run, {cell.number for cell in group.counted}, [metric])


def marks_between(run: Run, a: Group, b: Group, metric: str) -> tuple[Finding, ...]:
    """Return the findings that mark a comparison of two groups on a metric: those of a number of either."""
    return marks_of_answer(run, {cell.number for group in (a, b) for cell in group.counted}, [metric])


def marks_of_capacity(run: Run, found: Capacity) -> tuple[Finding, ...]:
    """Return the findings about the highest loads kept in a search; above those an overload is expected."""
    return marks_of_answer(run, found.cells_at_highest, slo_metrics(run))


def mark_text(found: Sequence[object]) -> str:
    """Return `▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(found)}" if found else ""
