"""The metrics, one row each, and how many observations a percentile needs.

Knows no run, chart or comparison.
"""

import difflib
from collections.abc import Sequence
from functools import partial

from serving_bench.harness.contracts import Fact, because, timing
from serving_bench.harness.errors import UserError
from serving_bench.harness.plugins import Table
from serving_bench.reports.measures.metric import (
    BOTH,
    FEWER,
    HIGHER,
    MORE,
    ORIGIN,
    STAMPS,
    TRAFFIC_METRICS,
    USAGE,
    Metric,
    cost,
    latency,
    requests_rate,
    share,
    tokens_each,
    tokens_rate,
)
from serving_bench.reports.measures.metric import Value as Value

PERCENTILES = (50, 90, 95, 99)
# Gaps of one request are not independent, so a percentile of gaps needs several requests.
REQUESTS_NEEDED = 5
# If this share of requests was lost, cut or invalid, the numbers are of different work.
LOST_SHARE = 0.01
# A request that bench or the scenario ended did not fail.
NOT_FAILED = ("ok", "cancelled", "left")
_CPU = "cpu_s of the server's process tree in host.parquet (10 Hz)"
_GIVEN = "mean over the window's ok requests for which the server reported it"
_kv_waste = partial(share, source=BOTH, better="-", words=MORE)
_WASTED = (
    "over the window's ok requests and the time from their first to their last content chunk; computed from "
    "their lengths, not read from the server"
)

_OWN: tuple[Metric, ...] = (
    latency(
        "ttft_s",
        "time to first token (TTFT)",
        f"from a request's origin to its first chunk with content (text, reasoning or a tool call); {ORIGIN}",
    ),
    latency(
        "itl_s",
        "inter-chunk latency (ITL)",
        "gap between successive content chunks of a request, over all requests; a chunk is not a token",
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
        "sent - scheduled: how late the client was; in an open loop TTFT and E2E include it",
        is_additive=True,
        words=("earlier", "later"),
    ),
    tokens_rate(
        "output_tokens_per_s",
        "output tokens per second",
        "output tokens that arrived in the window / its length; a request's tokens are spread evenly over "
        "its content chunks, so a request sent before the window counts with its chunks in it; requests "
        "without a token count (failed ones) and those whose user would leave are left out",
        BOTH,
    ),
    requests_rate(
        "requests_per_s",
        "requests per second",
        "ok requests that ended in the window / its length; those whose user would leave are left out",
        STAMPS,
    ),
    tokens_rate(
        "input_tokens_per_s",
        "input tokens per second",
        "input tokens of ok requests whose first content chunk came in the window / its length, including "
        "tokens from the prefix cache",
        BOTH,
        needs_equal_lengths=True,
    ),
    share(
        "success_share",
        "success",
        "ok requests / requests sent in the window; those whose user would leave are left out",
        "outcomes in requests.parquet",
    ),
    requests_rate(
        "goodput_per_s",
        "goodput",
        "requests sent in the window that met every SLO / its length; a failed request meets none, and those "
        "whose user would leave are left out",
        f"slo.* and {STAMPS}",
        words=HIGHER,
    ),
    share(
        "slo_share",
        "requests that met every SLO",
        "requests that met every SLO / all sent in the window; those whose user would leave are left out",
        f"slo.* and {STAMPS}",
    ),
    tokens_each("input_tokens", "input tokens", _GIVEN, USAGE),
    tokens_each(
        "output_tokens", "output tokens", f"{_GIVEN} or load.tokenizer counted it", f"{USAGE}; tokenizer"
    ),
    tokens_each("cached_tokens", "cached tokens", _GIVEN, USAGE),
    share(
        "cached_share",
        "prompt tokens from the prefix cache",
        "cached tokens / input tokens of the window's ok requests for which the server reported both",
        USAGE,
        better="-",
        words=MORE,
    ),
    tokens_each(
        "tokens_per_chunk",
        "tokens per chunk",
        "output tokens / content chunks of the window's ok requests whose tokens are known; above 1, ITL is "
        "the gap between groups of tokens",
        BOTH,
        shown_unit="tokens per chunk",
        digits=2,
    ),
    Metric(
        "memory_peak_bytes",
        "peak memory",
        "highest sample from the cell's first to its last request; on a host: resident memory (RSS) of the "
        "server's process tree, with shared pages counted once per process; on a device: the server's memory "
        "if NVML attributes it, otherwise all memory in use there",
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
        "1 - tokens held / tokens that fit in the blocks they need, " + _WASTED,
    ),
    Metric(
        "cores_used",
        "cores used",
        "processor time of the server's processes / elapsed time, from the window's first to its last sample",
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
        "output_tokens_per_s / cores_used, only for a server that computes on the host's processor",
        f"output_tokens_per_s; {_CPU}",
        shown_unit="tokens/s per core",
        words=("more", "less"),
    ),
    Metric(
        "energy_j_per_output_token",
        "energy per output token",
        "(mean power in the window - idle power before the start) / output tokens per second; on a device: "
        "all of the server's devices together; on a host: the CPU packages, which the load process shares; "
        "unknown for a server that was already running",
        "energy counters (otherwise power) in device.parquet or host.parquet; idle_power_w in start.json",
        unit="J",
        shown_unit="J",
        better="lower",
        digits=2,
        may_be_small=True,
        is_additive=True,
        words=("less", "more"),
    ),
    cost(
        "cost_per_million_output_tokens",
        "cost per million output tokens",
        "devices x price.gpu_hour / output tokens per hour x 1,000,000, which includes reading the prompts; "
        "for a server that was already running: cost of the window's ok requests by price.input_tokens, "
        "price.cached_tokens and price.output_tokens / their output tokens x 1,000,000",
        f"price.gpu_hour; output_tokens_per_s; {USAGE}",
    ),
    cost(
        "cost_per_request",
        "cost per request",
        "cost of a request's tokens, only for a server that was already running: mean over the window's ok "
        "requests for which the server reported them",
        f"price.input_tokens, price.cached_tokens, price.output_tokens; {USAGE}",
        needs_equal_lengths=True,
    ),
    Metric(
        "launch_s",
        "launch time",
        "from the server's spawn to its first good generation; one value per start",
        "start.json",
        unit="s",
        shown_unit="s",
        better="lower",
        digits=2,
    ),
    *TRAFFIC_METRICS,
)


def _check(metric: Metric) -> None:
    has_one = (metric.value is None) == metric.is_distribution == (metric.observations is not None)
    if not has_one or metric.better not in ("higher", "lower", "-"):
        raise UserError(
            "give `value`, or `observations` with is_distribution=True; better: higher, lower or -"
        )


BY_NAME = Table("metrics", {metric.name: metric for metric in _OWN}, _check)
METRICS = BY_NAME.values()
LATENCIES = ("ttft_s", "itl_s", "tpot_s", "e2e_s")


def metric_of(name: str) -> Metric:
    """Return the metric of a value's name, given with or without a percentile."""
    return BY_NAME[name.partition(".")[0]]


def value_names() -> list[str]:
    """Return the names of all values: percentiles of a distribution (`ttft_s.p95`), otherwise the metric."""
    return [name for metric in METRICS for name in names_of(metric)]


def names_of(metric: Metric) -> list[str]:
    levels = [f".p{level}" for level in PERCENTILES] if metric.is_distribution else [""]
    return [metric.name + level for level in levels]


def check_metric_name(name: str, key: str) -> None:
    """Raise UserError if no value has this name. `key` is where it was given, such as `until.metric`."""
    if name not in (names := value_names()):
        near = [each for each in names if len(name) > 2 and each.startswith(f"{name}_")][:4]
        near = near or sorted(difflib.get_close_matches(name, names, n=4, cutoff=0.65), key=names.index)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"{key}={name}: no such metric; {meant}see `bench list metrics`")


# --- values ----------------------------------------------------------------------------------------


def is_supported(percentile: int, n: int, requests: int | None = None) -> bool:
    """Return whether n observations support a percentile. `requests`: how many requests they come from, if
    one gives several."""
    return n >= timing.needed(percentile) and (requests is None or requests >= REQUESTS_NEEDED)


def why_missing(name: str, value: Value) -> Fact:
    """Return why a value of this name is not shown."""
    _, _, level = name.partition(".p")
    n, requests = value.n, value.requests
    if value.why:
        return value.why
    if n == 0:
        return because("no_observation")
    if not level:
        return because("value_unknown", n=n)
    needs = {"level": level, "least": timing.needed(int(level)), "n": counted(n, requests)}
    if requests is None:
        return because("percentile_needs", **needs)
    return because("percentile_needs_requests", requests=REQUESTS_NEEDED, **needs)


def counted(n: int, requests: int | None = None) -> str:
    """Return an n in words: `90`, or `90 of 10 requests`."""
    return f"{n:,}" if requests is None else f"{n:,} of {requests:,} request{'' if requests == 1 else 's'}"


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values; None if one is None, or if there are none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None


def value_of_start(windows: Sequence[Value]) -> Value:
    """Return a start's value from its windows at one load: their mean, or None if one has no value."""
    requests = [each.requests for each in windows if each.requests is not None]
    n = sum(each.n for each in windows)
    why = next((each.why for each in windows if each.why), None)
    return Value(mean([each.value for each in windows]), n, sum(requests) if requests else None, why)
