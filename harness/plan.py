"""Settings -> the ordered starts and cells of a run, and what is left out, with its reason. Pure.

Knows no engine: whether a pair exists is asked of the engine's own file.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines import ENGINES
from harness.config import EngineChoice, Settings, Varied
from harness.contracts import (
    Deployment,
    EngineTerms,
    Load,
    Place,
    Plan,
    PlannedCell,
    PlannedStart,
    Reason,
    ScenarioChoice,
    Skip,
    Weights,
)

CanPrepare = Callable[[Weights], Reason | None]

NO_QUANTIZATION = "-"
# Tokens of one conversation, where neither the user nor fairness=stock says otherwise.
CONTEXT_LENGTH = 4096
_LAUNCHED = {"native": "program that bench can start", "docker": "container image"}
# What a start and a cell take beyond their own durations, until runs of this machine say otherwise.
_START_S = 6.0
_CELL_S = 2.5
# What a window without a duration or a known rate is guessed to take.
_WINDOW_S = 60.0
# Requests that a server is told to serve at once where no number of users says it. Few, since some engines
# reserve a whole engine.context_length for each: llama.cpp at 64 and 4,096 tokens takes 2.2 GiB at 270M
# parameters, and tens of GiB at 8B. Where more come at once they queue; `bench plan` says this number.
OPEN_LOOP_SEQUENCES = 8


def make(settings: Settings, can_prepare: CanPrepare) -> Plan:
    """All deployments, each repeated, interleaved A B C, C B A, ... so that drift lands on everyone alike.

    `can_prepare` says why weights cannot be had on this machine, None where they can.
    """
    deployments, skips = _deployments(settings, can_prepare)
    starts: list[PlannedStart] = []
    cell_numbers = itertools.count(1)
    for repeat in range(settings.repeats):
        for deployment in deployments if repeat % 2 == 0 else reversed(deployments):
            cells = tuple(_cells(settings, repeat, cell_numbers))
            starts.append(PlannedStart(len(starts) + 1, deployment, repeat, cells))
    return Plan(tuple(starts), tuple(skips), estimate_s(starts))


def estimate_s(starts: Sequence[PlannedStart]) -> float:
    """Expected seconds: what each cell's load takes, plus a flat share per start and cell."""
    return sum(
        (_START_S if start.deployment.terms.base_url is None else 1.0)
        + sum(load_s(cell.load, cell.scenario) + _CELL_S for cell in start.cells)
        for start in starts
    )


def load_s(load: Load, scenario: ScenarioChoice) -> float:
    """Expected seconds of a load's ramps, warm-up and window.

    Where load.duration does not say it: a trace's length, in open loop load.conversations at their rate,
    else one minute, a guess.
    """
    around_s = load.ramp_up_s + load.warmup_s + load.ramp_down_s
    bounds_s = [] if load.duration_s is None else [load.duration_s]
    if load.kind == "trace" and scenario.span_s is not None:
        bounds_s.append(max(0.0, scenario.span_s / load.speedup - load.warmup_s))
    if load.conversations is not None and load.rate_per_s is not None:
        bounds_s.append(load.conversations / load.rate_per_s)
    return around_s + min(bounds_s, default=_WINDOW_S)


def _cells(settings: Settings, repeat: int, numbers: Iterator[int]) -> Iterator[PlannedCell]:
    for scenario in settings.scenarios:
        seen: Counter[str] = Counter()
        for load in settings.loads:
            place = seen[_traffic(load)]
            seen[_traffic(load)] += 1
            seed = cell_seed(settings.seed, scenario, load, repeat, place)
            yield PlannedCell(next(numbers), scenario, load, repeat, seed)


def cell_seed(run_seed: int, scenario: ScenarioChoice, load: Load, repeat: int, place: int = 0) -> int:
    """The same for every deployment, so that all see the same conversations, whatever the load's bounds,
    ramps and processes are.

    `place`: of a load among those of one traffic in a run. Each has conversations of its own, since those of
    the cell before would be in the server's cache.
    """
    text = f"{run_seed}|{scenario.label}|{_traffic(load)}|{repeat}" + (f"|{place}" if place else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _traffic(load: Load) -> str:
    """What tells one kind and size of traffic from another."""
    if load.kind == "trace":
        return "trace"
    if load.kind == "open":
        shape = f" {load.burstiness}" if load.arrival == "gamma" else ""
        return f"rate={load.rate_per_s} {load.arrival}{shape}"
    return f"concurrency={load.concurrency}"


def _deployments(settings: Settings, can_prepare: CanPrepare) -> tuple[list[Deployment], list[Skip]]:
    found: list[Deployment] = []
    skips: list[Skip] = []
    for candidate in _candidates(settings):
        reason = _why_not(candidate, can_prepare)
        if reason is None:
            found.append(candidate)
        else:
            skips.append(Skip(candidate.label, reason.text))
    return found, skips


def _why_not(deployment: Deployment, can_prepare: CanPrepare) -> Reason | None:
    if deployment.terms.base_url:
        return None  # the server runs already; what it serves is the user's word
    engine = ENGINES[deployment.engine]
    launcher = deployment.terms.launcher
    if launcher is not None and engine.launchers and launcher not in engine.launchers:
        return Reason(
            f"{engine.name} cannot be started with launcher={launcher}: it has no {_LAUNCHED[launcher]}"
        )
    if deployment.terms.fairness == "tuned" and engine.tuned is None:
        return Reason(f"{engine.name} has no tuned set of options")
    needed = engine.weights(deployment)
    if isinstance(needed, Reason):
        return needed
    if needed is None:
        # Pure, and raises UserError where the options cannot work; better now than after other starts.
        engine.launch(deployment, Place(None, None, "127.0.0.1", 0, Path(), program=Path()))
        return None
    return can_prepare(needed)


def _candidates(settings: Settings) -> Iterator[Deployment]:
    """Every combination asked for, once; an engine that needs no weights has no quantization to sweep."""
    seen: set[Deployment] = set()
    slots = max(load.concurrency or OPEN_LOOP_SEQUENCES for load in settings.loads)
    for engine, model, quantization, terms in itertools.product(
        settings.engines, settings.models, settings.quantizations, settings.terms
    ):
        for options in engine.points:
            candidate = _candidate(settings, engine, model, quantization, terms, options, slots)
            if candidate not in seen:
                seen.add(candidate)
                yield candidate


def _candidate(
    settings: Settings,
    engine: EngineChoice,
    model: str,
    quantization: str,
    terms: Varied,
    options: Varied,
    slots: int,
) -> Deployment:
    filled = terms.value if terms.value.base_url else _filled(terms.value, engine.name, slots)
    chosen = _tuned(settings, engine.name, options.value) if filled.fairness == "tuned" else options.value
    bare = Deployment(engine.name, model, quantization, filled, chosen, "")
    if not filled.base_url and ENGINES[engine.name].weights(bare) is None:
        bare = replace(bare, model=NO_QUANTIZATION, quantization=NO_QUANTIZATION)
    return replace(bare, label=_label(settings, bare, terms, options))


def _filled(terms: EngineTerms, engine: str, slots: int) -> EngineTerms:
    """The terms as this engine is told them: with fairness=stock only those that were given."""
    launchers = ENGINES[engine].launchers
    launcher = terms.launcher or (launchers[0] if launchers else None)
    if terms.fairness == "stock":
        return replace(terms, launcher=launcher)
    context_length = terms.context_length or CONTEXT_LENGTH
    sequences = terms.concurrent_sequences or slots
    return replace(
        terms,
        launcher=launcher,
        context_length=context_length,
        concurrent_sequences=sequences,
        kv_cache_tokens=terms.kv_cache_tokens or context_length * sequences,
        prefix_cache=True if terms.prefix_cache is None else terms.prefix_cache,
    )


def _tuned(settings: Settings, engine: str, options: Any) -> Any:
    """An engine's options with its tuned set, where the user gave nothing else."""
    tuned = ENGINES[engine].tuned
    changes = tuned.options if tuned else {}
    return replace(options, **{k: v for k, v in changes.items() if f"{engine}.{k}" not in settings.given})


def _label(settings: Settings, deployment: Deployment, terms: Varied, options: Varied) -> str:
    """Engine and quantization, then only what tells it from the others of this run."""
    words = [deployment.engine]
    if len(settings.models) > 1 and deployment.model != NO_QUANTIZATION:
        names = [Path(model).name for model in settings.models]
        name = Path(deployment.model).name
        words.append(name if names.count(name) == 1 else deployment.model)
    if deployment.quantization != NO_QUANTIZATION:
        words.append(deployment.quantization)
    words += _unusual(deployment, {*terms.differs, *options.differs})
    varied = {**terms.differs, **options.differs}
    words += [f"{key.rpartition('.')[2]}={value}" for key, value in varied.items()]
    return " ".join(words)


def _unusual(deployment: Deployment, swept: Collection[str]) -> Iterator[str]:
    """Program, launcher and fairness where they are not the engine's first: two runs must not be confused."""
    engine, terms = ENGINES[deployment.engine], deployment.terms
    program = getattr(deployment.options, "program", None)
    if program not in (None, engine.programs[0]) and f"{engine.name}.program" not in swept:
        yield Path(program).name
    is_usual = terms.launcher is None or terms.launcher in engine.launchers[:1]
    if terms.launcher and not is_usual and "engine.launcher" not in swept:
        yield terms.launcher
    if terms.fairness != "matched" and "engine.fairness" not in swept:
        yield terms.fairness
