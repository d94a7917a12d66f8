"""How many tokens a server makes of fixed short prompts: what tells two chat templates apart.

Two servers of one model that count differently do not do the same work: a doubled BOS adds one token to each,
a dropped system prompt makes `system` no longer than `user`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from harness.servers import probe

_Messages = Sequence[Mapping[str, str]]
_USER = {"role": "user", "content": "Name three rivers and the seas that they flow into."}
_SYSTEM = {"role": "system", "content": "You are a geographer. Answer in one short sentence, in plain words."}
_ANSWER = {"role": "assistant", "content": "The Rhine, the Danube and the Rhone."}
_THEN = {"role": "user", "content": "Which of them is the longest?"}
PROMPTS: Mapping[str, _Messages] = {
    "user": (_USER,),
    "system": (_SYSTEM, _USER),
    "turns": (_USER, _ANSWER, _THEN),
}


def count_prompt_tokens(base_url: str, model: str, *, timeout_s: float, key: str | None) -> dict[str, int]:
    """Tokens of each of PROMPTS as the server counts them, by one generation of one token for each; blocks.

    A prompt that it refuses, or for which it gives no usage, is left out.
    """
    counted = {}
    for name, messages in PROMPTS.items():
        body = {"model": model, "messages": list(messages), "max_tokens": 1, "temperature": 0}
        url = f"{base_url.rstrip('/')}/chat/completions"
        answer = probe.request("POST", url, timeout_s=timeout_s, body=body, key=key)
        tokens = _prompt_tokens(answer)
        if tokens is not None:
            counted[name] = tokens
    return counted


def _prompt_tokens(answer: probe.Answer) -> int | None:
    if answer.status != 200:
        return None
    try:
        tokens = json.loads(answer.text)["usage"]["prompt_tokens"]
    except (ValueError, TypeError, KeyError):
        return None
    return tokens if isinstance(tokens, int) and tokens > 0 else None
