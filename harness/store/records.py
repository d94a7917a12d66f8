"""Define the content of a results directory's JSON files: run.json, start.json and cell.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from serving_bench.harness import contracts
from serving_bench.harness.settings.decoding import as_text

# Keys for which an earlier bench took a bare number as seconds.
_ONCE_BARE = frozenset(
    """
    load.ramp_up load.ramp_down load.warmup load.duration load.grace load.timeout engine.start_timeout
    guard.wait quality.budget quality.tasks_budget run.budget until.budget scenario.think_time
    scenario.left_after scenario.quiet scenario.after reference.ttft reference.itl reference.start_delay
    reference.prefill_per_token
    """.split()  # noqa: SIM905 - a list of 20 quoted words reads worse
)
_BARE = re.compile(r'"?((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"?')


def with_units(settings: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return a record's settings as a user has to write them now: durations with a unit."""
    return {
        key: tuple(map(_in_seconds, values)) if key in _ONCE_BARE else values
        for key, values in settings.items()
    }


def _in_seconds(text: str) -> str:
    bare = _BARE.fullmatch(text)
    return as_text(f"{bare[1]}s") if bare and float(bare[1]) else text


@dataclass(frozen=True)
class NodeRecord:
    """A folder that was merged into a run: the repeats that it measured, from 0, and on which machine.

    `lost_on`: nodes that began these repeats before and were lost.
    """

    repeats: tuple[int, ...]
    environment: Mapping[str, Any]
    lost_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json.

    `settings` maps each dotted key that was given to its values, as text that parses again. `looks` has one
    number for each time that the run ended with an answer: how many starts it had then, failed ones included.
    `standings` were shown while it ran. `nodes` are the machines that measured a merged run; `environment` is
    the first one's. `only_repeat` is the repeat, from 1, that --only-repeat asked for. `foreign` says which
    tool measured an imported run.
    """

    schema_version: int
    run_id: str
    created_at: str  # ISO 8601 with offset
    argv: tuple[str, ...]
    settings: Mapping[str, Sequence[str]]
    plan: contracts.Plan
    environment: Mapping[str, Any]
    status: contracts.RunStatus = "running"
    ended_at: str | None = None
    price: contracts.Price | None = None
    slo: tuple[contracts.Objective, ...] = ()
    until: contracts.Until | None = None
    compare: contracts.CompareTerms = field(default_factory=contracts.CompareTerms)
    search: contracts.SearchTerms | None = None
    quality: contracts.QualityTerms = field(default_factory=contracts.QualityTerms)
    stopped_because: contracts.Fact | None = None
    looks: tuple[int, ...] = ()
    standings: tuple[contracts.Standing, ...] = ()
    nodes: tuple[NodeRecord, ...] = ()
    only_repeat: int | None = None
    foreign: contracts.ForeignSource | None = None
    seal: str = ""  # the last field: see write_record

    @property
    def repeats_cut(self) -> int:
        """Return how many repeats were asked for if run.budget had no time for all of them, else 0."""
        why = self.stopped_because
        repeats = why.values["repeats"] if why and why.kind == "budget_holds" else 0
        return repeats if isinstance(repeats, int) else 0  # a stranger may have written it


@dataclass(frozen=True)
class Phase:
    """A named instant in a start's life: spawned, ready, cell 003 warm-up, cell 003 window, stopping ..."""

    name: str
    t_ns: int


def phase_of(cell: int, name: str) -> str:
    """Return the name of a cell's phase: `cell 003 window`."""
    return f"cell {cell:03d} {name}"


@dataclass(frozen=True)
class StartRecord:
    """The content of start.json: one start of a deployment, up to now if it is still running.

    `argv` and `environment` (variables that were set, and those of bench that matter to the server) hold no
    secrets. `version` is what the server reports, else its environment's. `unmatched`: the common terms that
    the engine cannot be told, each with the reason. `resolved` are the values that the server reports to use.
    `stages` are instants of process_up, weights_loaded, engine_ready, listening, first_token, steady_token.
    `prompt_tokens`, `repeats_answers`, `busy_after_leaving_s` (in its deployment's first start that clients
    left): see servers/probe.py.

    `memory_kind` says whether memory is the machine's or that of the `devices`: `baseline_bytes` before the
    start, `after_bytes` after it. `memory_notes` say why a value was not sampled. `memory_said` are the bytes
    of each part as the server reports them, `memory_expected` as `bench fit` computes them. `idle_power_w`
    was measured before the server started. `is_for_quality`: this start carried no load and was only asked
    for its quality.
    """

    name: str
    index: int
    deployment: contracts.Deployment
    repeat: int
    status: contracts.StartStatus
    attached: bool = False
    spawned_ns: int | None = None
    ready_ns: int | None = None
    stopped_ns: int | None = None
    pid: int | None = None
    exit_code: int | None = None
    error: contracts.Fact | None = None
    log_tail: str | None = None
    memory_kind: str = "host"
    memory_notes: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[int, ...] = ()
    baseline_bytes: int | None = None
    after_bytes: int | None = None
    returned_to_baseline: bool | None = None
    phases: tuple[Phase, ...] = ()
    resolved: Mapping[str, contracts.Scalar] = field(default_factory=dict)
    sampler: Mapping[str, contracts.Scalar] = field(default_factory=dict)
    weights: Mapping[str, contracts.Scalar] = field(default_factory=dict)
    weights_notes: tuple[contracts.Fact, ...] = ()
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    image: Mapping[str, str | None] = field(default_factory=dict)
    stages: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: Mapping[str, int] = field(default_factory=dict)
    repeats_answers: bool | None = None
    busy_after_leaving_s: float | None = None
    unmatched: Mapping[str, contracts.Fact] = field(default_factory=dict)
    forces_length: bool = True
    model_facts: contracts.ModelFacts | None = None
    memory_said: Mapping[str, int] = field(default_factory=dict)
    memory_expected: Mapping[str, int] = field(default_factory=dict)
    idle_power_w: float | None = None
    idle_power_note: str | None = None
    api_prices: tuple[contracts.ApiPrice, ...] = ()
    quality: contracts.QualityRecord | None = None
    is_for_quality: bool = False

    def __post_init__(self) -> None:
        if self.log_tail is not None:  # a server wrote it
            object.__setattr__(self, "log_tail", contracts.inert(self.log_tail, "\n\t"))

    @property
    def notes(self) -> tuple[contracts.Fact, ...]:
        """Return what the origin of its weights means for a comparison; an earlier bench stored one text."""
        earlier = self.weights.get("note")
        return self.weights_notes or ((contracts.quoted(str(earlier)),) if earlier else ())

    @property
    def launch_s(self) -> float | None:
        if self.spawned_ns is None or self.ready_ns is None:
            return None
        return (self.ready_ns - self.spawned_ns) / 1e9


@dataclass(frozen=True)
class CellRecord:
    """The content of cell.json: one cell, measured or not. `start` names the directory of its start.

    `guard` lists what made the machine unfit; `guard_mode` is None if the guard did not look. `forms` are the
    forms that answers had to have; a request's `form` names one of them. `ideal_by` counts requests by how
    their ideal_cached_tokens was found (harness/describe/ideal.py). A request's `group` is an index into
    `adapters`. `was_disturbed`: an attempt that this one replaces was disturbed from outside.
    """

    number: int
    start: str
    deployment: str  # label
    repeat: int
    scenario: contracts.ScenarioChoice
    load: contracts.Load
    seed: int
    status: contracts.CellStatus
    validity: contracts.Validity = "valid"
    reasons: tuple[contracts.Fact, ...] = ()
    error: contracts.Fact | None = None
    summary: contracts.LoadSummary | None = None
    guard: tuple[contracts.GuardFinding, ...] = ()
    guard_mode: contracts.GuardMode | None = None
    cache_reset: contracts.CacheReset | None = None
    forms: tuple[contracts.Form, ...] = ()
    ideal_by: Mapping[str, int] = field(default_factory=dict)
    adapters: tuple[contracts.Adapter, ...] = ()
    was_disturbed: bool = False

    @property
    def why(self) -> contracts.Fact | None:
        """Why it failed, or else all reasons to doubt it; None if there are none."""
        if self.error or not self.reasons:
            return self.error
        return contracts.because("all", facts=self.reasons)

    @property
    def counts(self) -> bool:
        return self.status == "completed" and self.validity != "invalid"

    @property
    def is_disturbed(self) -> bool:
        """Return whether something came into its window from outside."""
        return any(finding.disturbs for finding in self.guard)

    @property
    def worth(self) -> int:
        """Return a rank among attempts at one cell: completed ones by validity, 1 to 3; others 0."""
        return ("invalid", "suspect", "valid").index(self.validity) + 1 if self.status == "completed" else 0

    def replaces(self, earlier: Self) -> bool:
        """Return whether this attempt is worth more, or as much and was less disturbed from outside."""
        if self.worth != earlier.worth or not self.worth:
            return self.worth >= earlier.worth
        now, was = _shares(self.guard), _shares(earlier.guard)
        return now != was and all(share <= was.get(kind, -1.0) for kind, share in now.items())


def _shares(guard: Sequence[contracts.GuardFinding]) -> Mapping[str, float]:
    """Return the largest share of each kind of disturbance."""
    return dict(sorted((each.kind, each.share) for each in guard if each.disturbs))
