"""What is measured: one row per metric, and when a percentile is given. Knows no run, chart or comparison."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from harness.contracts import timing
from harness.errors import UserError
from reports.measures.metric import (
    BOTH,
    FEWER,
    HIGHER,
    MORE,
    ORIGIN,
    STAMPS,
    TRAFFIC_METRICS,
    USAGE,
    Metric,
    latency,
    requests_rate,
    share,
    tokens_each,
    tokens_rate,
)

PERCENTILES = (50, 90, 95, 99)
# Gaps of one request are not independent: a percentile of gaps needs requests, too.
REQUESTS_NEEDED = 5
# The share of requests, lost, cut or not valid, from which on numbers are of other work.
LOST_SHARE = 0.01
# An end by bench or the scenario is no failure.
NOT_FAILED = ("ok", "cancelled", "left")
_CPU = "cpu_s of the server's process tree in host.parquet (10 Hz)"
_GIVEN = "mean over the window's ok requests for which the server gave it"
_kv_waste = partial(share, source=BOTH, better="-", words=MORE)
_WASTED = (
    "over the window's ok requests and the time from their first to their last content chunk; computed, "
    "whatever the server did"
)

METRICS: tuple[Metric, ...] = (
    latency(
        "ttft_s",
        "time to first token (TTFT)",
        "from a request's origin to its first chunk that bears content (text, reasoning or a tool call); "
        + ORIGIN,
    ),
    latency(
        "itl_s",
        "inter-chunk latency (ITL)",
        "gap between successive content chunks of a request; all requests together; a chunk is no token",
    ),
    latency(
        "tpot_s",
        "time per output token (TPOT)",
        "(last content - first content) / (output tokens - 1); undefined below two tokens",
        source=BOTH,
    ),
    latency(
        "e2e_s",
        "end-to-end time (E2E)",
        f"from a request's origin to the end of the response body; {ORIGIN}",
        needs_equal_lengths=True,
    ),
    latency(
        "send_lag_s",
        "send lag",
        "sent - scheduled: how late the client was; in open loop a part of TTFT and E2E",
        is_additive=True,
        words=("earlier", "later"),
    ),
    tokens_rate(
        "output_tokens_per_s",
        "output tokens per second",
        "output tokens that arrived in the window / its length; a request's tokens are spread evenly over "
        "its content chunks, so requests sent before the window count with their chunks in it; requests "
        "without a token count (failed ones) are left out, and those whose user would leave",
        BOTH,
    ),
    requests_rate(
        "requests_per_s",
        "requests per second",
        "ok requests that ended in the window / its length, without those whose user would leave",
        STAMPS,
    ),
    tokens_rate(
        "input_tokens_per_s",
        "input tokens per second",
        "input tokens of ok requests whose first content chunk came in the window / its length, those that "
        "the prefix cache served included",
        BOTH,
        needs_equal_lengths=True,
    ),
    share(
        "success_share",
        "success",
        "ok requests / requests sent in the window that their user would not leave",
        "outcomes in requests.parquet",
    ),
    requests_rate(
        "goodput_per_s",
        "goodput",
        "requests sent in the window by users who stay that met every SLO / its length; a failed request "
        "meets none",
        f"slo.* and {STAMPS}",
        words=HIGHER,
    ),
    share(
        "slo_share",
        "requests that met every SLO",
        "requests sent in the window by users who stay that met every SLO / all that they sent in it",
        f"slo.* and {STAMPS}",
    ),
    tokens_each("input_tokens", "input tokens", _GIVEN, USAGE),
    tokens_each("output_tokens", "output tokens", f"{_GIVEN}, or else load.tokenizer", f"{USAGE}; tokenizer"),
    tokens_each("cached_tokens", "cached tokens", _GIVEN, USAGE),
    share(
        "cached_share",
        "prompt tokens from the prefix cache",
        "cached tokens / input tokens of the window's ok requests for which the server gave both",
        USAGE,
        better="-",
        words=MORE,
    ),
    tokens_each(
        "tokens_per_chunk",
        "tokens per chunk",
        "output tokens / content chunks of the window's ok requests whose tokens are known; above 1, ITL is "
        "the gap between several tokens and the next several",
        BOTH,
        shown_unit="tokens per chunk",
        digits=2,
    ),
    Metric(
        "memory_peak_bytes",
        "peak memory",
        "highest sample from the cell's first to its last request; on a host: resident memory (RSS) of the "
        "server's process tree, shared pages counted once per process; on a device: the server's memory "
        "where NVML attributes it, else all memory in use there",
        "samples at 10 Hz in host.parquet or device.parquet",
        unit="bytes",
        shown_unit="GiB",
        better="lower",
        shown_scale=2.0**-30,
        digits=2,
        words=("smaller", "larger"),
    ),
    _kv_waste(
        "kv_waste_contiguous_share",
        "KV cache that contiguous slots would waste",
        "1 - tokens held / engine.context_length, " + _WASTED,
    ),
    _kv_waste(
        "kv_waste_paged_share",
        "KV cache that blocks of 16 tokens would waste",
        "1 - tokens held / tokens of the blocks that they need, " + _WASTED,
    ),
    Metric(
        "cores_used",
        "cores used",
        "processor time of the server's processes / time, from the window's first to its last sample",
        _CPU,
        unit="cores",
        shown_unit="cores",
        better="-",
        digits=2,
        words=FEWER,
    ),
    tokens_rate(
        "output_tokens_per_s_per_core",
        "output tokens per second and core",
        "output_tokens_per_s / cores_used, of a server that computes on the host's processor",
        f"output_tokens_per_s; {_CPU}",
        shown_unit="tokens/s per core",
        words=("more", "less"),
    ),
    Metric(
        "energy_j_per_output_token",
        "energy per output token",
        "(mean power in the window - idle power before the start) / output tokens per second; on a device "
        "all of the server's devices together, on a host the CPU's packages, which the load process shares; "
        "unknown of a server that ran already",
        "energy counters (else power) in device.parquet or host.parquet; idle_power_w in start.json",
        unit="J",
        shown_unit="J",
        better="lower",
        digits=2,
        may_be_small=True,
        is_additive=True,
        words=("less", "more"),
    ),
    Metric(
        "cost_per_million_output_tokens",
        "cost per million output tokens",
        "devices x price.gpu_hour / output tokens in an hour x 1,000,000, the reading of prompts included; "
        "of a server that ran already: what the tokens of the window's ok requests cost by "
        "price.input_tokens, price.cached_tokens and price.output_tokens / output tokens x 1,000,000",
        f"price.gpu_hour; output_tokens_per_s; {USAGE}",
        unit="price.currency",
        shown_unit="price.currency",
        better="lower",
        digits=2,
        may_be_small=True,
        words=("cheaper", "dearer"),
    ),
    Metric(
        "cost_per_request",
        "cost per request",
        f"what a request's tokens cost by the prices of tokens, of a server that ran already; {_GIVEN}",
        f"price.input_tokens, price.cached_tokens, price.output_tokens; {USAGE}",
        unit="price.currency",
        shown_unit="price.currency",
        better="lower",
        digits=2,
        needs_equal_lengths=True,
        may_be_small=True,
        words=("cheaper", "dearer"),
    ),
    Metric(
        "launch_s",
        "launch time",
        "from the server's spawn to its first good generation; once per start",
        "start.json",
        unit="s",
        shown_unit="s",
        better="lower",
        digits=2,
    ),
    *TRAFFIC_METRICS,
)
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
LATENCIES = ("ttft_s", "itl_s", "tpot_s", "e2e_s")


def metric_of(name: str) -> Metric:
    """Return the row of a value's name, with or without its percentile."""
    return BY_NAME[name.partition(".")[0]]


def value_names() -> list[str]:
    """Return the names of all values: percentiles of a distribution (`ttft_s.p95`), else the metric."""
    levels = [f".p{level}" for level in PERCENTILES]
    return [m.name + end for m in METRICS for end in (levels if m.is_distribution else [""])]


def check_metric_name(name: str, key: str) -> None:
    """Raise UserError where no value is called so; `key` is where it was given, such as `until.metric`."""
    if name not in (names := value_names()):
        near = [each for each in names if len(name) > 2 and each.startswith(f"{name}_")][:4]
        near = near or sorted(difflib.get_close_matches(name, names, n=4, cutoff=0.65), key=names.index)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"{key}={name}: no such metric; {meant}see `bench list metrics`")


# --- values ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """One value of a metric over n observations, None where it is not defined. `requests`: how many requests
    they come from, where one request gives several (gaps). `why` it is not defined,
    where n does not say it."""

    value: float | None
    n: int
    requests: int | None = None
    why: str | None = None


def is_supported(percentile: int, n: int, requests: int | None = None) -> bool:
    """Return whether n observations, of that many requests where one gives several, support a percentile."""
    return n >= timing.needed(percentile) and (requests is None or requests >= REQUESTS_NEEDED)


def why_missing(name: str, found: Value) -> str:
    """Return a sentence on why a value of this name is not shown."""
    _, _, level = name.partition(".p")
    n, requests = found.n, found.requests
    if found.why:
        return found.why
    if n == 0:
        return "no observation"
    if not level:
        return f"not known; n = {n}"
    wants = f" of {REQUESTS_NEEDED} requests" if requests is not None else ""
    return f"p{level} needs n of {timing.needed(int(level))} or more{wants}, here n = {counted(n, requests)}"


def counted(n: int, requests: int | None = None) -> str:
    """Return an n in words: `90`, or `90 of 10 requests`."""
    return f"{n:,}" if requests is None else f"{n:,} of {requests:,} request{'' if requests == 1 else 's'}"


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of values that are all known; None otherwise, and of none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def value_of_start(windows: Sequence[Value]) -> Value:
    """Return a start's value from its windows at one load: their mean, None where one has none."""
    requests = [each.requests for each in windows if each.requests is not None]
    n = sum(each.n for each in windows)
    why = next((each.why for each in windows if each.why), None)
    return Value(mean([each.value for each in windows]), n, sum(requests) if requests else None, why)
