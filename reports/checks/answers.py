"""What the answers are worth: caches, quantizations, weights."""

from __future__ import annotations

from collections.abc import Iterator

from reports.checks.finding import Finding
from reports.frames import Run
from reports.markup import several

WARM_SHARE = 0.2


def warm_cache(run: Run) -> Iterator[Finding]:
    """First turns that found much of their input in the cache."""
    said = []
    for group in run.groups:
        cached = total = 0.0
        for cell in group.counted:
            sent = run.window_requests(cell.number)
            first = sent[(sent["turn"] == 0) & (sent["outcome"] == "ok")]
            known = first[first["cached_tokens"].notna() & first["input_tokens"].notna()]
            cached += float(known["cached_tokens"].sum())
            total += float(known["input_tokens"].sum())
        if total and cached / total > WARM_SHARE:
            said.append(f"{group.deployment} at {group.load}: {100 * cached / total:.0f} %")
    if said:
        yield Finding(
            "warm_cache",
            "The prefix cache was warm",
            f"Share of the first turns' input that was cached already: {several(said)}. TTFT is "
            "that of cached "
            "prompts, as with a system prompt that all users share.",
            "Compare TTFT only between deployments with like shares.",
        )


def weights_noted(run: Run) -> Iterator[Finding]:
    """What the origin of the weights means for the comparison: each clause once, with whose it is."""
    labels_by_clause: dict[str, list[str]] = {}
    for record in run.start_records:
        for clause in filter(None, str(record.weights.get("note") or "").rstrip(".").split("; ")):
            labels = labels_by_clause.setdefault(clause, [])
            labels += [] if record.deployment.label in labels else [record.deployment.label]
    clauses_by_labels: dict[tuple[str, ...], list[str]] = {}
    for clause, labels in labels_by_clause.items():
        clauses_by_labels.setdefault(tuple(labels), []).append(clause)
    if clauses_by_labels:
        said = [f"{several(labels)}: {'; '.join(clauses)}." for labels, clauses in clauses_by_labels.items()]
        yield Finding(
            "weights_noted",
            "Origin of the weights",
            " ".join(said),
            "Speed and memory are those of the format; quality is not.",
        )


def quality_not_measured(run: Run) -> Iterator[Finding]:
    """Several quantizations, and nobody looked at the answers."""
    found = list(dict.fromkeys(group.quantization for group in run.groups if group.quantization != "-"))
    if len(found) > 1:
        yield Finding(
            "quality_not_measured",
            "Quality is not measured",
            f"{several(found)} may answer differently well; speed and memory alone do not choose "
            "between them.",
            "Judge the answers on a task of yours.",
        )
