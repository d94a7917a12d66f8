"""What single fields of a server's answer mean: errors and token counts, by whichever server. Pure."""

from typing import Any

SHOWN_CHARACTERS = 200

Tokens = tuple[int | None, int | None, int | None]  # input, output, cached
NO_TOKENS: Tokens = (None, None, None)


def error_message(chunk: Any, kind: str, data: bytes) -> str | None:
    """Return the message of an error. None if this is none.

    OpenAI: {"error": {"message": ...}}; TGI: {"error": "..."}; vLLM: {"object": "error", "message": ...}.
    """
    is_error = isinstance(chunk, dict) and (chunk.get("error") or chunk.get("object") == "error")
    if not is_error and kind != "error":
        return None
    found = chunk
    for name in ("error", "message"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return shown(found.encode() if isinstance(found, str) else data)


def usage_of(usage: Any) -> Tokens:
    """Return input, output and cached tokens as OpenAI has them."""
    if not isinstance(usage, dict):
        return NO_TOKENS
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached)


def timings_of(timings: Any) -> Tokens:
    """Return the same as llama.cpp has them beside `usage`, or without it."""
    if not isinstance(timings, dict):
        return NO_TOKENS
    evaluated, cached = _count(timings.get("prompt_n")), _count(timings.get("cache_n"))
    inputs = None if evaluated is None or cached is None else evaluated + cached
    return inputs, _count(timings.get("predicted_n")), cached


def later(old: Tokens, new: Tokens) -> Tokens:
    """Return each count of `new`, or of `old` if `new` has none."""
    return (
        old[0] if new[0] is None else new[0],
        old[1] if new[1] is None else new[1],
        old[2] if new[2] is None else new[2],
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def shown(data: bytes) -> str:
    """Return the start of it, on one line."""
    return " ".join(data[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace").split())[:SHOWN_CHARACTERS]
