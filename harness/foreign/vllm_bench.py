"""The result of `vllm bench serve --save-result --save-detailed`: lists with a value for each request."""

from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from harness.contracts import Load
from harness.errors import UserError
from harness.foreign import said

SIGNS = frozenset({"ttfts", "itls"})
_DEFINITIONS = (
    "TTFT is the time to the first chunk of any kind: one that has a role and no content counts, and some "
    "servers send it before they read the prompt",
    "ITL has a gap for each chunk, those without content too, such as the last one of a chat",
    "E2E ends with the last chunk, before the usage and the end of the body",
    "Tokens are the server's where it gave a usage, else the tool's tokenizer's; the file does not say which",
)
_PER_REQUEST = ("start_times", "ttfts", "itls", "input_lens", "output_lens", "errors")


class _Result(msgspec.Struct):
    model_id: str
    request_rate: said.Rate | Literal["inf"]
    start_times: list[said.Seconds]
    ttfts: list[said.Seconds]
    itls: list[list[said.Seconds]]
    input_lens: list[said.Count]
    output_lens: list[said.Count]
    errors: list[str]
    max_concurrency: said.Users | None = None
    burstiness: said.Rate = 1.0


def read(path: Path, content: bytes) -> said.Said:
    """Read one result. Raises UserError."""
    found = said.decoded(content, _Result, str(path))
    lengths = {name: len(getattr(found, name)) for name in _PER_REQUEST}
    if len(set(lengths.values())) > 1:
        unequal = ", ".join(f"{name} {n:,}" for name, n in lengths.items())
        raise UserError(f"{path}: damaged: its lists are not equally long ({unequal})")
    return said.Said(
        tool="vllm bench serve",
        version=None,
        model=said.told(found.model_id),
        loads=[(_load(found), [_request(found, at) for at in range(len(found.ttfts))])],
        definitions=_DEFINITIONS,
        missing=("the tool's version", "when a request was due", "how a request failed"),
    )


def _load(found: _Result) -> Load:
    n, users = len(found.ttfts), found.max_concurrency
    if found.request_rate == "inf":
        return said.load_of(n, users, arrival="poisson" if users else "batch")
    if found.burstiness == 1:
        return said.load_of(n, None, found.request_rate)
    return replace(said.load_of(n, None, found.request_rate, "gamma"), burstiness=found.burstiness)


def _request(found: _Result, at: int) -> said.Request:
    """Return a request. The file has 0 for the times and tokens that a failed one has not."""
    sent_s, ttft_s, error = found.start_times[at], found.ttfts[at], found.errors[at]
    is_ok = ttft_s > 0 and not error
    times_s = accumulate(found.itls[at], initial=sent_s + ttft_s) if ttft_s > 0 else ()
    chunk_ns = [round(each * 1e9) for each in times_s]
    first_ns, last_ns = (chunk_ns[0], chunk_ns[-1]) if chunk_ns else (None, None)
    return said.Request(
        outcome="ok" if is_ok else "failed",
        sent_ns=said.ns(sent_s),
        end_ns=last_ns,
        error=said.told(error) or None,
        first_content_ns=first_ns,
        last_content_ns=last_ns,
        chunk_ns=chunk_ns or None,
        input_tokens=found.input_lens[at],
        output_tokens=found.output_lens[at] if is_ok else None,
    )
