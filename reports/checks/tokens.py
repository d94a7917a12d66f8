"""Token counts: unlike between deployments, or between server and tokenizer; and what a chunk is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.cells import Group
from reports.checks.finding import Finding
from reports.frames import Run
from reports.markup import number, several, shown
from reports.metrics import SEVERAL_TOKENS, counted

LENGTHS_DIFFER = 0.02
_Turn = tuple[int, int, int]  # repeat, conversation, turn


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


def token_counts_differ(run: Run) -> Iterator[Finding]:
    """The server's count of output tokens against the tokenizer's, over the requests that have both."""
    said = []
    for group in run.groups:
        server = tokenizer = n = 0
        for cell in group.counted:
            sent = run.window_requests(cell.number)
            kept = sent[(sent["outcome"] == "ok") & (sent["token_source"] == "server")]
            both = kept[kept["output_tokens"].notna() & kept["tokenizer_tokens"].notna()]
            server += int(both["output_tokens"].sum())
            tokenizer += int(both["tokenizer_tokens"].sum())
            n += len(both)
        if n and abs(server - tokenizer) > LENGTHS_DIFFER * max(server, 1):
            said.append(
                f"{group.deployment} at {group.load}: server {server:,}, tokenizer {tokenizer:,} "
                f"({100 * (tokenizer - server) / max(server, 1):+.1f} %; n = {n:,} requests)"
            )
    if said:
        yield Finding(
            "token_counts_differ",
            "Server and tokenizer count differently",
            f"Output tokens: {several(said, '; ')}. The server's count is the one used.",
            "Give the served model's own tokenizer.json; special tokens and tool calls are no text to count.",
        )


def chunks_of_several_tokens(run: Run) -> Iterator[Finding]:
    """Servers that send several tokens in a chunk: their ITL is not the time of one token."""
    most: dict[str, tuple[float, str]] = {}
    for group in run.groups:
        found = run.aggregate(group, "tokens_per_chunk")
        if found.mean is not None and found.mean > max(SEVERAL_TOKENS, most.get(group.deployment, (0.0,))[0]):
            at = f"at {group.load}, n = {counted(found.n, found.requests)}"
            most[group.deployment] = (found.mean, at)
    said = [f"{name}: {shown('tokens_per_chunk', mean)} ({at})" for name, (mean, at) in most.items()]
    if said:
        yield Finding(
            "chunks_of_several_tokens",
            "A chunk is several tokens",
            f"Tokens per chunk, at most: {several(said, '; ')}. There ITL is the gap between several tokens "
            "and the next several.",
            "Compare TPOT, which counts tokens.",
        )
