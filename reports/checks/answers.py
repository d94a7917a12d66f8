"""Reasons to distrust the answers: token counts, caches, the origin of weights, quality."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from harness.contracts import ServerTerm
from reports.checks.finding import (
    BY_OBJECTIVES,
    OF_REQUESTS,
    TOKENS,
    Seen,
    cell_name,
    cells_of,
    check,
    measured_cells,
    start_name,
)
from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.samples import grown_in_cell
from reports.measures.equal_work import LENGTHS_DIFFER
from reports.measures.written import several

WARM_SHARE = 0.2
# What two prompts may have in common by their chat template, in tokens.
SHARED_TOKENS = 64
SERVER_DIFFERS_SHARE = 0.02
SERVER_DIFFERS_TOKENS = 16


# --- token counts ----------------------------------------------------------------------------------


@check(
    "token counts that the tokenizer does not confirm",
    "Server and tokenizer count differently",
    "Output tokens: {}. The server's count is the one used.",
    "load.tokenizer=FILE with the served model's own tokenizer.json; it counts no special tokens and no "
    "tool calls.",
    ("tpot_s", "output_tokens", *BY_OBJECTIVES, *TOKENS),
    marks=True,
)
def token_counts_differ(run: Run) -> Iterator[Seen]:
    """Find servers whose count of output tokens is not the tokenizer's, over the requests that have both."""
    for group in run.groups:
        server = tokenizer = n = 0
        for cell in group.counted:
            ok = run.ok_requests(cell.number, "token_source", "output_tokens", "tokenizer_tokens")
            both = ok[(ok["token_source"] == "server")].dropna()
            server += int(both["output_tokens"].sum())
            tokenizer += int(both["tokenizer_tokens"].sum())
            n += len(both)
        if n and abs(server - tokenizer) > LENGTHS_DIFFER * max(server, 1):
            share = 100 * (tokenizer - server) / max(server, 1)
            said = f"server {server:,}, tokenizer {tokenizer:,} ({share:+.1f} %; n = {n:,} requests)"
            yield f"{group.deployment} at {group.load}: {said}", group.counted


@check(
    "server's counters unlike its answers",
    "The server's counters and its answers differ",
    "Over whole cells, warm-up included: {}.",
    "Look for other clients of the server, for requests that were sent again on the way, and behind a "
    "load balancer for servers other than the one whose counters these are.",
    ("tpot_s", "input_tokens", "output_tokens", *BY_OBJECTIVES, *TOKENS),
)
def server_counts_differ(run: Run) -> Iterator[Seen]:
    """Find servers whose counters of tokens are not the counts in their answers, over whole cells."""
    for cell in run.planned_cells:
        if cell.status == "completed":
            for said in _server_differences(run, cell):
                yield f"{start_name(cell)}: {said}", [cell]


def _server_differences(run: Run, cell: Cell) -> Iterator[str]:
    columns = ["outcome", "output_tokens", "input_tokens", "max_tokens", "token_source", "is_resent"]
    requests = run.cell_requests(cell.number)[columns]
    accounts: tuple[tuple[ServerTerm, str, Callable[[pd.DataFrame], tuple[float, float] | None]], ...] = (
        ("generated_tokens", "output tokens", _outputs),
        ("prompt_tokens", "prompt tokens", _prompts),
    )
    for term, name, account in accounts:
        client, server = account(requests) if len(requests) else None, grown_in_cell(run, cell, term)
        if client is None or server is None:
            continue
        nearest = min(max(server, client[0]), client[1])
        if abs(server - nearest) > max(SERVER_DIFFERS_SHARE * nearest, SERVER_DIFFERS_TOKENS):
            answers = " to ".join(dict.fromkeys(f"{end:,.0f}" for end in client))
            yield f"{name}: server {server:,.0f}, answers {answers}"


def _outputs(requests: pd.DataFrame) -> tuple[float, float] | None:
    """Return the fewest and the most output tokens by the client's account: with those that requests which
    failed, or were sent twice, may have had. None where an answer has no count of the server's."""
    ok = requests[requests["outcome"] == "ok"]
    if ok["output_tokens"].isna().any() or (ok["token_source"] != "server").any():
        return None
    least = float(ok["output_tokens"].sum())
    again = float(ok.loc[ok["is_resent"].fillna(False).astype(bool), "max_tokens"].sum())
    failed = float(requests.loc[requests["outcome"] != "ok", "max_tokens"].sum())
    return least, least + again + failed


def _prompts(requests: pd.DataFrame) -> tuple[float, float] | None:
    """Return the same of prompt tokens; None where a request failed or was sent twice, since how much of its
    prompt was read is not known."""
    sure = (requests["outcome"] == "ok") & ~requests["is_resent"].fillna(False).astype(bool)
    if not sure.all() or requests["input_tokens"].isna().any():
        return None
    tokens = float(requests["input_tokens"].sum())
    return tokens, tokens


# --- caches ----------------------------------------------------------------------------------------


@check(
    "a warm prefix cache",
    "The prefix cache was warm",
    "Share of the first turns' input that was cached already: {}. TTFT is that of cached prompts.",
    "Compare TTFT only between deployments with like shares; engine.prefix_cache=false measures without "
    "the cache.",
    OF_REQUESTS,
)
def warm_cache(run: Run) -> Iterator[Seen]:
    """Find first turns that found much of their input in the cache."""
    for group in run.groups:
        cached = total = 0.0
        for cell in group.counted:
            ok = run.ok_requests(cell.number, "turn", "cached_tokens", "input_tokens")
            known = ok[ok["turn"] == 0].dropna()
            cached += float(known["cached_tokens"].sum())
            total += float(known["input_tokens"].sum())
        if total and cached / total > WARM_SHARE:
            yield f"{group.deployment} at {group.load}: {100 * cached / total:.0f} %", group.counted


@check(
    "a prefix cache that was not reset",
    "The prefix cache was not empty at first",
    "The first request of a cell found input cached that only other cells or other users can have left, "
    "or may have: {}. Later cells are served faster than the first.",
    "scenario=chat_multi_turn, whose prompts are new to each cell; one load.concurrency in each run; or "
    "engine.prefix_cache=false.",
    OF_REQUESTS,
    marks=True,
)
def cache_not_reset(run: Run) -> Iterator[Seen]:
    """Find cells whose first request of all found much of its input cached, so by what came before; and where
    it does not say, those before which the cache could not be emptied."""
    for cell in measured_cells(run):
        reset, first = cell.record.cache_reset if cell.record else None, _first_cached(run, cell)
        if first is None and reset is not None and reset.how == "failed":
            yield f"{cell_name(cell)}: it could not be emptied ({reset.note})", [cell]
        elif first is not None and _is_warm(*first):
            why = f" ({reset.note})" if reset and reset.note else ""
            yield f"{cell_name(cell)}: {first[0]:,.0f} of {first[1]:,.0f} tokens{why}", [cell]


@check(
    "a prefix cache that nobody saw empty",
    "It is not shown that the prefix cache was empty",
    "What earlier cells had left was to be emptied before {}.",
    "engine.prefix_cache=false measures without the cache; prompts of a cell are no other cell's.",
    OF_REQUESTS,
)
def cache_unchecked(run: Run) -> Iterator[Seen]:
    """Find cells of which neither the reset before them nor their first request shows that the cache was
    empty, and those whose first request does though the reset failed."""
    cells_by_note: dict[str, list[Cell]] = {}
    for cell in measured_cells(run):
        reset, first = cell.record.cache_reset if cell.record else None, _first_cached(run, cell)
        if reset is None or (first is not None and _is_warm(*first)):
            continue
        if reset.how == ("unchecked" if first is None else "failed"):
            cells_by_note.setdefault(reset.note or "", []).append(cell)
    for note, cells in cells_by_note.items():
        yield f"{several(list(map(cell_name, cells)))} ({note})", cells


def _is_warm(cached: float, tokens: float) -> bool:
    return cached > max(WARM_SHARE * tokens, SHARED_TOKENS)


def _first_cached(run: Run, cell: Cell) -> tuple[float, float] | None:
    """Return the cached and all input tokens of a cell's first request, warm-up and all; None where the
    server does not say."""
    requests = run.cell_requests(cell.number)[["sent_ns", "cached_tokens", "input_tokens"]]
    sent_ns = requests["sent_ns"].to_numpy(dtype=float, na_value=np.inf)
    if not np.isfinite(sent_ns).any():
        return None
    first = requests.iloc[int(sent_ns.argmin())]
    cached, tokens = first["cached_tokens"], first["input_tokens"]
    return None if pd.isna(cached) or pd.isna(tokens) else (float(cached), float(tokens))


# --- what was served -------------------------------------------------------------------------------


@check(
    "weights of another origin",
    "Origin of the weights",
    "{}.",
    "Speed and memory are those of the format; quality is not.",
    (),
)
def weights_noted(run: Run) -> Iterator[Seen]:
    """Tell what the origin of the weights means for the comparison: each clause once, with whose it is."""
    labels_by_clause: dict[str, list[str]] = {}
    for record in run.start_records:
        for clause in filter(None, str(record.weights.get("note") or "").rstrip(".").split("; ")):
            labels = labels_by_clause.setdefault(clause, [])
            labels += [] if record.deployment.label in labels else [record.deployment.label]
    clauses_by_labels: dict[tuple[str, ...], list[str]] = {}
    for clause, labels in labels_by_clause.items():
        clauses_by_labels.setdefault(tuple(labels), []).append(clause)
    for whose, clauses in clauses_by_labels.items():
        yield f"{several(whose)}: {', '.join(clauses)}", cells_of(run, whose)


@check(
    "several quantizations with quality not measured",
    "Quality is not measured",
    "{} may answer differently well; speed and memory alone do not choose between them.",
    "Judge the answers on a task of yours, or compare at one quantization=NAME.",
    (),
)
def quality_not_measured(run: Run) -> Iterator[Seen]:
    """Tell that there are several quantizations, and nobody looked at the answers."""
    names = list(dict.fromkeys(group.quantization for group in run.groups if group.quantization != "-"))
    if len(names) > 1:
        yield several(names), ()
