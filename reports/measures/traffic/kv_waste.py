"""Compute from requests' real lengths how much of a KV cache two ways of reserving it would waste.

A contiguous slot is reserved for the whole context of a request. Blocks are reserved as its tokens come, so
only the last one has room left. The server's own cache is not looked at.
"""

from collections.abc import Mapping

import numpy as np

from serving_bench.reports.measures.metrics import Value

# vLLM's block size on a GPU.
BLOCK_TOKENS = 16
COLUMNS = ("first_content_ns", "last_content_ns", "input_tokens", "output_tokens")


def kv_waste(ok: Mapping[str, np.ndarray], context_tokens: int | None) -> dict[str, Value]:
    """Return both shares over ok requests, given their COLUMNS with NaN where unknown.

    `context_tokens`: the size of a slot. A request counts while its answer comes, with its tokens evenly
    spread over that time. A prefix that requests share counts for each.
    """
    is_known = (ok["output_tokens"] > 0) & ~np.isnan(sum(ok[name] for name in COLUMNS))
    first, last, prompt, answer = (ok[name][is_known] for name in COLUMNS)
    weight = last - first
    held_tokens = weight @ (prompt + (answer + 1) / 2)  # the mean while an answer grows token by token
    in_blocks = weight @ ((_block_sum(prompt + answer) - _block_sum(prompt)) / answer)
    in_slots = weight.sum() * (context_tokens or 0)
    return {
        "kv_waste_contiguous_share": Value(
            float(1 - held_tokens / in_slots) if in_slots else None, len(first)
        ),
        "kv_waste_paged_share": Value(float(1 - held_tokens / in_blocks) if in_blocks else None, len(first)),
    }


def _block_sum(tokens: np.ndarray) -> np.ndarray:
    """Return the sum of the tokens in the blocks that 1, 2, ... `tokens` tokens need."""
    full, rest = np.divmod(tokens, BLOCK_TOKENS)
    return BLOCK_TOKENS * (full + 1) * (BLOCK_TOKENS * full / 2 + rest)
