"""All reasons to distrust a run, and the marks beside numbers. Draws nothing."""

from collections.abc import Iterable, Sequence

from serving_bench.reports.checks import late_client, starts, unequal_work, windows
from serving_bench.reports.checks.finding import Check, Finding
from serving_bench.reports.data import Cell, Run, once
from serving_bench.reports.stats.intervals import STARTS_NEEDED
from serving_bench.reports.verdicts import decisions_of

SIGN = "▲"
LEGEND = f"{SIGN} 2 after a value: there are two reasons not to compare it, and the mark links to them."


# Worst first.
CHECKS: tuple[Check, ...] = (
    starts.measured_by_another_tool,
    unequal_work.kernels_stand_in,
    unequal_work.prompts_differ,
    unequal_work.text_not_comparable,
    unequal_work.answers_missing,
    unequal_work.answers_change_under_load,
    unequal_work.speculation_changes_answers,
    unequal_work.output_lengths_differ,
    windows.cells_not_valid,
    windows.requests_failed,
    windows.none_ended,
    windows.length_not_heeded,
    windows.answers_cut,
    windows.prompts_cut,
    windows.answers_not_valid,
    late_client.error_not_small,
    late_client.client_late,
    late_client.conversations_never_began,
    unequal_work.token_counts_differ,
    windows.cache_not_reset,
    windows.cache_misreported,
    late_client.machine_unfit,
    late_client.one_disturbed,
    starts.single_repeat,
    starts.drift_over_run,
    starts.machines_differ,
    starts.nodes_lost,
    unequal_work.terms_not_matched,
    unequal_work.same_weights_differ,
    unequal_work.not_repeatable,
    unequal_work.server_samples,
    unequal_work.busy_after_leaving,
    unequal_work.quality_not_measured,
    unequal_work.server_counts_differ,
    starts.powers_differ,
    windows.queue_only_grew,
    starts.repeats_disagree,
    starts.two_levels,
    windows.window_drifted,
    windows.bimodal,
    late_client.beyond_selftest,
    late_client.stamps_not_kernel,
    windows.short_windows,
    late_client.cores_shared,
    starts.variables_differ,
    starts.images_by_tag,
    unequal_work.weights_noted,
)


@once
def examine(run: Run) -> dict[str, Finding | None]:
    """Return what each check found by its title, worst first; None if it found nothing."""
    return {each.title: each.find(run) for each in CHECKS}


@once
def findings_of(run: Run) -> tuple[Finding, ...]:
    """Return the reasons to distrust a run, whether they mark a number or not. The reason why no winner is
    named comes first, then the worst first."""
    findings, deciding = tuple(filter(None, examine(run).values())), _deciding(run)
    return tuple(sorted(findings, key=lambda each: each.check not in deciding))


def _deciding(run: Run) -> set[str]:
    """Return the name of the check that says why no test was made; empty if tests were made."""
    untested = [decision for decision in decisions_of(run) if decision.why and decision.groups]
    if any(decision.is_for_busy for decision in untested):
        return {late_client.machine_unfit.name}
    is_few = any(decision.repeats < STARTS_NEEDED for decision in untested)
    return {starts.single_repeat.name} if is_few else set()


def clean_of(run: Run) -> tuple[list[str], list[str]]:
    """Return the titles of the checks that found nothing, then of those that had nothing to look at."""
    clean = [each for each in CHECKS if examine(run)[each.title] is None]
    looked = [each.title for each in clean if each.can_look(run) and (not run.foreign or each.of_requests)]
    return looked, [each.title for each in clean if each.title not in looked]


def marks_of(run: Run, cells: Iterable[Cell], *metrics: str) -> tuple[Finding, ...]:
    """Return the findings that mark a value of these cells on any of these metrics (`ttft_s.p95`)."""
    numbers, names = {cell.number for cell in cells}, {metric.partition(".")[0] for metric in metrics}
    return tuple(
        finding
        for finding in findings_of(run)
        if finding.marks
        and not numbers.isdisjoint(finding.cells)
        and (not finding.metrics or not names.isdisjoint(finding.metrics))
    )


def mark_text(marked: Sequence[object]) -> str:
    """Return `▲ 2` for a terminal; empty for none."""
    return f"{SIGN} {len(marked)}" if marked else ""
