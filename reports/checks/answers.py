"""What the answers are worth: caches, quantizations, weights."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports.checks.finding import RATES, Finding, cell_name, cells_of, measured_cells, numbers
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.written import several

WARM_SHARE = 0.2
# What two prompts may have in common by their chat template, in tokens.
SHARED_TOKENS = 64


def warm_cache(run: Run) -> Iterator[Finding]:
    """First turns that found much of their input in the cache."""
    said, warm = [], []
    for group in run.groups:
        cached = total = 0.0
        for cell in group.counted:
            ok = run.ok_requests(cell.number, "turn", "cached_tokens", "input_tokens")
            known = ok[ok["turn"] == 0].dropna()
            cached += float(known["cached_tokens"].sum())
            total += float(known["input_tokens"].sum())
        if total and cached / total > WARM_SHARE:
            said.append(f"{group.deployment} at {group.load}: {100 * cached / total:.0f} %")
            warm += group.counted
    if said:
        yield Finding(
            "warm_cache",
            "The prefix cache was warm",
            f"Share of the first turns' input that was cached already: {several(said)}. TTFT is "
            "that of cached "
            "prompts, as with a system prompt that all users share.",
            "Compare TTFT only between deployments with like shares; "
            "engine.prefix_cache=false measures without the cache.",
            cells=numbers(warm),
            metrics=("ttft_s", "e2e_s", "slo_share", *RATES),
        )


def cache_not_reset(run: Run) -> Iterator[Finding]:
    """Cells whose first request of all found much of its input cached, since what came before was not theirs;
    and where it does not say, those before which the cache could not be emptied."""
    said, found = [], []
    for cell in measured_cells(run):
        reset, first = cell.record.cache_reset if cell.record else None, _first_cached(run, cell)
        if first is None and reset is not None and reset.how == "failed":
            said.append(f"{cell_name(cell)}: it could not be emptied ({reset.note})")
        elif first is not None and _is_warm(*first):
            why = f" ({reset.note})" if reset and reset.note else ""
            said.append(f"{cell_name(cell)}: {first[0]:,.0f} of {first[1]:,.0f} tokens{why}")
        else:
            continue
        found.append(cell)
    if found:
        yield Finding(
            "cache_not_reset",
            "The prefix cache was not empty at first",
            f"The first request of a cell found input cached that only other cells or other users can "
            f"have left, or may have: {several(said, '; ')}. Later cells are served faster than the first.",
            "scenario=chat_multi_turn, whose prompts are new to each cell; one load.concurrency in each run; "
            "or engine.prefix_cache=false.",
            cells=numbers(found),
            metrics=("ttft_s", "e2e_s", "slo_share", *RATES),
        )


def cache_unchecked(run: Run) -> Iterator[Finding]:
    """Cells of which neither the reset before them nor their first request shows that the cache was empty,
    and those whose first request does though the reset failed."""
    cells_by_note: dict[str, list[Cell]] = {}
    for cell in measured_cells(run):
        reset, first = cell.record.cache_reset if cell.record else None, _first_cached(run, cell)
        if reset is None or (first is not None and _is_warm(*first)):
            continue
        if reset.how == ("unchecked" if first is None else "failed"):
            cells_by_note.setdefault(reset.note or "", []).append(cell)
    if cells_by_note:
        said = [
            f"{several(list(dict.fromkeys(map(cell_name, cells))))} ({note})"
            for note, cells in cells_by_note.items()
        ]
        yield Finding(
            "cache_unchecked",
            "It is not shown that the prefix cache was empty",
            f"What earlier cells had left was to be emptied before {'; '.join(said)}.",
            "engine.prefix_cache=false measures without the cache; prompts of a cell are no other cell's.",
            cells=numbers(cell for cells in cells_by_note.values() for cell in cells),
            metrics=("ttft_s", "e2e_s", "slo_share", *RATES),
            marks=False,
        )


def _is_warm(cached: float, tokens: float) -> bool:
    return cached > max(WARM_SHARE * tokens, SHARED_TOKENS)


def _first_cached(run: Run, cell: Cell) -> tuple[float, float] | None:
    """Of a cell's first request, warm-up and all: its cached tokens and its input's; None where the server
    does not say."""
    requests = run.cell_requests(cell.number)[["sent_ns", "cached_tokens", "input_tokens"]]
    sent_ns = requests["sent_ns"].to_numpy(dtype=float, na_value=np.inf)
    if not np.isfinite(sent_ns).any():
        return None
    first = requests.iloc[int(sent_ns.argmin())]
    cached, tokens = first["cached_tokens"], first["input_tokens"]
    return None if pd.isna(cached) or pd.isna(tokens) else (float(cached), float(tokens))


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
            cells=cells_of(run, {label for labels in clauses_by_labels for label in labels}),
            marks=False,
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
            "Judge the answers on a task of yours, or compare at one quantization=NAME.",
            marks=False,
            compares=True,
        )
