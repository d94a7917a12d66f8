"""Token counts: server against tokenizer, and what a chunk is."""

from __future__ import annotations

from collections.abc import Iterator

from reports.checks.finding import Finding
from reports.equal_work import LENGTHS_DIFFER
from reports.frames import Run
from reports.markup import several, shown
from reports.metrics import SEVERAL_TOKENS, counted


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
