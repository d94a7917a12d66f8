"""Settings -> every deployment that was asked for, its terms filled and its label made. Pure.

Knows no engine; whether one exists or can be started here is harness/plan/plan.py's question.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines import ENGINES
from harness.contracts import Deployment, EngineTerms, Launcher
from harness.errors import UserError
from harness.plan.traffic import at_once
from harness.settings.config import EngineChoice, Settings
from harness.settings.decoding import Varied

NO_QUANTIZATION = "-"
# Tokens of one conversation, where neither the user nor fairness=stock says otherwise.
CONTEXT_LENGTH = 4096
# Options of engines that mean the same everywhere, and the launcher that heeds them.
_HEEDED_BY: Mapping[str, Launcher] = {"environment": "native", "program": "native", "image": "docker"}
_HOW: Mapping[Launcher | None, str] = {
    "native": "started as a process",
    "docker": "started as a container",
    None: "a running server",
}


def candidates(settings: Settings) -> Iterator[Deployment]:
    """Yield every combination asked for, once; an engine that needs no weights has no quantization to
    sweep."""
    seen: set[Deployment] = set()
    slots = at_once(settings.loads, settings.scenarios).count
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
    filled = terms.value
    if not filled.base_url:
        launcher = filled.launcher or _implied_launcher(engine.name, options.value)
        filled = _filled(replace(filled, launcher=launcher), slots)
        options = _heeded(options, engine.name, launcher)
    chosen = _tuned(settings, engine.name, options.value) if filled.fairness == "tuned" else options.value
    bare = Deployment(engine.name, model, quantization, filled, chosen, "")
    if not filled.base_url and ENGINES[engine.name].weights(bare) is None:
        bare = replace(bare, model=NO_QUANTIZATION, quantization=NO_QUANTIZATION)
    return replace(bare, label=_label(settings, bare, terms, options))


def _implied_launcher(engine: str, options: Any) -> Launcher | None:
    """Return the engine's first launcher that heeds one of the options that say what to start, else its
    first."""
    launchers = ENGINES[engine].launchers
    default = ENGINES[engine].options()
    asked = {
        needed
        for name, needed in _HEEDED_BY.items()
        if getattr(options, name, None) != getattr(default, name, None)
    }
    return next((each for each in launchers if each in asked), launchers[0] if launchers else None)


def _heeded(options: Varied, engine: str, launcher: Launcher | None) -> Varied:
    """Return options without what only another launcher heeds: such deployments would be equal under
    different names."""
    idle = [
        name for name, needed in _HEEDED_BY.items() if needed != launcher and hasattr(options.value, name)
    ]
    default = ENGINES[engine].options()
    differs = {k: v for k, v in options.differs.items() if k not in {f"{engine}.{name}" for name in idle}}
    return Varied(replace(options.value, **{name: getattr(default, name) for name in idle}), differs)


def _filled(terms: EngineTerms, slots: int) -> EngineTerms:
    """Return the terms as an engine is told them: with fairness=stock only those that were given.

    Raises UserError for a KV cache that could not hold one conversation.
    """
    if terms.fairness == "stock":
        return terms
    context_length = terms.context_length or CONTEXT_LENGTH
    if terms.kv_cache_tokens is not None and terms.kv_cache_tokens < context_length:
        raise UserError(
            f"engine.kv_cache_tokens={terms.kv_cache_tokens}: holds no conversation of "
            f"engine.context_length={context_length}; give {context_length} or more, or a shorter context"
        )
    sequences = terms.concurrent_sequences or slots
    return replace(
        terms,
        context_length=context_length,
        concurrent_sequences=sequences,
        kv_cache_tokens=terms.kv_cache_tokens or context_length * sequences,
        prefix_cache=True if terms.prefix_cache is None else terms.prefix_cache,
    )


def _tuned(settings: Settings, engine: str, options: Any) -> Any:
    """Return an engine's options with its tuned set, where the user gave nothing else."""
    tuned = ENGINES[engine].tuned
    changes = tuned.options if tuned else {}
    return replace(options, **{k: v for k, v in changes.items() if f"{engine}.{k}" not in settings.given})


def _label(settings: Settings, deployment: Deployment, terms: Varied, options: Varied) -> str:
    """Return engine and quantization, then only what tells a deployment from the others of this run."""
    words = [deployment.engine]
    if len(settings.models) > 1 and deployment.model != NO_QUANTIZATION:
        names = [Path(model).name for model in settings.models]
        name = Path(deployment.model).name
        words.append(name if names.count(name) == 1 else deployment.model)
    if deployment.quantization != NO_QUANTIZATION:
        words.append(deployment.quantization)
    varied = {**terms.differs, **options.differs}
    words += _unusual(deployment, varied)
    words += [f"{key.rpartition('.')[2]}={value}" for key, value in varied.items()]
    return " ".join(words)


def _unusual(deployment: Deployment, swept: Collection[str]) -> Iterator[str]:
    """Yield program, launcher and fairness if they are not the engine's first: two runs must not be
    confused."""
    engine, terms = ENGINES[deployment.engine], deployment.terms
    program = getattr(deployment.options, "program", None)
    if program not in (None, engine.programs[0]) and f"{engine.name}.program" not in swept:
        yield Path(program).name
    is_usual = terms.launcher is None or terms.launcher in engine.launchers[:1]
    if terms.launcher and not is_usual and "engine.launcher" not in swept:
        yield terms.launcher
    if terms.fairness != "matched" and "engine.fairness" not in swept:
        yield terms.fairness


def check_heeded(settings: Settings, candidates: Sequence[Deployment]) -> None:
    """Raise UserError where a key was given that only another way of starting would heed."""
    given = {key: values[0] for key, values in settings.given.items()}
    for candidate in candidates:
        if "engine.memory_limit" in given and _launcher(candidate) != "docker":
            raise UserError(
                f"engine.memory_limit={given['engine.memory_limit']}: holds for containers alone, and "
                f"{candidate.label} is {_HOW[_launcher(candidate)]}; start all with engine.launcher=docker"
            )
    for name in dict.fromkeys(candidate.engine for candidate in candidates):
        launchers = {_launcher(each) for each in candidates if each.engine == name}
        for option, needed in _HEEDED_BY.items():
            key = f"{name}.{option}"
            if key in given and needed not in launchers:
                how = " and ".join(_HOW[launcher] for launcher in sorted(launchers, key=str))
                raise UserError(f"{key}={given[key]}: has no effect, since {name} is {how} in this run")


def _launcher(deployment: Deployment) -> Launcher | None:
    """Return how a deployment is started; None: it runs already."""
    return None if deployment.terms.base_url else deployment.terms.launcher
