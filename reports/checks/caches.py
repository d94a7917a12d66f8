"""Reasons to doubt that caches served what they should, and no more."""

from reports.checks.finding import OF_LENGTHS, check, of_cells, of_groups
from reports.data import Cell, Group, Run
from reports.measures import several
from reports.measures.traffic.cache import NEW_TOKENS, doubts, served_of

# From this share of its input on the first request of a cell was not new to the server.
WARM_SHARE = 0.2


@check(
    "The prefix cache was not empty at first",
    "The first request of a cell found input that only others can have left, or may have: {}.",
    "scenario=chat_multi_turn, whose prompts are new to each cell; or engine.prefix_cache=false.",
    ("ttft_s", *OF_LENGTHS),
    marks=True,
)
@of_cells
def cache_not_reset(run: Run, cell: Cell) -> str | None:
    reset = cell.record.cache_reset if cell.record else None
    why = f" ({reset.note})" if reset and reset.note else ""
    # The first request of all, warm-up included; where it does not say, whether the cache could be emptied.
    sent = run.cell_requests(cell.number)[["sent_ns", "cached_tokens", "input_tokens"]]
    first = sent[sent["sent_ns"] == sent["sent_ns"].min()][:1].dropna()
    if first.empty:
        return f"it could not be emptied{why}" if reset and reset.how == "failed" else None
    cached, tokens = float(first["cached_tokens"].iloc[0]), float(first["input_tokens"].iloc[0])
    is_warm = cached > max(WARM_SHARE * tokens, NEW_TOKENS)
    return f"{cached:,.0f} of {tokens:,.0f} tokens{why}" if is_warm else None


@check(
    "What the prefix cache served is not what the server reports",
    "{}.",
    "See Prefix cache; go by the TTFT. What nobody had sent can only be another client's, or a fault.",
    ("cached_share", "prefill_tokens_per_s"),
    marks=True,
)
@of_groups
def cache_misreported(run: Run, group: Group) -> str | None:
    return several(doubts(each for each in served_of(run) if each.group is group and not each.part))
