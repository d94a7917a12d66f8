"""What llama.cpp keeps beside its KV cache, by its log: saved states of conversations, which come with load.

A slot saves the state of its sliding windows at points of a prompt (context checkpoints), to take a prefix up
again; the prompt cache keeps whole states of slots that others took over. Both are in the host's memory.
Read from real logs of xllamacpp 2026.10.11549; the lines of the prompt cache from its source.
"""

from __future__ import annotations

import re

_SLOT = r"id +(\d+) \| task -?\d+ \| "
_CREATED = re.compile(_SLOT + r"created context checkpoint .* n_tokens = (\d+), size = ([\d.]+) MiB")
_ERASED = re.compile(_SLOT + r"(?:erased|erasing|superseding) .*context checkpoint .*?n_tokens = (\d+)")
_CACHE_STATE = re.compile(r"- cache state: \d+ prompts, ([\d.]+) MiB")


def kept_bytes(log: str) -> int:
    """Return the most that saved states took at once; 0 where none was saved."""
    kept: dict[tuple[str, str], float] = {}
    in_cache = most = 0.0
    for line in log.splitlines():
        if created := _CREATED.search(line):
            kept[created[1], created[2]] = float(created[3])
        elif erased := _ERASED.search(line):
            kept.pop((erased[1], erased[2]), None)
        elif state := _CACHE_STATE.search(line):
            in_cache = float(state[1])
        else:
            continue
        most = max(most, sum(kept.values()) + in_cache)
    return round(most * 2**20)
