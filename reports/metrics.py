"""What is measured: one row per metric, and the values of one cell.

A percentile is given only where the count supports it. Knows no chart and no comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Metric:
    """`name` is the stored name (a distribution's values are `<name>.p50` ...); `better`: higher, lower or -.

    `shown_unit` and `shown_scale`: what a person reads is value * shown_scale.
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


def _latency(name: str, title: str, formula: str, source: str) -> Metric:
    return Metric(name, title, "s", "lower", formula, source, "ms", 1e3, is_distribution=True)


_STAMPS = "client's stamps in requests.parquet"
_USAGE = "the server's usage figures"

METRICS: tuple[Metric, ...] = (
    _latency(
        "ttft_s",
        "time to first token (TTFT)",
        "from the sending of a request to its first chunk that bears content (text, reasoning or a "
        "tool call)",
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
    _latency("e2e_s", "end-to-end time (E2E)", "from the sending to the end of the response body", _STAMPS),
    _latency("send_lag_s", "send lag", "sent - scheduled: how late the client was", _STAMPS),
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
    ),
    Metric(
        "input_tokens",
        "input tokens",
        "tokens",
        "-",
        "mean over the window's ok requests for which the server gave it",
        _USAGE,
        "tokens per request",
    ),
    Metric(
        "output_tokens",
        "output tokens",
        "tokens",
        "-",
        "mean over the window's ok requests for which the server gave it",
        _USAGE,
        "tokens per request",
    ),
    Metric(
        "cached_tokens",
        "cached tokens",
        "tokens",
        "-",
        "mean over the window's ok requests for which the server gave it",
        _USAGE,
        "tokens per request",
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


@dataclass(frozen=True)
class Value:
    """A cell's value of one metric, None where it is not defined, over n observations."""

    value: float | None
    n: int


def needed(percentile: int) -> int:
    """Observations that a percentile p needs: 5 / (1 - p), so that about five lie beyond it; for p50 five."""
    return 5 if percentile == 50 else math.ceil(500 / (100 - percentile))


def why_missing(name: str, n: int) -> str:
    """A sentence on why a value of this name is not shown, given its n."""
    _, _, level = name.partition(".p")
    if n == 0:
        return "no observation"
    return (
        f"p{level} needs n of {needed(int(level))} or more, here n = {n}" if level else f"not known; n = {n}"
    )


def percentile_values(name: str, observations: np.ndarray) -> dict[str, Value]:
    """Percentiles of a distribution (numpy's linear rule), None where n does not support one."""
    n = len(observations)
    return {
        f"{name}.p{level}": Value(
            float(np.percentile(observations, level)) if n >= needed(level) else None, n
        )
        for level in PERCENTILES
    }


def mean_value(observations: np.ndarray) -> Value:
    """The mean of the observations that are known, and their number."""
    known = observations[~np.isnan(observations)]
    return Value(float(known.mean()) if len(known) else None, len(known))
