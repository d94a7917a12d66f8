"""Compute whether deployments fit a device's memory from a model's shape, before a download."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from serving_bench.engines import ENGINES, QUANTIZATIONS
from serving_bench.harness.contracts import (
    Deployment,
    InstallSpec,
    KnownFacts,
    MemoryNeed,
    ModelFacts,
    Reason,
    Weights,
    words_of,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.install.builds import why_not_on
from serving_bench.harness.install.provisions import WeightsStore
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.candidates import candidates
from serving_bench.harness.plan.terms import (
    FITS_SHARE,
    SHARES,
    Device,
    draft_facts,
    need_of,
    needed_bytes,
    shared_bytes,
)
from serving_bench.harness.sampling import environment, gpu
from serving_bench.harness.settings.config import Settings, engines_with_weights
from serving_bench.harness.settings.decoding import Varied

Verdict = Literal["fits", "tight", "does not fit"]

# The largest number of users that is tried: the most that load.concurrency takes.
MOST_USERS = 100_000
_LEAST_CONTEXT = 16
# SGLang and TGI do not start if the rest of their share is too small for what they need; vLLM ignores that.
_SHARE_KEYS = frozenset(f"{engine}.{option}" for engine, option in SHARES.items())


@dataclass(frozen=True)
class Memory:
    """The memory of each device, or of the machine. `source` says where the number is from, as a clause.

    `devices`: how many were named; None takes the number in engine.tensor_parallel.
    """

    device: Device
    device_bytes: int
    devices: int | None
    source: str


@dataclass(frozen=True)
class FitRow:
    """One engine at one quantization. `program` is None for the engine's first program.

    Another program is taken only if the first cannot serve on the device.
    `most_users` with the same context and `longest_context` for the same users are the largest that fit.
    `most_users` is None if more users take no more memory, `longest_context` if not even a few tokens fit.
    `why_not_had`: why its weights cannot be obtained; None if they can, or if only a shape was given.
    """

    label: str
    engine: str
    quantization: str
    program: str | None
    need: MemoryNeed
    total_bytes: int
    memory_bytes: int
    share: float
    verdict: Verdict
    most_users: int | None
    longest_context: int | None
    why_not_had: str | None = None


@dataclass(frozen=True)
class Unserved:
    """One engine at one quantization that cannot be served, and why."""

    label: str
    engine: str
    quantization: str
    reason: str


@dataclass(frozen=True)
class FitTable:
    """All deployments of one model for `users` at once, each with a conversation of `context_length` tokens.

    `differs`: the other common terms that are swept. `uncounted`: the given keys that limit an engine to a
    share of the device; the numbers do not take them into account.
    """

    model: str
    users: int
    context_length: int
    kv_cache_tokens: int
    tensor_parallel: int
    differs: Mapping[str, str]
    rows: tuple[FitRow, ...]
    unserved: tuple[Unserved, ...]
    uncounted: tuple[str, ...] = ()


def memory_of(device: str, given_bytes: int | None) -> Memory:
    """Return the memory that `device` (auto, cpu, 0, "0,1") has. Raises UserError for one that is not here.

    If `given_bytes` is given, the device need not be here.
    """
    devices = gpu.devices()
    lack = str(devices) if isinstance(devices, Reason) and device == "auto" else None
    if given_bytes is not None and device not in ("auto", "cpu"):
        return Memory("cuda", given_bytes, len(gpu.listed(device)), "as given")
    if given_bytes is not None:
        meant = ", of a GPU that is not here; device=cpu means the CPU" if lack else ""
        return Memory("cpu" if device == "cpu" else "cuda", given_bytes, None, f"as given{meant}")
    if device == "cpu" or lack:
        size_bytes = environment.machine_facts()["memory_bytes"]
        assert isinstance(size_bytes, int)
        return Memory("cpu", size_bytes, None, f"this machine's; {lack}" if lack else "this machine's")
    indices = (0,) if device == "auto" else gpu.select(device)
    least_bytes = gpu.smallest_bytes(indices)
    if least_bytes is None or isinstance(devices, Reason):
        raise UserError(f"device={device}: NVML does not report its memory; give fit.device_memory=24GiB")
    named = dict.fromkeys(each.name or "without a name" for each in devices if each.index in indices)
    return Memory("cuda", least_bytes, len(indices), f"this machine's: {', '.join(named)}")


def fit(
    settings: Settings,
    facts_by_model: Mapping[str, KnownFacts],
    memory: Memory,
    store: WeightsStore,
    cache: Path,
) -> list[FitTable]:
    """Return a table for each model, common terms and load of the settings.

    For weights on this machine it answers only for what can be made of them, unless quantizations were given.
    Raises UserError for settings that leave the memory to the engines, or ask for more than a model can.
    """
    loading = engines_with_weights()
    if settings.engines.keys().isdisjoint(loading):
        named = ",".join(settings.engines)
        raise UserError(f"engine={named}: loads no weights; choose from {', '.join(loading)}")
    if any(point.value.fairness == "stock" for point in settings.terms):
        raise UserError(
            "engine.fairness=stock: each engine then takes as much memory as it likes; leave it out"
        )
    loads = {load.concurrency: load for load in settings.loads}.values()
    tables = []
    for model, varied, load in product(settings.models, settings.terms, loads):
        terms, count = varied.value, memory.devices
        if count is not None and "engine.tensor_parallel" not in settings.given:
            terms = replace(terms, tensor_parallel=count)
        if count is not None and terms.tensor_parallel > count:
            given = f"engine.tensor_parallel={terms.tensor_parallel}"
            raise UserError(f"{given}: needs that many devices, and device= names {count}")
        of_one = replace(settings, models=(model,), terms=(Varied(terms, {}),), loads=(load,))
        differs = {key: value for key, value in varied.differs.items() if key != "engine.context_length"}
        tables.append(_Question(of_one, facts_by_model, model, memory, store, cache).table(differs))
    return tables


@dataclass(frozen=True)
class _Question:
    """What one table answers: settings with one model, one set of common terms and one load. See `fit`."""

    settings: Settings
    of_all: Mapping[str, KnownFacts]
    model: str
    memory: Memory
    store: WeightsStore
    cache: Path

    @property
    def known(self) -> KnownFacts:
        return self.of_all[self.model]

    @property
    def _shapes(self) -> Mapping[str, ModelFacts]:
        return {model: facts.facts for model, facts in self.of_all.items()}

    def table(self, differs: Mapping[str, str]) -> FitTable:
        given, deployments, model = self.settings.given, self._asked(), self.model
        terms, facts = deployments[0].terms, self.known.facts
        plan.check_most_context(self.settings, model, terms.context_length, facts.context_length)
        rows = [self._row(each) for each in deployments]
        return FitTable(
            model,
            terms.concurrent_sequences or 0,
            terms.context_length or 0,
            terms.kv_cache_tokens or 0,
            terms.tensor_parallel,
            differs,
            tuple(row for row in rows if isinstance(row, FitRow)),
            tuple(row for row in rows if isinstance(row, Unserved)),
            tuple(words_of({key: values for key, values in given.items() if key in _SHARE_KEYS})),
        )

    def _asked(self) -> list[Deployment]:
        deployments = [self._on_device(each) for each in candidates(self.settings)]
        if "quantization" in self.settings.given:
            return deployments
        served = [each for each in deployments if not isinstance(ENGINES[each.engine].weights(each), Reason)]
        if self.known.origin != "weights":
            return served or deployments
        rare = replace(self.settings, quantizations=tuple(QUANTIZATIONS))
        return (
            [each for each in served if self._why_not_had(each) is None]
            or [each for each in map(self._on_device, candidates(rare)) if self._why_not_had(each) is None]
            or served
            or deployments
        )

    def _why_not_had(self, deployment: Deployment) -> Reason | None:
        needed = ENGINES[deployment.engine].weights(deployment)
        if not isinstance(needed, Weights):
            return needed or Reason(f"{deployment.engine} loads no weights")
        return None if self.known.origin == "shape" else self.store.can_prepare(needed, self.cache)

    def _on_device(self, deployment: Deployment) -> Deployment:
        engine, name = ENGINES[deployment.engine], deployment.engine
        is_chosen = f"{name}.program" in self.settings.given or deployment.terms.launcher != "native"
        if is_chosen or not hasattr(deployment.options, "program"):
            return deployment
        device, options = self.memory.device, deployment.options
        serving = (each for each in engine.programs if isinstance(engine.install(each, device), InstallSpec))
        return replace(deployment, options=replace(options, program=next(serving, options.program)))

    def _row(self, deployment: Deployment) -> FitRow | Unserved:
        engine, device = ENGINES[deployment.engine], self.memory.device
        names = (deployment.label, deployment.engine, deployment.quantization)
        indices = () if device == "cpu" else tuple(range(deployment.terms.tensor_parallel))
        draft = draft_facts(deployment, self._shapes)
        reason = plan.why_impossible(deployment) or why_not_on(indices, deployment)
        reason = reason or plan.why_not_drafted(deployment, self._shapes)
        need = reason or need_of(deployment, self.known.facts, device, draft)
        if isinstance(need, Reason):
            return Unserved(*names, str(need))
        each_bytes = self.memory.device_bytes
        memory_bytes = each_bytes if device == "cpu" else shared_bytes(deployment, each_bytes)
        share = need.total_bytes / memory_bytes
        most_users, longest_context = self._room(deployment, memory_bytes * FITS_SHARE)
        program = getattr(deployment.options, "program", None)
        lack = self._why_not_had(deployment)
        return FitRow(
            *names,
            program=None if program == engine.programs[0] else program,
            need=need,
            total_bytes=need.total_bytes,
            memory_bytes=memory_bytes,
            share=share,
            verdict="fits" if share <= FITS_SHARE else "tight" if share <= 1 else "does not fit",
            most_users=most_users,
            longest_context=longest_context,
            why_not_had=str(lack) if lack else None,
        )

    def _room(self, deployment: Deployment, limit_bytes: float) -> tuple[int | None, int | None]:
        facts, terms = self.known.facts, deployment.terms
        draft = draft_facts(deployment, self._shapes)
        context, users = terms.context_length or 0, terms.concurrent_sequences or 0

        def needed(users: int, context: int) -> float:
            filled = {"context_length": context, "concurrent_sequences": users}
            device, tokens = self.memory.device, users * context
            return needed_bytes(deployment, facts, device, draft, **filled, kv_cache_tokens=tokens)

        most = bisect_right(range(1, MOST_USERS + 1), limit_bytes, key=lambda each: needed(each, context))
        contexts = range(_LEAST_CONTEXT, facts.context_length + 1)
        holding = bisect_right(contexts, limit_bytes, key=lambda each: needed(users, each))
        longest = contexts[holding - 1] if holding else None
        return (None if most and needed(1, context) == needed(2, context) else most), longest
