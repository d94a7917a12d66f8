"""Types for what a run should find out: objectives, precision, how deployments are compared, prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Literal

from serving_bench.harness.contracts.fitness import GuardMode
from serving_bench.harness.contracts.keys import ANY, COUNT, PART, Range, key, listed_key
from serving_bench.harness.contracts.quality import Quality

SUCCESS: Final = "success"


@dataclass(frozen=True)
class RunTerms:
    """The keys of a run that have no section of their own. Those in a tuple take several values."""

    model: tuple[str, ...] = key(
        ("smollm2-135m",),
        "The models to serve.",
        takes="a name of `bench list models`, a path, or hf:organisation/name",
        foreign="model",
    )
    engine: tuple[str, ...] = listed_key(("llama_cpp",), "The engines to compare.", "engines")
    quantization: tuple[str, ...] = listed_key(
        ("fp16", "gguf-q8_0", "gguf-q4_0"), "What the weights are reduced to.", "quantizations"
    )
    scenario: tuple[str, ...] = listed_key(
        ("chat_multi_turn",),
        "What users say, and when.",
        "scenarios",
        takes="a name of `bench list scenarios`; FILE.py or package:NAME, whose code is run",
    )
    device: str = key(
        "auto", "Where servers run.", takes='auto, cpu, 0, or several as "0,1"', foreign="device"
    )
    repeats: str = key(
        "3..12",
        "How many times each deployment is started.",
        takes="LEAST..MOST, of which a race uses what the answer needs; or N, for all",
        otherwise="3..12, and 5 where nothing can race",
        foreign="looked up",
        ask_above=20,
    )
    seed: int = key(1, "What every random draw comes from.", Range(0, 2**63 - 1))
    guard: GuardMode = key("mark", "What happens on a machine that is not fit to measure.")
    until_share: float | None = key(
        None,
        "Adds repeats until the intervals of until.metric are as narrow as this.",
        PART,
        takes="ci:5%, the half-width that intervals should have, as a share of the mean",
        otherwise="-",
        foreign="looked up",
    )
    quality: tuple[Quality | Literal["off"], ...] = key(
        ("auto",),
        "What each deployment is asked besides its load, to see how well it answers.",
        takes="fidelity, tasks, both, or off; auto: fidelity where two deployments serve a model",
    )
    budget_s: float | Literal["auto"] = key(
        "auto",
        "When a run should have ended.",
        COUNT,
        takes="a duration, such as 8min; auto: twice the planned time (docs/guide.md), at least 8 minutes",
        name="run.budget",
    )


@dataclass(frozen=True)
class RaceTerms:
    """Keys of a race."""

    keep: str | None = key(
        None,
        "The deployment that is started to the end of a race, also when it is beaten.",
        takes="a deployment's label, as `bench plan` prints it",
        otherwise="compare.baseline",
        foreign="label",
    )


@dataclass(frozen=True)
class Repeats:
    """How often each deployment is started: from `least` to `most` times, as a race needs; or as often as
    that if both are one."""

    least: int
    most: int

    @property
    def is_race(self) -> bool:
        return self.least < self.most

    @property
    def text(self) -> str:
        return f"{self.least}..{self.most}" if self.is_race else str(self.most)


def _objective(about: str, allowed: Range = ANY, **more: Any) -> float:
    return key(0.0, about, allowed, otherwise="-", foreign="looked up", **more)


@dataclass(frozen=True)
class SloTerms:
    """The keys of objectives. Those of latency exist for every whole percentile."""

    ttft_s: float = _objective("The TTFT that 95 % of the requests keep.", name="ttft_s.p95")
    tpot_s: float = _objective("The TPOT that 95 % of the requests keep.", name="tpot_s.p95")
    e2e_s: float = _objective("The E2E time that 95 % of the requests keep.", name="e2e_s.p95")
    success_share: float = _objective("The ok requests.", Range(1e-6, 1), takes="a share, such as 99%")
    kl_nats: float = _objective("The same as that key.", name="kl_nats.mean", takes="as quality.limit")
    tasks_share: float = _objective(
        "The same as that key.", name="tasks.score", takes="as quality.least_score"
    )


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
    metric: str = listed_key("output_tokens_per_s", "The metric whose intervals `until` looks at.", "metrics")
    budget_s: float = key(7200.0, "How long `until` may add repeats.", Range(0.1))


COMPARED_METRICS = ("output_tokens_per_s", "ttft_s.p50", "tpot_s.p50", "memory_peak_bytes")


@dataclass(frozen=True)
class CompareTerms:
    """How deployments are compared."""

    margin_share: float = key(0.05, "Ratios within this of 1 count as equal.", PART)
    baseline: str | None = key(
        None,
        "The deployment that the others are compared to.",
        takes="a deployment's label, as `bench plan` prints it",
        otherwise="the leader",
        foreign="label",
    )
    metrics: tuple[str, ...] = listed_key(
        COMPARED_METRICS,
        "The metrics that get verdicts; each further one makes every verdict harder to reach.",
        "metrics",
        takes="names of `bench list metrics`",
        name="metric",
    )

    def __post_init__(self) -> None:
        if self.margin_share < 0:  # a damaged record; its logarithm is taken
            raise ValueError(f"margin_share: {self.margin_share} is below 0")


@dataclass(frozen=True)
class GateTerms:
    """What `bench gate` lets pass.

    `limits`: bounds on quality by key: the highest `slo.kl_nats.mean`, the lowest `slo.tasks.score` (a
    share).
    """

    metric: str = listed_key("output_tokens_per_s", "The metric that must not get worse.", "metrics")
    max_regression_share: float = key(0.05, "By how much it may be worse.", Range(0, 1 - 1e-6))
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchTerms:
    """What `bench search` looks for: the highest load from `lowest` to `highest` that keeps every SLO."""

    over: Literal["concurrency", "rate"] = key("concurrency", "Which load is looked for.")
    lowest: float | None = key(None, "The lowest load to look at.")
    highest: float | None = key(None, "The highest load to look at.", ask_above=256)
    precision_share: float = key(0.05, "How exact the answer is.", PART)
    trials: int = key(3, "The most windows at one load, if it is unclear.", COUNT, ask_above=20)


def bracket(kept: Mapping[float, bool | None]) -> tuple[float | None, float | None]:
    """Return the highest kept load below every broken one, and the lowest broken one. Each may be None.

    `kept`: by load, whether it counts as kept; None if nothing is known of it.
    """
    broken = min((load for load, is_kept in kept.items() if is_kept is False), default=None)
    below = inf if broken is None else broken
    return max((load for load, is_kept in kept.items() if is_kept and load < below), default=None), broken


@dataclass(frozen=True)
class FitTerms:
    """The keys that only `bench fit` has. None takes this machine's."""

    device_memory_bytes: int | None = key(
        None, "The memory of one device.", Range(1 << 20), otherwise="this machine's GPU, else its RAM"
    )


@dataclass(frozen=True)
class Price:
    """What a server's answers cost. None: no such price was given. Cached tokens are a part of the input."""

    gpu_hour: float | None = key(None, "The price of an hour of a device, or of the machine.", Range(0))
    currency: str = key("USD", "What prices are in.", foreign="currency")
    input_tokens: float | None = key(None, "What a running server asks for a million input tokens.", Range(0))
    cached_tokens: float | None = key(None, "The same for cached ones; null: as the rest.", Range(0))
    output_tokens: float | None = key(None, "The same for output tokens.", Range(0))

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
