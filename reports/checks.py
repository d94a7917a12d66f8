"""Reasons to distrust a run: one function each, from a run to its findings.

A finding says what was seen, with its numbers, and what would help. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reports.frames import Cell, Group, Run
from reports.markup import number, plural, several, shown
from reports.opening import flat
from reports.processor import foreign_share

LENGTHS_DIFFER = 0.02
FEW_REQUESTS = 100
SHORT_WINDOW_S = 30.0
LATE_LOOP_S = 0.005
WARM_SHARE = 0.2
STARTS_DIFFER = 0.2
FOREIGN_SHARE = 0.15


@dataclass(frozen=True)
class Finding:
    """`text` says what was seen; `remedy` what would help."""

    check: str
    title: str
    text: str
    remedy: str


def findings(run: Run) -> list[Finding]:
    """All findings, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(run)]


def _measured(run: Run) -> list[Cell]:
    return [cell for cell in run.planned_cells if cell.counts]


def _cell_name(cell: Cell) -> str:
    return f"{cell.label} at {cell.load_label}"


def cells_missing(run: Run) -> Iterator[Finding]:
    """Cells that failed, were interrupted or never measured."""
    missing = [cell for cell in run.planned_cells if cell.status != "completed"]
    if missing:
        yield Finding(
            "cells_missing",
            "Cells are missing",
            f"{len(missing)} of {plural(len(run.planned_cells), 'cell')} gave no values "
            f"({several([f'{_cell_name(cell)}: {cell.status}' for cell in missing])}).",
            "See Errors for the reasons; bench run --resume measures them again.",
        )


def cells_marked(run: Run) -> Iterator[Finding]:
    """Cells that the run itself called suspect or invalid."""
    for kind in ("suspect", "invalid"):
        cells = [cell for cell in run.planned_cells if cell.validity == kind]
        if cells:
            reasons = [f"{_cell_name(cell)}: {cell.reason or 'no reason given'}" for cell in cells]
            yield Finding(
                f"cells_{kind}",
                f"Cells are {kind}",
                f"{plural(len(cells), 'cell')} ({several(reasons)}).",
                "They are left out of the values." if kind == "invalid" else "They count, and are marked.",
            )


def requests_failed(run: Run) -> Iterator[Finding]:
    """Requests of the windows that failed: what is left may be the easy ones."""
    said = []
    for group in run.groups:
        sent = [run.window_requests(cell.number) for cell in group.counted]
        count = sum(int((frame["outcome"] != "ok").sum()) for frame in sent)
        total = sum(map(len, sent))
        if count:
            said.append(f"{group.deployment} at {group.load}: {count:,} of {total:,}")
    if said:
        yield Finding(
            "requests_failed",
            "Requests failed",
            f"{several(said)}; latencies are of the others.",
            "See Errors; a slow server that drops requests looks fast.",
        )


def single_repeat(run: Run) -> Iterator[Finding]:
    """One start per deployment: its luck is not told from its speed."""
    alone = [group.deployment for group in run.groups if len(group.counted) == 1]
    if alone:
        yield Finding(
            "single_repeat",
            "A single start",
            f"{several(alone)} {'was' if len(set(alone)) == 1 else 'were'} measured on one start "
            "only; start-up "
            "luck and drift cannot be told from the engine.",
            "repeats=3 or more.",
        )
    if any(record.attached for record in run.start_records):
        yield Finding(
            "attached",
            "The server was not started by bench",
            "Repeats are blocks on one start, and its settings, load and memory are not known.",
            "Let bench start the engine.",
        )


def few_requests(run: Run) -> Iterator[Finding]:
    """Windows with too few requests for a tail percentile."""
    counts = [len(run.observations(cell.number, "e2e_s")) for cell in _measured(run)]
    few = [n for n in counts if n < FEW_REQUESTS]
    if few:
        yield Finding(
            "few_requests",
            "Few requests",
            f"{len(few)} of {plural(len(counts), 'cell')} have fewer than {FEW_REQUESTS} ok "
            "requests in the window "
            f"(the fewest: {min(few):,}); no tail percentile, and a median that moves.",
            "A longer load.duration.",
        )


def short_windows(run: Run) -> Iterator[Finding]:
    """Windows too short to see drift."""
    lengths = [cell.window_s for cell in _measured(run) if cell.window_s is not None]
    short = [length for length in lengths if length < SHORT_WINDOW_S]
    if short:
        yield Finding(
            "short_windows",
            "Short windows",
            f"{len(short)} of {plural(len(lengths), 'window')} are shorter than "
            f"{SHORT_WINDOW_S:.0f} s (the shortest: "
            f"{number(min(short))} s); throttling and drift take longer to show.",
            "load.duration=60s.",
        )


def _by_case(run: Run) -> Iterator[tuple[str, list[Group]]]:
    cases = dict.fromkeys((group.scenario, group.load) for group in run.groups)
    for scenario, load in cases:
        yield load, [group for group in run.groups if (group.scenario, group.load) == (scenario, load)]


def output_lengths_differ(run: Run) -> Iterator[Finding]:
    """Deployments whose answers to the same turns differ in length at the same load."""
    said = []
    for load, groups in _by_case(run):
        means = {name: _mean(found) for name, found in _same_turns(run, groups, "output_tokens").items()}
        if pair := _differing(means):
            said.append(f"at {load} {pair} tokens per request")
    if said:
        yield Finding(
            "output_lengths_differ",
            "Output lengths differ",
            f"{several(said)}.",
            "Compare figures per token only, not E2E or requests/s.",
        )


def input_lengths_differ(run: Run) -> Iterator[Finding]:
    """Deployments whose prompts of the same turns differ in tokens, at the same load."""
    said = []
    for load, groups in _by_case(run):
        shared = _same_turns(run, groups, "input_tokens")
        for turn in sorted({key[2] for found in shared.values() for key in found}):
            means = {
                name: _mean({key: value for key, value in found.items() if key[2] == turn})
                for name, found in shared.items()
            }
            if pair := _differing(means):
                said.append(f"at {load}, turn {turn + 1}: {pair} tokens")
                break
    if said:
        yield Finding(
            "input_lengths_differ",
            "Input tokens differ",
            f"{several(said)}: another tokenizer, another chat template, or other answers in the history.",
            "scenario.history=scripted sends the same text to all.",
        )


_Turn = tuple[int, int, int]  # repeat, conversation, turn


def _same_turns(run: Run, groups: Sequence[Group], column: str) -> dict[str, dict[_Turn, float]]:
    """Per deployment, a token count of the turns that all of them answered; the fast ones play more turns,
    and those would be no comparison."""
    found: dict[str, dict[_Turn, float]] = {}
    for group in groups:
        for cell in group.counted:
            rows = run.requests[run.requests["cell"] == cell.number]
            ok = rows[(rows["outcome"] == "ok") & rows[column].notna()]
            values = zip(ok["conversation"], ok["turn"], ok[column], strict=True)
            turns = {
                (cell.planned.repeat, int(number), int(turn)): float(tokens)
                for number, turn, tokens in values
            }
            found.setdefault(group.deployment, {}).update(turns)
    shared = set.intersection(*(set(turns) for turns in found.values())) if found else set()
    return {name: {key: turns[key] for key in shared} for name, turns in found.items()}


def _mean(found: dict[_Turn, float]) -> float | None:
    return sum(found.values()) / len(found) if found else None


def _differing(means: dict[str, float | None]) -> str | None:
    """The least and the greatest, where they differ by more than LENGTHS_DIFFER."""
    known = sorted((mean, name) for name, mean in means.items() if mean is not None)
    if len(known) < 2 or known[-1][0] <= known[0][0] * (1 + LENGTHS_DIFFER):
        return None
    return f"{known[0][1]} {number(known[0][0])} against {known[-1][1]} {number(known[-1][0])}"


def client_late(run: Run) -> Iterator[Finding]:
    """The load process itself was late."""
    lags = [
        (cell.summary.loop_lag_s[1], cell)
        for cell in _measured(run)
        if cell.summary and cell.summary.loop_lag_s
    ]
    late = [pair for pair in lags if pair[0] > LATE_LOOP_S]
    if late:
        worst, cell = max(late, key=lambda pair: pair[0])
        yield Finding(
            "client_late",
            "The client was late",
            f"In {len(late)} of {plural(len(lags), 'cell')} the load process's 10 ms timer was more than "
            f"{number(LATE_LOOP_S * 1e3, 0)} ms late at p99 (worst: {number(worst * 1e3)} ms, "
            f"{_cell_name(cell)}); "
            "requests left that much later.",
            "Free cores for the client, or fewer users.",
        )


def stamps_not_kernel(run: Run) -> Iterator[Finding]:
    """Arrivals stamped by the client after reading, not by the kernel."""
    cells = [cell for cell in _measured(run) if cell.summary and cell.summary.stamp_source != "kernel"]
    if cells:
        yield Finding(
            "stamps_not_kernel",
            "Arrivals are stamped after reading",
            f"In {plural(len(cells), 'cell')} the system gave no receive times; a busy client adds "
            "its own lag to "
            "every latency.",
            "Linux gives them for plain HTTP.",
        )


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


def weights_noted(run: Run) -> Iterator[Finding]:
    """What the origin of the weights means for the comparison."""
    notes: dict[str, list[str]] = {}
    for record in run.start_records:
        if note := record.weights.get("note"):
            notes.setdefault(str(note), []).append(record.deployment.label)
    for note, labels in notes.items():
        remedy = "Speed and memory are those of the format; quality is not."
        yield Finding(
            "weights_noted", "Origin of the weights", f"{several(labels)}: {note.rstrip('.')}.", remedy
        )


def cores_shared(run: Run) -> Iterator[Finding]:
    """Client and server on the same processor."""
    if any(record.memory_kind == "host" and not record.attached for record in run.start_records):
        yield Finding(
            "cores_shared",
            "Client and server share the cores",
            "The servers ran on the processor that also ran the load, so each slows the other, "
            "more so with more users.",
            "Figures of one machine, and of this arrangement only.",
        )


def repeats_disagree(run: Run) -> Iterator[Finding]:
    """Starts of one deployment at one load whose values lie far apart."""
    said = []
    for group in run.groups:
        for name, title in (("output_tokens_per_s", "output tokens/s"), ("ttft_s.p50", "TTFT p50 ms")):
            found = run.aggregate(group, name)
            if found.mean is None or found.low is None or found.high is None or found.k < 2:
                continue
            share = (found.high - found.low) / found.mean if found.mean else 0.0
            if share > STARTS_DIFFER:
                values = f"{shown(name, found.low)} to {shown(name, found.high)}"
                text = (
                    f"{group.deployment} at {group.load}: {title} {values} ({100 * share:.0f} % of the mean)"
                )
                said.append((share, text))
    if said:
        yield Finding(
            "repeats_disagree",
            "Starts disagree",
            f"{several([text for _, text in sorted(said, reverse=True)], '; ')}.",
            "More repeats, and a quiet machine.",
        )


def foreign_load(run: Run) -> Iterator[Finding]:
    """Processor time in the windows that neither the server nor the load process used."""
    shares = [(share, cell) for cell in _measured(run) if (share := foreign_share(run, cell)) is not None]
    busy = sorted((pair for pair in shares if pair[0] > FOREIGN_SHARE), key=lambda pair: -pair[0])
    if busy:
        said = [f"{_cell_name(cell)}, start {cell.planned.repeat + 1}: {100 * s:.0f} %" for s, cell in busy]
        yield Finding(
            "foreign_load",
            "Other programs used the processor",
            f"In {len(busy)} of {plural(len(shares), 'cell')} more than {100 * FOREIGN_SHARE:.0f} % of the "
            f"machine went to neither the server nor the client ({several(said, '; ')}).",
            "Stop other programs, and measure again.",
        )


def memory_not_returned(run: Run) -> Iterator[Finding]:
    """Memory that was not back after a server had stopped."""
    stuck = [record for record in run.start_records if record.returned_to_baseline is False]
    if stuck:
        above = [
            f"{r.name}: {shown('memory_peak_bytes', r.after_bytes - r.baseline_bytes)} GiB above"
            for r in stuck
            if r.after_bytes is not None and r.baseline_bytes is not None
        ]
        yield Finding(
            "memory_not_returned",
            "Memory was not back at its baseline",
            f"after {plural(len(stuck), 'start')} ({several(above or [r.name for r in stuck])}); "
            "the next start began "
            "with less.",
            "Look for other programs, and measure again.",
        )


def machine_busy(run: Run) -> Iterator[Finding]:
    """Other work on the machine when the run began."""
    facts = {key.rpartition(".")[2]: value for key, value in flat(run.record.environment)}
    load, cores = facts.get("load_1min"), facts.get("cores_usable") or facts.get("cores_logical")
    if isinstance(load, int | float) and isinstance(cores, int) and load > 0.5 * cores:
        yield Finding(
            "machine_busy",
            "The machine was busy",
            f"Its load was {number(load)} on {plural(cores, 'core')} when the run began.",
            "Measure on a quiet machine.",
        )


CHECKS: tuple[Callable[[Run], Iterator[Finding]], ...] = (
    cells_missing,
    cells_marked,
    requests_failed,
    output_lengths_differ,
    input_lengths_differ,
    single_repeat,
    repeats_disagree,
    few_requests,
    short_windows,
    client_late,
    stamps_not_kernel,
    warm_cache,
    cores_shared,
    machine_busy,
    foreign_load,
    memory_not_returned,
    weights_noted,
    quality_not_measured,
)
