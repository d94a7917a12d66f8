"""The Metric type, and the metrics that only one scenario or kind of load has."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving_bench.harness.contracts import Fact
from serving_bench.reports.data import Cell, Run


@dataclass(frozen=True)
class Value:
    """One value of a metric over n observations, or None if it is not defined.

    `requests`: how many requests the observations come from, if one gives several (gaps). `why`: why there
    is no value, if n does not say it.
    """

    value: float | None
    n: int
    requests: int | None = None
    why: Fact | None = None


@dataclass(frozen=True)
class Metric:
    """One measured quantity.

    `name` is the stored name; a distribution has the values `<name>.p50` and so on. A person reads
    value * shown_scale in shown_unit. `better`: higher, lower or -. `is_additive`: a value may be 0 or below,
    so starts are averaged and compared as they are, not by logarithms. `needs_equal_lengths`: it depends on
    the length of answers, so it is withheld where they differ. `needs_every_start`: there is no mean if a
    start has no value, since the slow starts are those without. `may_be_small`: two significant digits are
    shown, however small the value. `words`: what a better and a worse value are called. Of another package:
    what computes its `value` for a completed cell, or the `observations` whose percentiles it has.
    """

    name: str
    title: str
    formula: str
    source: str
    unit: str
    shown_unit: str
    better: str
    shown_scale: float = 1.0
    digits: int = 1
    is_distribution: bool = False
    needs_every_start: bool = False
    needs_equal_lengths: bool = False
    may_be_small: bool = False
    is_additive: bool = False
    words: tuple[str, str] = ("faster", "slower")
    value: Callable[[Run, Cell], Value] | None = None
    observations: Callable[[Run, Cell], np.ndarray] | None = None


STAMPS = "client's stamps in requests.parquet"
USAGE = "the server's usage figures"
BOTH = f"{STAMPS}; {USAGE}"
ORIGIN = (
    "the origin is the moment the request was sent in a closed loop, and the moment it was due in an open "
    "loop or a trace, so that coordinated omission is counted"
)
# The unit of a cost; each run has a currency of its own.
CURRENCY = "price.currency"
HIGHER, MORE, FEWER = ("higher", "lower"), ("more", "fewer"), ("fewer", "more")

latency = partial(
    Metric, source=STAMPS, unit="s", shown_unit="ms", better="lower", shown_scale=1e3, is_distribution=True
)
tokens_rate = partial(Metric, unit="tokens/s", shown_unit="tokens/s", better="higher")
requests_rate = partial(
    Metric, unit="requests/s", shown_unit="requests/s", better="higher", digits=2, needs_equal_lengths=True
)
share = partial(
    Metric, unit="share", shown_unit="%", better="higher", shown_scale=100.0, is_additive=True, words=HIGHER
)
tokens_each = partial(
    Metric, unit="tokens", shown_unit="tokens per request", better="-", is_additive=True, words=MORE
)
cost = partial(
    Metric,
    unit=CURRENCY,
    shown_unit=CURRENCY,
    better="lower",
    digits=2,
    may_be_small=True,
    words=("cheaper", "dearer"),
)


# --- metrics of one scenario or load ----------------------------------------------------------------


_seconds = partial(
    Metric, source=STAMPS, unit="s", shown_unit="s", better="lower", digits=2, needs_every_start=True
)
_ANSWERS = "output_text, calls and form in requests.parquet; forms in cell.json"
_OF_ONE = "with one user it is the machine's rate, with more a request's own, which includes its waiting"

TRAFFIC_METRICS: tuple[Metric, ...] = (
    tokens_rate(
        "prefill_tokens_per_s",
        "prefill rate (pp)",
        "for fixed and long_context: input tokens not served from a cache / TTFT, each summed over the "
        f"window's ok requests; {_OF_ONE}",
        BOTH,
    ),
    tokens_rate(
        "decode_tokens_per_s",
        "decode rate (tg)",
        "for fixed and long_context: (output tokens - 1) / (last content - first content), each summed over "
        f"the window's ok requests with two content chunks or more; {_OF_ONE}",
        BOTH,
    ),
    share(
        "valid_share",
        "valid answers",
        "for structured_output and agent_loop: valid answers / the window's ok requests; an answer is valid "
        "if all of it is JSON by its schema, or if it has tool calls that each name a known tool and give "
        "JSON by that tool's schema",
        _ANSWERS,
    ),
    Metric(
        "steps_per_s",
        "steps per second",
        "for agent_loop: ok requests that ended in the window / its length; of requests that a user sends at "
        "once only the first counts",
        STAMPS,
        unit="steps/s",
        shown_unit="steps/s",
        better="higher",
        digits=2,
    ),
    _seconds(
        "task_s",
        "time per task",
        "for agent_loop: from the origin of a task's first request to the end of its last, tools included; "
        "mean over the tasks that began in the window and were finished",
    ),
    share(
        "finished_share",
        "tasks finished",
        "for agent_loop: tasks with every step answered / these and the tasks with a failed step, over the "
        "tasks that began in the window; tasks that its end cut are in neither",
        "outcomes and turns in requests.parquet",
    ),
    share(
        "quadratic_share",
        "the quadratic part of TTFT",
        "for long_context: c n^2 / (a + b n + c n^2) at the largest n, fitted to the median TTFT of four "
        "depths or more by least squares of relative errors; n: input tokens not served from a cache",
        BOTH,
        better="-",
        words=MORE,
    ),
    _seconds(
        "makespan_s",
        "makespan",
        "for load.arrival=batch: from the first request's send to the last request's end",
        needs_equal_lengths=True,
    ),
    tokens_rate(
        "batch_tokens_per_s",
        "tokens per second of the batch",
        "for load.arrival=batch: input and output tokens of the ok requests / makespan",
        BOTH,
        needs_every_start=True,
    ),
    _seconds(
        "recovery_s",
        "time to recover",
        "for burst: from the burst until no more requests are in flight than the most before it; unknown if "
        "that is after the last request was sent",
        needs_equal_lengths=True,
    ),
    _seconds(
        "first_answer_s",
        "time to first answer token",
        "for reasoning: from a request's origin to its first chunk that is not reasoning, median; a request "
        "that ended before that counts as later than all others, so there is no median if half of them did",
        shown_unit="ms",
        shown_scale=1e3,
        digits=1,
    ),
    share(
        "thinking_share",
        "share spent thinking",
        "for reasoning: chunks with only reasoning / all content chunks of the window's ok requests",
        STAMPS,
        better="-",
        words=MORE,
    ),
    share(
        "left_share",
        "requests that were left",
        "for code_completion: requests whose user left before their end / all requests sent in the window",
        "outcomes in requests.parquet",
        better="-",
        words=MORE,
    ),
    share(
        "in_time_share",
        "answered in time",
        "for code_completion: requests answered before their user would have left / all requests sent in the "
        "window whose user would leave",
        "outcomes and leave_after_s in requests.parquet",
    ),
    share(
        "swap_share",
        "changes of adapter",
        "for lora_mix: requests of the window that were sent right after one for another adapter / all but "
        "the first",
        "group and sent_ns in requests.parquet",
        better="-",
        words=MORE,
    ),
    requests_rate(
        "answered_per_s",
        "requests answered per second",
        "for code_completion: ok requests that ended in the window / its length, including those answered "
        "before their user would have left",
        STAMPS,
    ),
    share(
        "wasted_share",
        "chunks for users who left",
        "for code_completion: content chunks of requests whose user left / content chunks of these and of "
        "the ok requests",
        STAMPS,
        better="lower",
        words=FEWER,
    ),
)
