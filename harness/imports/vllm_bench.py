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
    results = result.decoded(content, _Result, str(path))
    lengths = {name: len(getattr(results, name)) for name in _PER_REQUEST}
    if len(set(lengths.values())) > 1:
        unequal = ", ".join(f"{name} {n:,}" for name, n in lengths.items())
        raise UserError(f"{path}: damaged: its lists are not equally long ({unequal})")
    return result.Result(
        tool="vllm bench serve",
        version=None,
        model=result.told(results.model_id),
        loads=[(_load(results), [_request(results, at) for at in range(len(results.ttfts))])],
        definitions=_DEFINITIONS,
        missing=("the tool's version", "when a request was due", "how a request failed"),
    )


def _load(results: _Result) -> Load:
    n, users = len(results.ttfts), results.max_concurrency
    if results.request_rate == "inf":
        return result.load_of(n, users, arrival="poisson" if users else "batch")
    if results.burstiness == 1:
        return result.load_of(n, users, results.request_rate)
    return replace(result.load_of(n, users, results.request_rate, "gamma"), burstiness=results.burstiness)


def _request(results: _Result, at: int) -> result.Request:
    """Return a request. For a failed one the file has 0 in place of missing times and tokens."""
    sent_s, ttft_s, error = results.start_times[at], results.ttfts[at], results.errors[at]
    is_ok = ttft_s > 0 and not error
    is_sent = sent_s > 0 or is_ok
    times_s = accumulate(results.itls[at], initial=sent_s + ttft_s) if ttft_s > 0 and is_sent else ()
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
        input_tokens=results.input_lens[at],
        output_tokens=results.output_lens[at] if is_ok else None,
    )
