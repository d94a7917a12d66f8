"""What a metric is, and those of one kind of traffic: a cell has those of its own scenario or load only."""

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Metric:
    """One quantity. `name` is the stored name; values of a distribution are `<name>.p50` and so on.

    What a person reads is value * shown_scale in shown_unit. `better`: higher, lower or -. `is_additive`:
    starts are averaged and compared as they are, not by logarithms, since a value may be 0 or below.
    `needs_equal_lengths`: it depends on how long the answers are, so it is withheld where they differ.
    `needs_every_start`: no mean where a start has no value, since it is the slow ones that have none.
    `may_be_small`: two significant digits are shown, however small. `words`: a better and a worse one.
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


STAMPS = "client's stamps in requests.parquet"
USAGE = "the server's usage figures"
BOTH = f"{STAMPS}; {USAGE}"
ORIGIN = (
    "the origin is the moment it was sent in closed loop, the moment it was due in open loop and in a trace "
    "(coordinated omission)"
)
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


# --- of one kind of traffic -------------------------------------------------------------------------


_seconds = partial(
    Metric, source=STAMPS, unit="s", shown_unit="s", better="lower", digits=2, needs_every_start=True
)
_ANSWERS = "output_text, calls and form in requests.parquet; forms in cell.json"
_OF_ONE = "at one user it is the machine's, at more each request's own, with its waiting and sharing in it"

TRAFFIC_METRICS: tuple[Metric, ...] = (
    tokens_rate(
        "prefill_tokens_per_s",
        "prefill rate (pp)",
        "of fixed and long_context: input tokens that no cache had / TTFT, each summed over the window's ok "
        f"requests; {_OF_ONE}",
        BOTH,
    ),
    tokens_rate(
        "decode_tokens_per_s",
        "decode rate (tg)",
        "of fixed and long_context: (output tokens - 1) / (last content - first content), each summed over "
        f"the window's ok requests of two content chunks or more; {_OF_ONE}",
        BOTH,
    ),
    share(
        "valid_share",
        "valid answers",
        "of structured_output and agent_loop: the window's ok requests whose whole answer is JSON by its "
        "schema, or whose calls, one or more, each name a tool and give JSON by its schema / all of them",
        _ANSWERS,
    ),
    Metric(
        "steps_per_s",
        "steps per second",
        "of agent_loop: ok requests that ended in the window / its length; of those that a user sends at "
        "once the first",
        STAMPS,
        unit="steps/s",
        shown_unit="steps/s",
        better="higher",
        digits=2,
    ),
    _seconds(
        "task_s",
        "time per task",
        "of agent_loop: from a task's first sending to its last step's end, the mean of those that began in "
        "the window and were finished; tools take their time in it",
    ),
    share(
        "finished_share",
        "tasks finished",
        "of agent_loop: tasks that began in the window of which each step was answered / these and those of "
        "which a step failed; those that the window's end cut are in neither",
        "outcomes and turns in requests.parquet",
    ),
    share(
        "quadratic_share",
        "the quadratic part of TTFT",
        "of long_context: c n^2 / (a + b n + c n^2) at the deepest n, fitted to the medians of TTFT of four "
        "depths or more by least squares of relative errors; n: input tokens that no cache had",
        BOTH,
        better="-",
        words=MORE,
    ),
    _seconds(
        "makespan_s",
        "makespan",
        "of load.arrival=batch: from the first sending to the last end of all its requests",
        needs_equal_lengths=True,
    ),
    tokens_rate(
        "batch_tokens_per_s",
        "tokens per second of the batch",
        "of load.arrival=batch: input and output tokens of its ok requests / makespan",
        BOTH,
        needs_every_start=True,
    ),
    _seconds(
        "recovery_s",
        "time to recover",
        "of burst: from the burst to the first instant at which no more requests are in flight than at most "
        "before it; unknown where that is after the last request was sent",
        needs_equal_lengths=True,
    ),
    _seconds(
        "first_answer_s",
        "time to first answer token",
        "of reasoning: from a request's origin to its first chunk that is no reasoning, the median; one that "
        "ended before it is later than any, so where half of them did there is none",
        shown_unit="ms",
        shown_scale=1e3,
        digits=1,
    ),
    share(
        "thinking_share",
        "share spent thinking",
        "of reasoning: chunks with nothing but reasoning / all content chunks of the window's ok requests",
        STAMPS,
        better="-",
        words=MORE,
    ),
    share(
        "left_share",
        "requests that were left",
        "of code_completion: requests whose user went away before their end / all sent in the window",
        "outcomes in requests.parquet",
        better="-",
        words=MORE,
    ),
    share(
        "in_time_share",
        "answered in time",
        "of code_completion: ok requests whose user would have gone away later / all sent in the window whose"
        " user goes away",
        "outcomes and leave_after_s in requests.parquet",
    ),
    share(
        "swap_share",
        "changes of adapter",
        "of lora_mix: requests of the window that the client sent next after one for another adapter / all "
        "but the first",
        "group and sent_ns in requests.parquet",
        better="-",
        words=MORE,
    ),
    Metric(
        "answered_per_s",
        "requests answered per second",
        "of code_completion: ok requests that ended in the window / its length, of users who stay and of "
        "those who were answered in time",
        STAMPS,
        unit="requests/s",
        shown_unit="requests/s",
        better="higher",
        digits=2,
        needs_equal_lengths=True,
    ),
    share(
        "wasted_share",
        "chunks for users who left",
        "of code_completion: content chunks of requests that were left / those of these and of the ok ones",
        STAMPS,
        better="lower",
        words=FEWER,
    ),
)
