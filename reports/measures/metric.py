"""What a metric is, and what those of one kind have in common. Knows no run, chart or comparison."""

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
