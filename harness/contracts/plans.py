"""Types for loads and the plan: how conversations arrive, and what is started when."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from serving_bench.harness.contracts.deployments import Deployment
from serving_bench.harness.contracts.keys import COUNT, DAY_S, Range, key
from serving_bench.harness.contracts.sentences import Fact

# How many starts of each deployment a verdict needs. Fewer give only numbers: two have one degree of freedom
# and say nearly nothing.
STARTS_NEEDED = 3


@dataclass(frozen=True)
class ScenarioChoice:
    """A scenario with its decoded options (a mapping when read back).

    `span_s`: how long its trace lasts. `ends_itself`: see Scenario. `width`: see ScenarioOptions.
    """

    name: str
    options: Any
    label: str
    span_s: float | None = None
    ends_itself: bool = False
    width: int = 1


Arrival = Literal["constant", "poisson", "gamma", "trace", "batch"]
_LASTS = Range(0, DAY_S)

# load.max_failed looks at the last LAST_REQUESTS of a load process, without those that bench cancelled or
# the user left, once FEWEST_REQUESTS have ended.
LAST_REQUESTS, FEWEST_REQUESTS = 100, 20


# How many times load.duration a window may last if nothing else bounds it, or while all requests fail.
STEPS = 4


@dataclass(frozen=True)
class Load:
    """How conversations arrive. A key has no unit, unlike its field (`load.rate=2/s`).

    Closed loop: `concurrency` users. Open loop: `rate_per_s`. With the arrival `trace` each conversation
    begins at its own `arrival_s`. With `batch` all `conversations` begin at once, and the window lasts until
    the last has ended. A load is exactly one of the four. In runs that other tools measured, a rate or trace
    may have `concurrency` too, as the most conversations at once.

    A cell is ramp-up, warm-up, window, ramp-down, drain. The window ends after `duration_s`; while fewer than
    `min_requests` have been sent in it and ended, it goes on for `duration_s` more, up to `steps` times that
    (None: as long as the run's budget allows, without one STEPS times). It also ends when `conversations`
    have begun and no more are to begin: in an open loop at the instant of the next one, in a closed loop once
    `min_requests` have ended, or nobody is talking.
    """

    concurrency: int | None = key(
        4, "Users with one turn in flight (closed loop).", Range(1, 100_000), ask_above=256
    )
    rate_per_s: float | None = key(
        None, "Conversations begun per second (open loop).", Range(0.001, 100_000), ask_above=256
    )
    arrival: Arrival = key("poisson", "How the beginnings of conversations are spaced.")
    burstiness: float = key(1.0, "Shape of gamma arrivals (1: Poisson; below: burstier).", Range(0.01, 1000))
    speedup: float = key(1.0, "What the arrival times of a trace are divided by.", Range(0.001, 1_000_000))
    ramp_up_s: float = key(0.0, "How long the load grows before the warm-up.", _LASTS, ask_above=600)
    ramp_down_s: float = key(0.0, "How long the load shrinks after the window.", _LASTS, ask_above=600)
    ramp: Literal["linear", "steps"] = key("linear", "Whether a ramp is a line, or stairs.")
    ramp_steps: int = key(4, "The equal steps of a ramp of steps.", Range(1, 1000))
    warmup_s: float = key(1.5, "The time under load before the window.", _LASTS, ask_above=600)
    duration_s: float | None = key(8.0, "How long the window lasts.", Range(0.1, DAY_S), ask_above=600)
    steps: int | None = key(
        None,
        "How many times load.duration a window may last until it has load.min_requests.",
        Range(1, 1000),
        otherwise="as run.budget allows",
        ask_above=20,
    )
    # A start's p50 needs 11; five starts of 13 have the 64 that a pooled p90 needs.
    min_requests: int = key(13, "With fewer requests a window goes on.", COUNT, ask_above=10_000)
    conversations: int | None = key(None, "The most conversations to begin.", COUNT, ask_above=10_000)
    grace_s: float | None = key(
        None,
        "How long conversations may go on after the window; null: its length, at least load.timeout.",
        _LASTS,
    )
    timeout_s: float = key(120.0, "After how long a request is ended as a timeout.", Range(0.1, DAY_S))
    max_failed_share: float | None = key(
        None, "If more of the last requests fail, the cell ends.", Range(0, 1)
    )
    workers: int = key(1, "The load processes that share the load.", Range(1, 256), ask_above=16)
    tokenizer: str | None = key(None, "A tokenizer.json that counts output tokens.", foreign="file")
    keep_bytes: bool = key(False, "Whether to keep every response as it came, not only failed ones.")

    @property
    def kind(self) -> Literal["closed", "open", "trace", "batch"]:
        if self.arrival in ("trace", "batch"):
            return self.arrival
        return "closed" if self.rate_per_s is None else "open"

    @property
    def label(self) -> str:
        """Return what people call it: `8 users`, `2.5/s poisson`, `trace x2`, `a batch of 64`."""
        limit = f", up to {self.concurrency} at once" if self.concurrency else ""
        if self.kind == "trace":
            return f"trace x{self.speedup:g}{limit}"
        if self.kind == "batch":
            return f"a batch of {self.conversations}"
        if self.rate_per_s is not None:
            shape = f" {self.burstiness:g}" if self.arrival == "gamma" else ""
            return f"{self.rate_per_s:g}/s {self.arrival}{shape}{limit}"
        return f"{self.concurrency} user" + ("" if self.concurrency == 1 else "s")


@dataclass(frozen=True)
class PlannedCell:
    """One measurement: one scenario and load on one start.

    `number` counts over the run; `seed` is the same for every deployment.
    """

    number: int
    scenario: ScenarioChoice
    load: Load
    repeat: int
    seed: int


@dataclass(frozen=True)
class PlannedStart:
    index: int
    deployment: Deployment
    repeat: int
    cells: tuple[PlannedCell, ...]

    @property
    def name(self) -> str:
        return f"{self.index:02d}-{self.deployment.slug}"


@dataclass(frozen=True)
class Skip:
    """A combination that was asked for and will not run, with its reason."""

    what: str
    reason: Fact


# Whose answer it is: scenario, model, and with an SLO the family of loads, else an empty text.
AnswerKey = tuple[str, str, str]
# The level that the looks of a race spend together, and the rest of the 5 %, for looks after its end.
RACE_LEVEL, LATER_LEVEL = 0.04, 0.01


@dataclass(frozen=True)
class Departure:
    """That a deployment is in an answer no more, decided at the look after `after` repeats.

    `behind`: the leader that had beaten it; without one `why` is a reason that has nothing to do with speed.
    """

    label: str
    answer: AnswerKey
    after: int
    why: Fact
    behind: str | None = None


@dataclass(frozen=True)
class Race:
    """How a run decides which deployments it starts once more.

    After each repeat a look shows who can still be in an answer. `levels` has the level of the look after
    1, 2 .. `most` repeats, 0 where nobody can be beaten yet; each is divided by the number of answers. They
    were fixed before the first start, and add up to RACE_LEVEL; those of repeats that are added later share
    LATER_LEVEL. A level that is not used is lost.

    `kept` stay in to the end. `looks`: after how many repeats there was a look. `doubted`: who could not win
    at one of them, in which answer. `ended`: after which look an answer was decided. `going`: who is started
    in a next repeat; empty once all answers are decided.
    """

    least: int
    most: int
    levels: tuple[float, ...]
    kept: tuple[str, ...] = ()
    going: tuple[str, ...] = ()
    looks: tuple[int, ...] = ()
    left: tuple[Departure, ...] = ()
    ended: tuple[tuple[AnswerKey, int], ...] = ()
    doubted: tuple[tuple[str, AnswerKey], ...] = ()

    @classmethod
    def of(cls, least: int, most: int, going: Sequence[str], kept: Sequence[str] = ()) -> Self:
        """Return a race that has not begun. A look has the share of the level by which the square of the
        number of repeats has grown, so that most of it is left for when the intervals are narrow."""
        spent = [(repeats / most) ** 2 if repeats >= least else 0.0 for repeats in range(most + 1)]
        levels = (RACE_LEVEL * (now - before) for before, now in itertools.pairwise(spent))
        return cls(least, most, tuple(levels), tuple(kept), tuple(going))

    def raised(self, most: int) -> Self:
        """Return the race with more repeats, whose looks share `later_level` in the same way."""
        were, are = self.most**2, most**2
        levels = (self.later_level * (2 * look - 1) / (are - were) for look in range(self.most + 1, most + 1))
        return replace(self, most=most, levels=(*self.levels, *levels))

    @property
    def later_level(self) -> float:
        """The level that more repeats than the most would have: half of what is left of it."""
        return (RACE_LEVEL + LATER_LEVEL - math.fsum(self.levels)) / 2

    def level(self, look: int) -> float:
        """Return the level of the look after this many repeats, of all answers together; 0 for none."""
        return self.levels[look - 1] if 0 < look <= len(self.levels) else 0.0

    @property
    def may_go_on(self) -> bool:
        return bool(self.going) and self.looked < self.most

    @property
    def looked(self) -> int:
        """After how many repeats the last look was; 0 before the first."""
        return max(self.looks, default=0)

    def look_of(self, answer: AnswerKey) -> int:
        """Return after how many repeats the last look at an answer was; 0 before the first."""
        return dict(self.ended).get(answer, self.looked)

    def left_by(self, answer: AnswerKey) -> dict[str, Departure]:
        return {each.label: each for each in self.left if each.answer == answer}


@dataclass(frozen=True)
class Plan:
    """The starts in order with their cells, and what is skipped. `labels` are in the order asked for.

    `filled`: why the plan gave a common term its value, by the term's name. `race`: None if each deployment
    is started equally often.
    """

    starts: tuple[PlannedStart, ...]
    skips: tuple[Skip, ...]
    estimate_s: float
    labels: tuple[str, ...] = ()
    filled: Mapping[str, str] = field(default_factory=dict)
    race: Race | None = None

    @property
    def deployments(self) -> dict[str, Deployment]:
        by_label = {start.deployment.label: start.deployment for start in self.starts}
        return {
            label: by_label[label] for label in dict.fromkeys([*self.labels, *by_label]) if label in by_label
        }

    @property
    def blocks(self) -> int:
        return max((start.repeat + 1 for start in self.starts), default=0)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Return the numbers of its repeats, from 0: all of them, or only those that were asked for."""
        return tuple(sorted({start.repeat for start in self.starts}))

    def only(self, repeats: Collection[int]) -> Self:
        return replace(self, starts=tuple(start for start in self.starts if start.repeat in repeats))


@dataclass(frozen=True)
class Precision:
    """How precisely a run knows one mean over starts. `case` names the deployment and load.

    `half_width_share`: half the width of its 95 % interval over the mean; infinite for a single start. None:
    there is no such mean, further blocks will not give one, and `why` says why.
    """

    case: str
    half_width_share: float | None
    why: Fact | None = None


@dataclass(frozen=True)
class Standing:
    """How the deployments of one scenario, model and load compare after `repeats` whole repeats.

    It decides nothing. `ratio`: the leader's mean of `metric` over the next one's, inverted if lower is
    better, so that more than 1 is better; None without two deployments.
    """

    repeats: int
    scenario: str
    model: str
    load: str
    metric: str
    leader: str | None
    next: str | None
    ratio: float | None
    words: str
