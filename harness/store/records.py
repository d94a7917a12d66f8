"""What the JSON files of a results directory hold: run.json, start.json, cell.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import contracts
from harness.settings.decoding import as_text

# Keys for which an earlier bench took a bare number, which it meant as seconds.
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
    """Return the settings of a run's record as a user has to write them now: durations with their unit."""
    return {
        key: tuple(map(_in_seconds, values)) if key in _ONCE_BARE else values
        for key, values in settings.items()
    }


def _in_seconds(text: str) -> str:
    bare = _BARE.fullmatch(text)
    return as_text(f"{bare[1]}s") if bare and float(bare[1]) else text


@dataclass(frozen=True)
class NodeRecord:
    """A folder that was merged into a run: which repeats, from 0, it measured, and on which machine.

    `lost_on`: the nodes on which they were begun before, and that were lost.
    """

    repeats: tuple[int, ...]
    environment: Mapping[str, Any]
    lost_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json: what a run is.

    `settings` maps each dotted key that was given to its values, as text that parses again. `looks`: how many
    starts it had, failed ones too, each time that it ended and an answer was given. `standings` were shown
    meanwhile. `nodes`: of a run that was merged, the machines that measured it; `environment` is the first's.
    `only_repeat`: the one, from 1, that was asked for alone. `foreign`: who measured it, if
    bench did not.
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
    stopped_because: str | None = None
    looks: tuple[int, ...] = ()
    standings: tuple[contracts.Standing, ...] = ()
    nodes: tuple[NodeRecord, ...] = ()
    only_repeat: int | None = None
    foreign: contracts.ForeignSource | None = None

    @property
    def repeats_cut(self) -> int:
        """How many repeats were asked for, where run.budget had no time for all of them, else 0."""
        said = re.search(measures_others(r"(\d+)"), self.stopped_because or "")
        return int(said[1]) if said else 0


def measures_others(repeats: int | str) -> str:
    """Return what `stopped_because` says of `repeats` that were asked for and had no time."""
    return f"--resume with repeats={repeats} measures the others"


@dataclass(frozen=True)
class Phase:
    """A named instant in a start's life: spawned, ready, cell 003 warm-up, cell 003 window, stopping ..."""

    name: str
    t_ns: int


@dataclass(frozen=True)
class StartRecord:
    """The content of start.json: one start of a deployment, as far as it has come.

    `argv` and `environment` (what was set, and bench's variables that matter to the server) hold no secrets.
    `version` is what the server reports, else that of its environment. `unmatched`: common terms that the
    engine could not be told, and why. `resolved` is what the server says of itself. `stages` are instants of
    process_up, weights_loaded, engine_ready, listening, first_token, steady_token. `prompt_tokens`: see
    servers/probe.py.

    Memory is the machine's or that of the `devices`, as `memory_kind` says: `baseline_bytes` before the
    start, `after_bytes` after it. `memory_notes` say why a value was not sampled. `memory_said` are bytes of
    its parts as the server reports them, `memory_expected` as `bench fit` computes them. `idle_power_w` was
    measured before the server started. `is_for_quality`: nothing was measured on it, it was only asked.
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
    error: str | None = None
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
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    image: Mapping[str, str | None] = field(default_factory=dict)
    stages: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: Mapping[str, int] = field(default_factory=dict)
    unmatched: Mapping[str, str] = field(default_factory=dict)
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
        _make_inert(self, "error")
        _make_inert(self, "log_tail", keep="\n\t")

    @property
    def launch_s(self) -> float | None:
        if self.spawned_ns is None or self.ready_ns is None:
            return None
        return (self.ready_ns - self.spawned_ns) / 1e9


@dataclass(frozen=True)
class CellRecord:
    """The content of cell.json: one cell, measured or not. `start` names the directory of its start.

    `guard` lists what made the machine unfit; `guard_mode` is None if the guard did not look. `forms`: what
    the answers had to be; a request's `form` names its. `ideal_by`: how many requests got their
    ideal_cached_tokens each way (harness/describe/ideal.py). `adapters`: a request's `group` is a place in
    them.
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
    reasons: tuple[str, ...] = ()
    error: str | None = None
    summary: contracts.LoadSummary | None = None
    guard: tuple[contracts.GuardFinding, ...] = ()
    guard_mode: contracts.GuardMode | None = None
    cache_reset: contracts.CacheReset | None = None
    forms: tuple[contracts.Form, ...] = ()
    ideal_by: Mapping[str, int] = field(default_factory=dict)
    adapters: tuple[contracts.Adapter, ...] = ()

    def __post_init__(self) -> None:
        _make_inert(self, "error")
        object.__setattr__(self, "reasons", tuple(map(contracts.inert, self.reasons)))

    @property
    def counts(self) -> bool:
        return self.status == "completed" and self.validity != "invalid"

    @property
    def worth(self) -> int:
        """Return the order of attempts at one cell: completed ones by validity, above all others."""
        return ("invalid", "suspect", "valid").index(self.validity) + 1 if self.status == "completed" else 0


def _make_inert(record: object, name: str, keep: str = "") -> None:
    """Take from a text of a record, which a server or file of others may have made, what moves a terminal."""
    if (text := getattr(record, name)) is not None:
        object.__setattr__(record, name, contracts.inert(text, keep))
