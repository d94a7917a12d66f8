"""What is measured: one row per metric, and the values of one cell.

A percentile is given only where the count supports it. Knows no chart and no comparison.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contracts import timing
from harness.errors import UserError

PERCENTILES = (50, 90, 95, 99)
# Gaps of one request are not independent: a percentile of gaps needs requests, too.
REQUESTS_NEEDED = 5


@dataclass(frozen=True)
class Metric:
    """`name` is the stored name (a distribution's values are `<name>.p50` ...); `better`: higher, lower or -.

    `shown_unit` and `shown_scale`: what a person reads is value * shown_scale. `needs_equal_lengths`: it
    depends on how long the answers are, so it is no comparison where they have not the length asked for.
    `may_be_small`: shown with two significant digits however small. `is_additive`: starts' values are
    averaged and compared as they are, not by their logarithms; may be 0, or below. `words`: what a better
    and a worse one is called.
    """

    name: str
    title: str
    unit: str
    better: str
    formula: str
    source: str
    shown_unit: str
    shown_scale: float = 1.0
    digits: int = 1
    is_distribution: bool = False
    needs_equal_lengths: bool = False
    may_be_small: bool = False
    is_additive: bool = False
    words: tuple[str, str] = ("faster", "slower")


def _latency(name: str, title: str, formula: str, source: str, **more: Any) -> Metric:
    return Metric(name, title, "s", "lower", formula, source, "ms", 1e3, is_distribution=True, **more)


_STAMPS = "client's stamps in requests.parquet"
_USAGE = "the server's usage figures"
_ORIGIN = (
    "the origin is the moment it was sent in closed loop, the moment it was due in open loop and in a trace "
    "(coordinated omission)"
)
# A server that sends a chunk per token gives 1 (or a little less: an empty token has none).
SEVERAL_TOKENS = 1.05

METRICS: tuple[Metric, ...] = (
    _latency(
        "ttft_s",
        "time to first token (TTFT)",
        f"from a request's origin to its first chunk that bears content (text, reasoning or a tool call); "
        f"{_ORIGIN}",
        _STAMPS,
    ),
    _latency(
        "itl_s",
        "inter-chunk latency (ITL)",
        "gap between successive content chunks of a request; all gaps of all requests together; a chunk is "
        "not a token",
        _STAMPS,
    ),
    _latency(
        "tpot_s",
        "time per output token (TPOT)",
        "(last content - first content) / (output tokens - 1); undefined below two tokens",
        f"{_STAMPS}; {_USAGE}",
    ),
    _latency(
        "e2e_s",
        "end-to-end time (E2E)",
        f"from a request's origin to the end of the response body; {_ORIGIN}",
        _STAMPS,
        needs_equal_lengths=True,
    ),
    _latency(
        "send_lag_s",
        "send lag",
        "sent - scheduled: how late the client was; in open loop a part of TTFT and E2E",
        _STAMPS,
        is_additive=True,
        words=("earlier", "later"),
    ),
    Metric(
        "output_tokens_per_s",
        "output tokens per second",
        "tokens/s",
        "higher",
        "output tokens that arrived in the window / its length; a request's tokens are spread "
        "evenly over its "
        "content chunks, so requests sent before the window count with their chunks in it; requests without "
        "a token count (failed ones) are left out",
        f"{_STAMPS}; {_USAGE}",
        "tokens/s",
    ),
    Metric(
        "requests_per_s",
        "requests per second",
        "requests/s",
        "higher",
        "ok requests that ended in the window / its length",
        _STAMPS,
        "requests/s",
        digits=2,
        needs_equal_lengths=True,
    ),
    Metric(
        "success_share",
        "success",
        "share",
        "higher",
        "ok requests / all requests sent in the window",
        "outcomes in requests.parquet",
        "%",
        100.0,
        is_additive=True,
        words=("higher", "lower"),
    ),
    Metric(
        "goodput_per_s",
        "goodput",
        "requests/s",
        "higher",
        "requests sent in the window that met every SLO / its length; a failed request meets none",
        "slo.* and client's stamps in requests.parquet",
        "requests/s",
        digits=2,
        is_additive=True,
        needs_equal_lengths=True,
        words=("higher", "lower"),
    ),
    Metric(
        "slo_share",
        "requests that met every SLO",
        "share",
        "higher",
        "requests sent in the window that met every SLO / all requests sent in it",
        "slo.* and client's stamps in requests.parquet",
        "%",
        100.0,
        is_additive=True,
        words=("higher", "lower"),
    ),
    Metric(
        "input_tokens",
        "input tokens",
        "tokens",
        "-",
        "mean over the window's ok requests for which the server gave it",
        _USAGE,
        "tokens per request",
        is_additive=True,
        words=("more", "fewer"),
    ),
    Metric(
        "output_tokens",
        "output tokens",
        "tokens",
        "-",
        "mean over the window's ok requests for which the server, or else load.tokenizer, gave it",
        f"{_USAGE}; tokenizer",
        "tokens per request",
        is_additive=True,
        words=("more", "fewer"),
    ),
    Metric(
        "cached_tokens",
        "cached tokens",
        "tokens",
        "-",
        "mean over the window's ok requests for which the server gave it",
        _USAGE,
        "tokens per request",
        is_additive=True,
        words=("more", "fewer"),
    ),
    Metric(
        "cached_share",
        "prompt tokens from the prefix cache",
        "share",
        "-",
        "cached tokens / input tokens of the window's ok requests for which the server gave both",
        _USAGE,
        "%",
        100.0,
        is_additive=True,
        words=("more", "fewer"),
    ),
    Metric(
        "tokens_per_chunk",
        "tokens per chunk",
        "tokens",
        "-",
        "output tokens / content chunks of the window's ok requests whose tokens are known; above 1, ITL is "
        "the gap between several tokens and the next several",
        f"{_STAMPS}; {_USAGE}",
        "tokens per chunk",
        digits=2,
        is_additive=True,
        words=("more", "fewer"),
    ),
    Metric(
        "memory_peak_bytes",
        "peak memory",
        "bytes",
        "lower",
        "highest sample from the cell's first to its last request; on a host: resident memory (RSS) of the "
        "server's process tree, shared pages counted once per process; on a device: the server's "
        "memory where "
        "NVML attributes it, else all memory in use there",
        "samples at 10 Hz in host.parquet or device.parquet",
        "GiB",
        2.0**-30,
        digits=2,
        words=("smaller", "larger"),
    ),
    Metric(
        "energy_j_per_output_token",
        "energy per output token",
        "J",
        "lower",
        "(mean power in the window - idle power before the start) / output tokens per second; on a device "
        "all of the server's devices together, on a host the CPU's packages, which the load process shares; "
        "unknown of a server that ran already",
        "energy counters (else power) in device.parquet, package_energy_j in host.parquet; idle_power_w in "
        "start.json",
        "J",
        digits=2,
        may_be_small=True,
        is_additive=True,
        words=("less", "more"),
    ),
    Metric(
        "cost_per_million_output_tokens",
        "cost per million output tokens",
        "price.currency",
        "lower",
        "devices x price.gpu_hour / output tokens in an hour x 1,000,000, the reading of prompts included",
        "price.gpu_hour; output_tokens_per_s",
        "price.currency",
        digits=2,
        may_be_small=True,
        words=("cheaper", "dearer"),
    ),
    Metric(
        "launch_s",
        "launch time",
        "s",
        "lower",
        "from the server's spawn to its first good generation; once per start",
        "start.json",
        "s",
        digits=2,
    ),
)
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
LATENCIES = ("ttft_s", "itl_s", "tpot_s", "e2e_s")


def metric_of(name: str) -> Metric:
    """The row of a value's name, with or without its percentile."""
    return BY_NAME[name.partition(".")[0]]


def value_names() -> list[str]:
    """Every value that a cell may have: of a distribution its percentiles (`ttft_s.p95`), else the metric."""
    levels = [f".p{level}" for level in PERCENTILES]
    return [m.name + end for m in METRICS for end in (levels if m.is_distribution else [""])]


def check_metric_name(name: str, key: str) -> None:
    """Raise UserError where no value is called so; `key` is where it was given, such as `until.metric`."""
    names = value_names()
    if name in names:
        return
    if name in BY_NAME:
        near = [each for each in names if each.startswith(f"{name}.")]
        raise UserError(f"{key}={name}: is a distribution; choose from {', '.join(near)}")
    close = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    near = [each for each in names if each in close]
    would_do = f"did you mean {' or '.join(near)}?" if near else "see `bench list metrics`"
    raise UserError(f"{key}={name}: no such metric; {would_do}")


@dataclass(frozen=True)
class Value:
    """A cell's value of one metric, None where it is not defined, over n observations. `requests`: how many
    requests they come from, where one request gives several (gaps)."""

    value: float | None
    n: int
    requests: int | None = None


def is_supported(percentile: int, n: int, requests: int | None = None) -> bool:
    """Whether n observations, of that many requests where a request gives several, support a percentile."""
    return n >= timing.needed(percentile) and (requests is None or requests >= REQUESTS_NEEDED)


def why_missing(name: str, n: int, requests: int | None = None) -> str:
    """A sentence on why a value of this name is not shown, given its n."""
    _, _, level = name.partition(".p")
    if n == 0:
        return "no observation"
    if not level:
        return f"not known; n = {n}"
    wants = f" of {REQUESTS_NEEDED} requests" if requests is not None else ""
    return f"p{level} needs n of {timing.needed(int(level))} or more{wants}, here n = {counted(n, requests)}"


def is_percentile(name: str) -> bool:
    """Whether a value's name is that of a percentile (`ttft_s.p95`)."""
    return ".p" in name


def why_no_mean(name: str, found: Sequence[Value]) -> str:
    """A sentence on why the starts' values have no mean: some lack theirs, or, of the start with the most
    observations, why all do."""
    have = sum(value.value is not None for value in found)
    if have:
        verb = "has" if have == 1 else "have"
        return f"only {have} of {len(found)} starts {verb} enough requests"
    most = max(found, key=lambda value: value.n)
    return why_missing(name, most.n, most.requests)


def counted(n: int, requests: int | None = None) -> str:
    """An n in words: `90`, or `90 of 10 requests`."""
    return f"{n:,}" if requests is None else f"{n:,} of {requests:,} request{'' if requests == 1 else 's'}"


def percentile_values(name: str, observations: np.ndarray, requests: int | None = None) -> dict[str, Value]:
    """Percentiles of a distribution (numpy's linear rule), None where the counts do not support one."""
    n = len(observations)
    return {
        f"{name}.p{level}": Value(
            float(np.percentile(observations, level)) if is_supported(level, n, requests) else None,
            n,
            requests,
        )
        for level in PERCENTILES
    }


def value_of_start(windows: Sequence[Value]) -> Value:
    """A start's value from its windows at one load: that of the only one, else their mean, None where one has
    none; over all their observations."""
    if len(windows) == 1:
        return windows[0]
    known = [each.value for each in windows if each.value is not None]
    requests = [each.requests for each in windows if each.requests is not None]
    return Value(
        sum(known) / len(known) if known and len(known) == len(windows) else None,
        sum(each.n for each in windows),
        sum(requests) if requests else None,
    )


def mean_value(observations: np.ndarray) -> Value:
    """The mean of the observations that are known, and their number."""
    known = observations[~np.isnan(observations)]
    return Value(float(known.mean()) if len(known) else None, len(known))
