"""Read results of `vllm bench serve --save-result --save-detailed`: lists with a value for each request."""

from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from serving_bench.harness.contracts import Load
from serving_bench.harness.errors import UserError
from serving_bench.harness.imports import result

SIGNS = frozenset({"ttfts", "itls"})
_DEFINITIONS = (
    "TTFT is the time to the first chunk of any kind: one with a role and no content counts, and some "
    "servers send it before they read the prompt",
    "ITL has a gap for each chunk, also for those without content, such as the last one of a chat",
    "E2E ends with the last chunk, before the usage and the end of the body",
    "Tokens are the server's where it gave a usage, else the tool's tokenizer's; the file does not say which",
)
_PER_REQUEST = ("start_times", "ttfts", "itls", "input_lens", "output_lens", "errors")


class _Result(msgspec.Struct):
    model_id: str
    request_rate: result.Rate | Literal["inf"]
    start_times: list[result.Seconds]
    ttfts: list[result.Seconds]
    itls: list[list[result.Seconds]]
    input_lens: list[result.Count]
    output_lens: list[result.Count]
    errors: list[str]
    max_concurrency: result.Users | None = None
    burstiness: result.Rate = 1.0


def read(path: Path, content: bytes) -> result.Result:
    """Read one result. Raises UserError."""
    found = result.decoded(content, _Result, str(path))
    lengths = {name: len(getattr(found, name)) for name in _PER_REQUEST}
    if len(set(lengths.values())) > 1:
        unequal = ", ".join(f"{name} {n:,}" for name, n in lengths.items())
        raise UserError(f"{path}: damaged: its lists are not equally long ({unequal})")
    return result.Result(
        tool="vllm bench serve",
        version=None,
        model=result.told(found.model_id),
        loads=[(_load(found), [_request(found, at) for at in range(len(found.ttfts))])],
        definitions=_DEFINITIONS,
        missing=("the tool's version", "when a request was due", "how a request failed"),
    )


def _load(found: _Result) -> Load:
    n, users = len(found.ttfts), found.max_concurrency
    if found.request_rate == "inf":
        return result.load_of(n, users, arrival="poisson" if users else "batch")
    if found.burstiness == 1:
        return result.load_of(n, users, found.request_rate)
    return replace(result.load_of(n, users, found.request_rate, "gamma"), burstiness=found.burstiness)


def _request(found: _Result, at: int) -> result.Request:
    """Return a request. For a failed one the file has 0 in place of missing times and tokens."""
    sent_s, ttft_s, error = found.start_times[at], found.ttfts[at], found.errors[at]
    is_ok = ttft_s > 0 and not error
    is_sent = sent_s > 0 or is_ok
    times_s = accumulate(found.itls[at], initial=sent_s + ttft_s) if ttft_s > 0 and is_sent else ()
    chunk_ns = [round(each * 1e9) for each in times_s]
    first_ns, last_ns = (chunk_ns[0], chunk_ns[-1]) if chunk_ns else (None, None)
    return result.Request(
        outcome="ok" if is_ok else "failed",
        sent_ns=result.ns(sent_s) if is_sent else None,
        end_ns=last_ns,
        error=result.told(error) or None,
        first_content_ns=first_ns,
        last_content_ns=last_ns,
        chunk_ns=chunk_ns or None,
        input_tokens=found.input_lens[at],
        output_tokens=found.output_lens[at] if is_ok else None,
    )
