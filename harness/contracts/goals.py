"""Types for what a run should find out: objectives, precision, how deployments are compared, prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SUCCESS: Final = "success"


@dataclass(frozen=True)
class Objective:
    """One SLO: at least `share` of the requests succeed (`success`), or have `metric` within `limit_s`."""

    metric: Literal["ttft_s", "tpot_s", "e2e_s", "success"]
    share: float
    limit_s: float | None = None

    @property
    def name(self) -> str:
        """Return its name as it was asked for: `ttft_s.p95`, `success`."""
        return self.metric if self.limit_s is None else f"{self.metric}.p{100 * self.share:g}"


@dataclass(frozen=True)
class Until:
    """When to stop adding repeats: once the 95 % interval of `metric`, for every deployment and load, reaches
    no further than `half_width_share` from its mean, or the next block would not end within `budget_s`.
    """

    half_width_share: float
    metric: str = "output_tokens_per_s"
    budget_s: float = 7200.0


# The metrics that get verdicts by default. Each further one makes every verdict harder to reach.
COMPARED_METRICS = ("output_tokens_per_s", "ttft_s.p50", "tpot_s.p50", "memory_peak_bytes")


@dataclass(frozen=True)
class CompareTerms:
    """How deployments are compared. Ratios within `margin_share` of 1 count as equal.

    `baseline`: the label that the others are compared to (None: the leader's).
    """

    margin_share: float = 0.05
    baseline: str | None = None
    metrics: tuple[str, ...] = COMPARED_METRICS

    def __post_init__(self) -> None:
        if self.margin_share < 0:  # a damaged record; its logarithm is taken
            raise ValueError(f"margin_share: {self.margin_share} is below 0")


@dataclass(frozen=True)
class GateTerms:
    """What `bench gate` lets pass: `metric` may be worse by `max_regression_share`.

    `limits`: bounds on quality by key: the highest `slo.kl_nats.mean`, the lowest `slo.tasks.score` (a
    share).
    """

    metric: str = "output_tokens_per_s"
    max_regression_share: float = 0.05
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchTerms:
    """What `bench search` looks for: the highest load from `lowest` to `highest` that keeps every SLO.

    `over`: users (closed loop) or conversations begun per second (open loop). The answer is exact to within
    `precision_share`. `trials`: the most windows at one load as long as it is unclear whether it keeps the
    SLO.
    """

    over: Literal["concurrency", "rate"] = "concurrency"
    lowest: float | None = None
    highest: float | None = None
    precision_share: float = 0.05
    trials: int = 3


@dataclass(frozen=True)
class Price:
    """What a server's answers cost. None: no such price was given.

    `gpu_hour`: the price of one hour of a device (or of the machine) for a server that bench starts. The
    others are what the owner of a running server asks for a million tokens. Cached tokens are a part of the
    input, and cost the same as the rest unless `cached_tokens` is given.
    """

    gpu_hour: float | None = None
    currency: str = "USD"
    input_tokens: float | None = None
    cached_tokens: float | None = None
    output_tokens: float | None = None

    @property
    def is_by_token(self) -> bool:
        return self.input_tokens is not None and self.output_tokens is not None


@dataclass(frozen=True)
class ApiPrice:
    """What a provider asked for the same model, per million tokens, on the date `as_of`."""

    provider: str
    input_per_million: float
    output_per_million: float
    currency: str
    as_of: str
    source: str
