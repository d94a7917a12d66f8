"""Reasons to distrust cells and windows: failed or cut, short or unsteady, or with a warm cache."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from serving_bench.harness.contracts import quoted, timing
from serving_bench.reports.checks.finding import (
    FROM_SENDING,
    OF_LENGTHS,
    RATES,
    SPEED,
    Case,
    cell_name,
    check,
    measured_cells,
    of_cells,
    of_group,
    of_groups,
)
from serving_bench.reports.checks.starts import drift_words
from serving_bench.reports.data import Cell, Group, Run, gathered, grouped
from serving_bench.reports.measures import LOST_SHARE, measured_of, number, plural, several
from serving_bench.reports.measures.equal_work import ended_early, forces_length, ignores_length, is_short
from serving_bench.reports.measures.traffic.cache import NEW_TOKENS, doubts, served_of
from serving_bench.reports.measures.traffic.of_groups import validities_of
from serving_bench.reports.measures.traffic.validity import KINDS, VALID
from serving_bench.reports.stats.steadiness import (
    REQUESTS_NEEDED,
    humps,
    thirds,
    window_change,
    window_drifts,
)

SHORT_WINDOW_S = 30.0
WINDOW_DRIFT_SHARE = 0.1
_NAMES = {"output_tokens_per_s": "output tokens/s", "ttft_s": "TTFT", "tpot_s": "TPOT"}
_ENOUGH = timing.needed(95)


# --- cells and requests ----------------------------------------------------------------------------


@check(
    "Cells are missing, invalid or suspect",
    "{}.",
    "See Trust for the reasons and Method for which of them count; bench run --resume measures missing ones.",
    (),
    marks=True,
)
def cells_not_valid(run: Run) -> Iterator[Case]:
    to_come = ("in flight", "not measured") if run.is_going_on else ()
    for cell in run.planned_cells:
        # What the guard saw has its own check. An earlier bench stored it as a text.
        unfit = [each.reason for each in cell.record.guard] if cell.record else []
        reasons = cell.record.reasons if cell.record else ()
        others = [str(each) for each in reasons if each not in (*unfit, *(quoted(str(one)) for one in unfit))]
        if cell.status not in ("completed", *to_come):
            yield Case(cell_name(cell), cell.status, of=(cell.label,))
        elif cell.validity != "valid" and (others or not reasons):
            why = others[0] if others else cell.reason or "no reason given"
            brief = f"{cell.validity}, {why}"
            marked = [cell] if cell.validity == "invalid" else []
            what = "; ".join([brief, *others[1:]])
            yield Case(cell_name(cell), what, marked, (cell.label,), brief=brief)


@check(
    "Requests failed",
    "Latencies leave them out, so a slow server that drops requests looks fast: {}.",
    "See Trust for the errors; use load.timeout=300s or a lower load.",
    (*SPEED, "success_share"),
    marks=True,
    of_requests=True,
)
def requests_failed(run: Run) -> Iterator[Case]:
    return _lost(
        (group, cell, ~run.holds(cell.number, "outcome", "ok")[run.is_counted(cell.number)])
        for group in run.groups
        for cell in group.counted
    )


@check(
    "Answers were cut short",
    "A full context or the model ended them before the length asked for, which looks faster: {}.",
    "Use a longer engine.context_length, or shorter conversations (scenario.turns, scenario.output_tokens).",
    OF_LENGTHS,
    marks=True,
)
def answers_cut(run: Run) -> Iterator[Case]:
    return _lost((group, cell, _cut(run, group, cell)) for group in run.groups for cell in group.counted)


def _cut(run: Run, group: Group, cell: Cell) -> np.ndarray:
    """Return a mask of a cell's ok requests that the server counted: whether the answer was cut."""
    is_full = run.holds_ok(cell.number, "finish_reason", "length")
    is_told = ended_early(run, cell) & ignores_length(run, group)  # by length_not_heeded
    # An answer that the model ended counts as cut if the engine was told not to end it.
    ended = is_short(run, cell) & (is_full | forces_length(run, cell)) & ~is_told
    return np.asarray(ended[run.holds_ok(cell.number, "token_source", "server")])


# Only engine=openai has a key that says whether the length is forced.
_IGNORED = "Ollama and others accept ignore_eos and ignore it: leave out openai.ignore_eos there."


@check(
    "The server ignores the length asked for",
    "It was told to force that length, but these answers ended before it, which looks faster: {}.",
    "Compare only figures per token.",
    OF_LENGTHS,
    marks=True,
)
def length_not_heeded(run: Run) -> Iterator[Case]:
    ignoring = [group for group in run.groups if ignores_length(run, group)]
    remedy = f"{length_not_heeded.remedy} {_IGNORED}" * any(group.engine == "openai" for group in ignoring)
    losses = ((group, cell, ended_early(run, cell)) for group in ignoring for cell in group.counted)
    return (replace(case, remedy=remedy) for case in _lost(losses))


@check(
    "Rates come from requests that did not end",
    "No request ended in these windows, so the tokens are of requests that outlast them: {}.",
    "Use a longer window (load.duration) or shorter answers.",
    RATES,
    marks=True,
)
@of_cells
def none_ended(run: Run, cell: Cell) -> str | None:
    steady = measured_of(run)[cell.number].steadiness
    if steady is None or steady.requests or steady.tokens is None or not steady.tokens.any():
        return None
    return f"{number(float(steady.tokens.mean()))} tokens/s in {number(cell.window_s)} s"


# Share of the words sent. A word is a token or more, except in a tokenizer that merges some words.
PROMPT_CUT_SHARE = 0.9


@check(
    "Prompts were cut",
    "The server counted fewer input tokens than words were sent: {}.",
    "Give the server a longer context, or send shorter conversations. Ollama takes its context from "
    "OLLAMA_CONTEXT_LENGTH when it is started.",
    (*SPEED, "input_tokens"),
    marks=True,
)
def prompts_cut(run: Run) -> Iterator[Case]:
    return _lost(
        (group, cell, run.ok_values(cell.number, "input_tokens") < PROMPT_CUT_SHARE * words)
        for group in run.groups
        for cell in group.counted
        for words in [run.ok_values(cell.number, "sent_words")]
    )


@check(
    "Answers do not have the form asked for",
    "The server was told to force it, but some are not valid, so no program can read them: {}.",
    "See Traffic; use a larger scenario.output_tokens if they are cut.",
    marks=True,
    can_look=validities_of,
)
def answers_not_valid(run: Run) -> Iterator[Case]:
    for each in validities_of(run):
        bad = [f"{each.counts[kind]:,} {kind}" for kind in KINDS if each.counts[kind]]
        share = 1 - each.counts[VALID] / each.n
        if each.is_forced and share > LOST_SHARE:
            what = f"{100 * share:.3g} % of {each.n:,} ({', '.join(bad)})"
            yield of_group(each.group, what)


def _lost(masks: Iterable[tuple[Group, Cell, np.ndarray]]) -> Iterator[Case]:
    """Yield the groups that lost requests. If they lost LOST_SHARE or more, their cells are marked.

    `masks`: for each cell of a group, which of its requests were lost.
    """
    for of_group_masks in grouped(masks, lambda each: each[0].key).values():
        group, lost = of_group_masks[0][0], [(cell, mask) for _, cell, mask in of_group_masks]
        count, total = sum(int(each.sum()) for _, each in lost), sum(len(each) for _, each in lost)
        if count:
            cells = [cell for cell, each in lost if each.any()] if count >= LOST_SHARE * total else []
            yield of_group(group, f"{count:,} of {total:,}", cells)


# --- windows ---------------------------------------------------------------------------------------


@check(
    "Short windows",
    f"Less than {SHORT_WINDOW_S:.0f} s hardly shows throttling and drift, and fewer than {_ENOUGH} ok "
    "requests in a start give no p95: {}.",
    "Use a longer window (load.duration) or a longer trace.",
    of_requests=True,
)
@of_groups
def short_windows(run: Run, group: Group) -> str | None:
    windows = [(len(run.observations(c.number, "e2e_s")), c.window_s or math.inf) for c in group.counted]
    n, window_s = map(min, zip(*windows, strict=True)) if windows else (_ENOUGH, math.inf)
    if n >= _ENOUGH and window_s >= SHORT_WINDOW_S:
        return None
    enough = f" ({_ENOUGH} take {_ENOUGH * window_s / n:,.0f} s)" if 0 < n < _ENOUGH else ""
    return f"{plural(n, 'request')} in {number(window_s)} s{enough}"


@check(
    "The queue only grew",
    "More requests came than the server can answer, so latencies depend on the window's length: {}.",
    "Use a lower load.rate; capacity is about the requests/s that ended, and bench search finds it.",
    FROM_SENDING,
    of_requests=True,
)
@of_cells
def queue_only_grew(run: Run, cell: Cell) -> str | None:
    steady = measured_of(run)[cell.number].steadiness
    if not steady or not steady.is_growing:
        return None
    first, _, last = thirds(steady.in_flight)
    return f"{number(first)} in flight in the window's first third, {number(last)} in its last"


@check(
    "Windows were not steady",
    "Values are means over a change from the window's first third to its last: {}.",
    "Use a longer load.warmup and load.duration, or a lower load.rate; otherwise look at clocks and memory.",
    of_requests=True,
)
def window_drifted(run: Run) -> Iterator[Case]:
    groups = {group.key: group for group in run.groups}
    for (key, metric), drift in window_drifts(gathered(_changes(run)), WINDOW_DRIFT_SHARE).items():
        yield of_group(groups[key], f"{_NAMES[metric]} {drift_words(drift)}")


def _changes(run: Run) -> Iterator[tuple[tuple[tuple[str, str, str], str], float]]:
    for cell in measured_cells(run):
        steady = measured_of(run)[cell.number].steadiness
        # A trace may drift by itself, and a queue that only grew is a finding of its own.
        if not steady or cell.load.kind in ("trace", "batch") or steady.is_growing:
            continue
        for metric in ("ttft_s", "tpot_s"):
            at, seconds, turn = (run.ok_values(cell.number, name) for name in ("sent_ns", metric, "turn"))
            if (change := window_change(at, seconds, turn)) is not None:
                yield (cell.key, metric), change
        first, _, last = thirds(steady.ended if steady.tokens is None else steady.tokens)
        if steady.requests >= REQUESTS_NEEDED and first > 0 and last > 0:
            yield (cell.key, "output_tokens_per_s"), math.log(last / first)


@check(
    "A latency has two humps",
    "The requests form two groups, and a median or mean over both describes neither: {}.",
    "See Latency; separate the two, for example by load.concurrency=1 or engine.prefix_cache=false.",
    of_requests=True,
)
@of_groups
def bimodal(run: Run, group: Group) -> str | None:
    humped = {
        metric: [words for cell in group.counted if (words := _humps(run, cell, metric))]
        for metric in ("ttft_s", "tpot_s")
    }
    most = {metric: humps[0] for metric, humps in humped.items() if 2 * len(humps) > len(group.counted)}
    return ", ".join(f"{_NAMES[metric]} of {words}" for metric, words in most.items())


def _humps(run: Run, cell: Cell, metric: str) -> str | None:
    # Turn by turn, since later ones have longer prompts.
    values, turns = (run.ok_values(cell.number, name) for name in (metric, "turn"))
    for turn in np.unique(turns):
        of_turn = values[(turns == turn) & ~np.isnan(values)]
        if two := humps(of_turn):
            low, high = (f"{number(1e3 * each)} ms" for each in two[:2])
            share = f"{100 * two[2]:.0f} % (n = {len(of_turn):,} requests of a start)"
            return f"turn {turn + 1:.0f}: medians {low}, and {high} in {share}"
    return None


# --- caches -----------------------------------------------------------------------------------------


# The first request of a cell was not new to the server if more than this share of its input was cached.
WARM_SHARE = 0.2


@check(
    "The prefix cache was not empty at first",
    "The first request of a cell found, or may have found, tokens that earlier requests left there: {}.",
    "Use scenario=chat_multi_turn, whose prompts are new in each cell, or engine.prefix_cache=false.",
    ("ttft_s", *OF_LENGTHS),
    marks=True,
)
@of_cells
def cache_not_reset(run: Run, cell: Cell) -> str | None:
    reset = cell.record.cache_reset if cell.record else None
    why = f" ({reset.note})" if reset and reset.note else ""
    # The very first request, in the warm-up. If its usage is silent: whether the cache could be emptied.
    sent_ns = run.values(cell.number, "sent_ns")
    at = int(np.nanargmin(sent_ns)) if not np.isnan(sent_ns).all() else None
    cached, tokens = (
        math.nan if at is None else run.values(cell.number, name)[at]
        for name in ("cached_tokens", "input_tokens")
    )
    if math.isnan(cached + tokens):
        return f"it could not be emptied{why}" if reset and reset.how == "failed" else None
    is_warm = cached > max(WARM_SHARE * tokens, NEW_TOKENS)
    return f"{cached:,.0f} of {tokens:,.0f} tokens{why}" if is_warm else None


@check(
    "Numbers of the prefix cache contradict each other",
    "{}.",
    "See Prefix cache, and go by TTFT; tokens that were not sent before come from another client or a fault.",
    ("cached_share", "prefill_tokens_per_s"),
    marks=True,
)
@of_groups
def cache_misreported(run: Run, group: Group) -> str | None:
    return several(doubts(each for each in served_of(run) if each.group is group and not each.part))
