"""Whether deployments fit a device's memory, reckoned from a model's shape before anything is had. Pure.

Knows no engine: what one takes beside its weights is its own file's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engines import ENGINES, QUANTIZATIONS, weights_bytes
from harness.contracts import Deployment, InstallSpec, Load, ModelFacts, Reason, Weights
from harness.errors import UserError
from harness.plan import plan
from harness.plan.candidates import candidates
from harness.settings.config import Settings, engines_with_weights
from harness.settings.decoding import Varied

Device = Literal["cpu", "cuda"]
Verdict = Literal["fits", "tight", "does not fit"]
# Of a model's facts, as in engines.model.weights.facts.KnownFacts.
Origin = Literal["table", "hub", "weights", "shape"]
# Indices of devices (none: the CPU) -> why a deployment cannot be started on them (provision.why_not_on).
WhyNotOn = Callable[[Sequence[int]], plan.WhyNotHere]

# The estimate is meant to be right to a tenth; beyond this share its error decides whether a server starts.
FITS_SHARE = 0.9
# As far as numbers of users are looked for: the most that load.concurrency takes.
MOST_USERS = 100_000
_LEAST_CONTEXT = 16
# How much of a device an engine may take. With the KV cache in bytes, as bench asks for it, vLLM leaves it
# aside; SGLang and TGI do not start where the rest does not hold what they need.
_SHARES = frozenset({"vllm.gpu_memory_utilization", "sglang.mem_fraction_static", "tgi.cuda_memory_fraction"})


@dataclass(frozen=True)
class Memory:
    """What there is to fit into: `device_bytes` of each device, or of the machine. `devices`: how many were
    named; None: as many as engine.tensor_parallel says. `source` (a clause): who says so."""

    device: Device
    device_bytes: int
    devices: int | None
    source: str


@dataclass(frozen=True)
class Need:
    """Bytes on all devices of a deployment together; see MemoryNeed."""

    weights_bytes: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    overhead_bytes: int
    overhead_source: str
    is_assumed: bool

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes


@dataclass(frozen=True)
class FitRow:
    """One engine at one quantization. `program`: where it is not the engine's first, since that does not
    serve on such a device. `memory_bytes`: of the devices that it uses. `most_users` of the same context and
    `longest_context` for as many users are the largest that fit; `most_users` None: more users take no more
    memory, MOST_USERS: so many or more; `longest_context` None: not even a few tokens. `why_not_had`: why its
    weights cannot be had, as far as bench knows; None where they can, or where a shape alone was given."""

    label: str
    engine: str
    quantization: str
    program: str | None
    need: Need
    total_bytes: int
    memory_bytes: int
    share: float
    verdict: Verdict
    most_users: int | None
    longest_context: int | None
    why_not_had: str | None = None


@dataclass(frozen=True)
class Unserved:
    label: str
    engine: str
    quantization: str
    reason: str


@dataclass(frozen=True)
class FitTable:
    """All deployments of one model for `users` at once, each with a conversation of `context_length` tokens.
    `differs`: the common terms beside these that are swept, with this table's values. `uncounted`: keys that
    were given, with their values, which say what share of a device an engine may take, and which the numbers
    leave out."""

    model: str
    users: int
    context_length: int
    kv_cache_tokens: int
    tensor_parallel: int
    differs: Mapping[str, str]
    rows: tuple[FitRow, ...]
    unserved: tuple[Unserved, ...]
    uncounted: tuple[str, ...] = ()


def fit(
    settings: Settings,
    facts: Mapping[str, ModelFacts],
    memory: Memory,
    why_not_on: WhyNotOn,
    can_prepare: plan.CanPrepare = lambda weights: None,
    origins: Mapping[str, Origin] | None = None,
) -> list[FitTable]:
    """A table for each model, common terms and load of the settings. `facts`: of each model.

    `can_prepare` says why weights cannot be had, and is not asked of a shape alone (`origins`, of each
    model). Of weights on this machine only what they are and what can be made of them is answered, unless
    quantizations were asked for.

    Raises UserError for settings that leave the memory to the engines, or ask for more than a model can.
    """
    _check_settings(settings)
    # Loads that differ in nothing but their bounds and ramps take the same memory.
    loads = {load.concurrency: load for load in settings.loads}.values()
    return [
        _table(
            _only(settings, model, terms, load, memory),
            facts[model],
            memory,
            _Known(why_not_on, can_prepare, (origins or {}).get(model, "table")),
            terms.differs,
        )
        for model in settings.models
        for terms in settings.terms
        for load in loads
    ]


@dataclass(frozen=True)
class _Known:
    """What is known outside of the settings: see `fit`."""

    why_not_on: WhyNotOn
    can_prepare: plan.CanPrepare
    origin: Origin

    def why_not_had(self, deployment: Deployment) -> Reason | None:
        needed = ENGINES[deployment.engine].weights(deployment)
        if self.origin == "shape" or not isinstance(needed, Weights):
            return None
        return self.can_prepare(needed)


def need_of(deployment: Deployment, facts: ModelFacts, device: Device) -> Need | Reason:
    """What a deployment whose common terms are filled takes; Reason: it is not known."""
    engine = ENGINES[deployment.engine]
    needed = engine.weights(deployment)
    if not isinstance(needed, Weights):
        return needed or Reason(f"{deployment.engine} loads no weights")
    size_bytes = weights_bytes(facts, needed.quantization, needed.file_format)
    if size_bytes is None:
        return Reason(f"how large {needed.quantization} is as {needed.file_format} is not known")
    rest = engine.memory_needed(deployment, facts, device)
    if isinstance(rest, Reason):
        return rest
    return Need(
        size_bytes,
        rest.kv_cache_bytes,
        rest.kv_bytes_per_token,
        rest.overhead_bytes,
        rest.overhead_source,
        rest.is_assumed,
    )


def expected(deployment: Deployment, facts: ModelFacts | None, device: Device) -> Mapping[str, int]:
    """StartRecord.memory_expected; empty where nothing can be said: a running server, terms that are left to
    the engine, a shape that nobody knows."""
    terms = deployment.terms
    if facts is None or facts.parameters is None or terms.base_url or terms.fairness == "stock":
        return {}
    need = need_of(deployment, facts, device)
    if isinstance(need, Reason):
        return {}
    return {
        "weights": need.weights_bytes,
        "kv_cache": need.kv_cache_bytes,
        "overhead": need.overhead_bytes,
        "kv_bytes_per_token": need.kv_bytes_per_token,
    }


def _check_settings(settings: Settings) -> None:
    loading = engines_with_weights()
    names = [engine.name for engine in settings.engines]
    if not set(names) & set(loading):
        raise UserError(f"engine={','.join(names)}: loads no weights; choose from {', '.join(loading)}")
    for point in settings.terms:
        if point.value.fairness == "stock":
            raise UserError(
                "engine.fairness=stock: each engine then takes as much memory as it likes; leave it out"
            )


def _only(settings: Settings, model: str, terms: Varied, load: Load, memory: Memory) -> Settings:
    """The settings of one table."""
    given, named = settings.given, memory.devices
    value = terms.value
    if named is not None and "engine.tensor_parallel" not in given:
        value = replace(value, tensor_parallel=named)
    if named is not None and value.tensor_parallel > named:
        raise UserError(
            f"engine.tensor_parallel={value.tensor_parallel}: needs as many devices; device= names {named}"
        )
    return replace(settings, models=(model,), terms=(Varied(value, {}),), loads=(load,))


def _table(
    settings: Settings,
    facts: ModelFacts,
    memory: Memory,
    known: _Known,
    differs: Mapping[str, str],
) -> FitTable:
    """Of settings with one model, one set of common terms and one load."""
    asked = _asked(settings, memory.device, known)
    terms = asked[0].terms
    # The plan fills them for all fairness but stock.
    assert terms.context_length is not None
    assert terms.concurrent_sequences is not None
    assert terms.kv_cache_tokens is not None
    plan.check_most_context(settings, settings.models[0], terms.context_length, facts.context_length)
    found = [(each, _row(each, facts, memory, known)) for each in asked]
    return FitTable(
        settings.models[0],
        terms.concurrent_sequences,
        terms.context_length,
        terms.kv_cache_tokens,
        terms.tensor_parallel,
        {key: value for key, value in differs.items() if key != "engine.context_length"},
        tuple(row for _, row in found if isinstance(row, FitRow)),
        tuple(
            Unserved(each.label, each.engine, each.quantization, reason.text)
            for each, reason in found
            if isinstance(reason, Reason)
        ),
        tuple(f"{key}={','.join(values)}" for key, values in settings.given.items() if key in _SHARES),
    )


def _asked(settings: Settings, device: Device, known: _Known) -> list[Deployment]:
    """Without quantizations in the settings those that each engine serves, of a local model's weights."""
    asked = [_on(device, settings, each) for each in candidates(settings)]
    if "quantization" in settings.given:
        return asked
    served = [each for each in asked if not isinstance(ENGINES[each.engine].weights(each), Reason)]
    if known.origin != "weights":
        return served or asked
    # What the file itself is may be none of the usual ones.
    rare = replace(settings, quantizations=tuple(QUANTIZATIONS))
    every = (_on(device, settings, each) for each in candidates(rare))
    return (
        [each for each in served if _can_have(each, known)]
        or [each for each in every if _can_have(each, known)]
        or served
        or asked
    )


def _can_have(deployment: Deployment, known: _Known) -> bool:
    is_served = isinstance(ENGINES[deployment.engine].weights(deployment), Weights)
    return is_served and known.why_not_had(deployment) is None


def _on(device: Device, settings: Settings, deployment: Deployment) -> Deployment:
    """With a program that serves on such a device, where the engine's first does not and none was given."""
    engine, name = ENGINES[deployment.engine], deployment.engine
    is_chosen = f"{name}.program" in settings.given or deployment.terms.launcher != "native"
    if is_chosen or not hasattr(deployment.options, "program"):
        return deployment
    serving = (each for each in engine.programs if isinstance(engine.install(each, device), InstallSpec))
    program = next(serving, deployment.options.program)
    return replace(deployment, options=replace(deployment.options, program=program))


def _row(deployment: Deployment, facts: ModelFacts, memory: Memory, known: _Known) -> FitRow | Reason:
    shares = deployment.terms.tensor_parallel
    devices = () if memory.device == "cpu" else tuple(range(shares))
    engine = ENGINES[deployment.engine]
    if engine.weights(deployment) is None:
        return Reason(f"{deployment.engine} loads no weights")
    if reason := plan.why_not(deployment, lambda weights: None, known.why_not_on(devices)):
        return reason
    need = need_of(deployment, facts, memory.device)
    if isinstance(need, Reason):
        return need
    # The machine's memory is one, whatever shares it; an engine that does not share has one device's.
    is_shared = devices and "tensor_parallel" not in engine.unmatched(deployment)
    memory_bytes = memory.device_bytes * (shares if is_shared else 1)
    share = need.total_bytes / memory_bytes
    room = _Room(deployment, facts, memory.device, memory_bytes * FITS_SHARE)
    program = getattr(deployment.options, "program", None)
    lack = known.why_not_had(deployment)
    return FitRow(
        label=deployment.label,
        engine=deployment.engine,
        quantization=deployment.quantization,
        program=None if program == engine.programs[0] else program,
        need=need,
        total_bytes=need.total_bytes,
        memory_bytes=memory_bytes,
        share=share,
        verdict=_verdict(share),
        most_users=room.most_users(),
        longest_context=room.longest_context(),
        why_not_had=None if lack is None else lack.text,
    )


def _verdict(share: float) -> Verdict:
    if share <= FITS_SHARE:
        return "fits"
    return "tight" if share <= 1 else "does not fit"


@dataclass(frozen=True)
class _Room:
    """A deployment with other numbers of users and other contexts, in `limit_bytes`."""

    deployment: Deployment
    facts: ModelFacts
    device: Device
    limit_bytes: float

    def most_users(self) -> int | None:
        context = self.deployment.terms.context_length
        assert context is not None
        one, two = self._needed_bytes(1, context), self._needed_bytes(2, context)
        if one is not None and one == two:
            return None if one <= self.limit_bytes else 0
        return _largest(1, MOST_USERS, lambda users: self._has(users, context)) or 0

    def longest_context(self) -> int | None:
        users = self.deployment.terms.concurrent_sequences
        assert users is not None
        return _largest(_LEAST_CONTEXT, self.facts.context_length, lambda tokens: self._has(users, tokens))

    def _has(self, users: int, context: int) -> bool:
        needed_bytes = self._needed_bytes(users, context)
        return needed_bytes is not None and needed_bytes <= self.limit_bytes

    def _needed_bytes(self, users: int, context: int) -> int | None:
        terms = replace(
            self.deployment.terms,
            context_length=context,
            concurrent_sequences=users,
            kv_cache_tokens=users * context,
        )
        need = need_of(replace(self.deployment, terms=terms), self.facts, self.device)
        return None if isinstance(need, Reason) else need.total_bytes


def _largest(least: int, most: int, holds: Callable[[int], bool]) -> int | None:
    """The largest number that `holds`, which it does up to some number; None where not for `least`."""
    if not holds(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if holds(middle) else (least, middle - 1)
    return least
