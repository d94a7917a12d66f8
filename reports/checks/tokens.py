"""Token counts: server against tokenizer, what a chunk is, and answers shorter than asked for."""

from collections.abc import Iterator

from reports.checks.finding import BY_OBJECTIVES, RATES, TOKENS, Finding, numbers
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.equal_work import LENGTHS_DIFFER
from reports.measures.metrics import SEVERAL_TOKENS, counted
from reports.measures.over_starts import aggregate
from reports.measures.written import several, shown


def token_counts_differ(run: Run) -> Iterator[Finding]:
    """The server's count of output tokens against the tokenizer's, over the requests that have both."""
    said, unlike = [], []
    for group in run.groups:
        server = tokenizer = n = 0
        for cell in group.counted:
            ok = run.ok_requests(cell.number, "token_source", "output_tokens", "tokenizer_tokens")
            both = ok[(ok["token_source"] == "server")].dropna()
            server += int(both["output_tokens"].sum())
            tokenizer += int(both["tokenizer_tokens"].sum())
            n += len(both)
        if n and abs(server - tokenizer) > LENGTHS_DIFFER * max(server, 1):
            said.append(
                f"{group.deployment} at {group.load}: server {server:,}, tokenizer {tokenizer:,} "
                f"({100 * (tokenizer - server) / max(server, 1):+.1f} %; n = {n:,} requests)"
            )
            unlike += group.counted
    if said:
        yield Finding(
            "token_counts_differ",
            "Server and tokenizer count differently",
            f"Output tokens: {several(said, '; ')}. The server's count is the one used.",
            "load.tokenizer=FILE with the served model's own tokenizer.json; special tokens and tool calls "
            "are no text to count.",
            cells=numbers(unlike),
            metrics=("tpot_s", "output_tokens", *BY_OBJECTIVES, *TOKENS),
        )


def chunks_of_several_tokens(run: Run) -> Iterator[Finding]:
    """Servers that send several tokens in a chunk: their ITL is not the time of one token."""
    most: dict[str, tuple[float, str]] = {}
    cells: list[Cell] = []
    for group in run.groups:
        found = aggregate(run, group, "tokens_per_chunk")
        cells += group.counted if found.mean is not None and found.mean > SEVERAL_TOKENS else []
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
            "Compare TPOT, which counts tokens: compare.metric=tpot_s.p50.",
            cells=numbers(cells),
            metrics=("itl_s",),
        )


def answers_cut(run: Run) -> Iterator[Finding]:
    """Answers that ended before the length asked for: the context was full, or the engine stopped though it
    was told not to."""
    said, cut = [], []
    for group in run.groups:
        full = stopped = total = 0
        for cell in group.counted:
            columns = ("token_source", "output_tokens", "max_tokens", "finish_reason")
            ok = run.ok_requests(cell.number, *columns)
            ok = ok[ok["token_source"] == "server"]
            # A server that leaves the end-of-sequence token out counts one fewer.
            is_short = (ok["output_tokens"] < ok["max_tokens"] - 1).fillna(False).astype(bool)
            is_full = is_short & (ok["finish_reason"] == "length")
            start = run.start_of(cell)
            is_stopped = is_short & ~is_full & bool(start and start.forces_length)
            full, stopped, total = full + int(is_full.sum()), stopped + int(is_stopped.sum()), total + len(ok)
            cut += [cell] if (is_full | is_stopped).any() else []
        ends = [(full, "by `length`, as where the context is full"), (stopped, "of themselves")]
        words = [f"{count:,} {how}" for count, how in ends if count]
        if words:
            said.append(f"{group.deployment} at {group.load}: {' and '.join(words)}, of {total:,} answers")
    if said:
        yield Finding(
            "answers_cut",
            "Answers were cut short",
            f"Ended before the length asked for: {several(said, '; ')}. Shorter answers look faster.",
            "A longer engine.context_length, or shorter conversations (scenario.turns, "
            "scenario.output_tokens).",
            cells=numbers(cut),
            metrics=("e2e_s", "slo_share", *RATES),
        )
