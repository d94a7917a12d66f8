"""Turn settings into every deployment that was asked for, with terms and label. Pure. Knows no engine."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Adapter, Deployment, Engine, EngineTerms, Launcher
from serving_bench.harness.errors import UserError, refuse_first
from serving_bench.harness.plan.terms import at_once
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.settings.decoding import Varied

NO_QUANTIZATION = "-"
# Tokens of one conversation, unless the user or fairness=stock says otherwise.
CONTEXT_LENGTH = 4096
# How many tokens are proposed at once: the default of llama.cpp and SGLang for a draft.
SPECULATIVE_TOKENS = 3
# Options that mean the same for every engine, with the launcher that uses them.
_HEEDED_BY: Mapping[str, Launcher] = {"environment": "native", "program": "native", "image": "docker"}
_HOW: Mapping[Launcher | None, str] = {
    "native": "started as a process",
    "docker": "started as a container",
    None: "a running server",
}


def candidates(settings: Settings) -> list[Deployment]:
    """Return every combination that was asked for, once. An engine without weights has no quantization."""
    slots = at_once(settings.loads, settings.scenarios).count
    combinations = itertools.product(
        settings.engines, settings.models, settings.quantizations, settings.terms
    )
    return list(
        dict.fromkeys(
            _candidate(settings, engine, model, quantization, terms, options, slots)
            for engine, model, quantization, terms in combinations
            for options in settings.engines[engine]
        )
    )


def _candidate(
    settings: Settings, name: str, model: str, quantization: str, terms: Varied, options: Varied, slots: int
) -> Deployment:
    terms = _speculating(terms)
    engine, filled = ENGINES[name], terms.value
    if not filled.base_url:
        launcher, options = _heeded(options, engine, filled.launcher)
        filled = _filled(replace(filled, launcher=launcher), slots)
    chosen = options.value
    if filled.fairness == "tuned" and engine.tuned:
        tuned = {k: v for k, v in engine.tuned.options.items() if f"{name}.{k}" not in settings.given}
        chosen = replace(chosen, **tuned)
    bare = Deployment(name, model, quantization, filled, chosen, "", _adapters(settings))
    if not filled.base_url and engine.weights(bare) is None:
        bare = replace(bare, model=NO_QUANTIZATION, quantization=NO_QUANTIZATION)
    return replace(bare, label=_label(settings, bare, {**terms.differs, **options.differs}))


def _adapters(settings: Settings) -> tuple[Adapter, ...]:
    """Return the adapters that the scenarios name. Every start has all of them.

    Raises UserError if two have the same name, or one has the model's, which asks for no adapter.
    """
    names = (each for choice in settings.scenarios for each in choice.options.lora)
    adapters = tuple(dict.fromkeys(names))
    sources = {each.name: each.source for each in adapters}
    for each in adapters:
        other = sources[each.name]
        refuse_first(
            (other != each.source, f"scenario.adapters: {each.source} and {other} have the same name"),
            (
                each.name in settings.models,
                f"scenario.adapters={each.source}: has the name of model={each.name}, and requests tell them "
                "apart by it; rename the adapter",
            ),
        )
    return adapters


def _speculating(terms: Varied) -> Varied:
    """Return the terms with a number of speculative tokens if they speculate, else without one."""
    value, key = terms.value, "engine.speculative_tokens"
    is_on = value.speculation not in (None, "off")
    tokens = (value.speculative_tokens or SPECULATIVE_TOKENS) if is_on else None
    differs = {name: text for name, text in terms.differs.items() if is_on or name != key}
    return Varied(replace(value, speculative_tokens=tokens), differs)


def _heeded(options: Varied, engine: Engine, launcher: Launcher | None) -> tuple[Launcher | None, Varied]:
    """Return the launcher, and the options without those that only another launcher uses.

    Such options would give equal deployments two names.
    """
    default = engine.options()
    named = {name: getattr(default, name) for name in _HEEDED_BY if hasattr(default, name)}
    given = {_HEEDED_BY[name] for name, usual in named.items() if getattr(options.value, name) != usual}
    launchers = [*(each for each in engine.launchers if each in given), *engine.launchers, None]
    chosen = launcher or launchers[0]
    idle = {name: usual for name, usual in named.items() if _HEEDED_BY[name] != chosen}
    unheeded = {f"{engine.name}.{name}" for name in idle}
    differs = {key: value for key, value in options.differs.items() if key not in unheeded}
    return chosen, Varied(replace(options.value, **idle), differs)


def _filled(terms: EngineTerms, slots: int) -> EngineTerms:
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


def _label(settings: Settings, deployment: Deployment, varied: Mapping[str, str]) -> str:
    """Return a label with what distinguishes a deployment in this run, and what is not the default."""
    engine, terms = ENGINES[deployment.engine], deployment.terms
    names = [Path(model).name for model in settings.models]
    model = Path(deployment.model).name if deployment.model != NO_QUANTIZATION and len(names) > 1 else ""
    program = getattr(deployment.options, "program", None)
    unusual = {
        f"{engine.name}.program": Path(program).name if program not in (None, engine.programs[0]) else "",
        "engine.launcher": terms.launcher if terms.launcher not in engine.launchers[:1] else "",
        "engine.fairness": terms.fairness if terms.fairness != "matched" else "",
    }
    words = [
        engine.name,
        model if names.count(model) < 2 else deployment.model,
        deployment.quantization if deployment.quantization != NO_QUANTIZATION else "",
        *(word for key, word in unusual.items() if key not in varied),
        *(f"{key.rpartition('.')[2]}={value}" for key, value in varied.items()),
    ]
    return " ".join(filter(None, words))


def check_heeded(settings: Settings, candidates: Sequence[Deployment]) -> None:
    """Raise UserError if a key was given that only another launcher uses."""
    given = {key: values[0] for key, values in settings.given.items()}
    launchers: dict[str, set[Launcher | None]] = {}
    for each in candidates:
        launcher = None if each.terms.base_url else each.terms.launcher
        launchers.setdefault(each.engine, set()).add(launcher)
        if "engine.memory_limit" in given and launcher != "docker":
            raise UserError(
                f"engine.memory_limit={given['engine.memory_limit']}: applies only to containers, and "
                f"{each.label} is {_HOW[launcher]}; start all with engine.launcher=docker"
            )
    for name, option in itertools.product(launchers, _HEEDED_BY):
        key = f"{name}.{option}"
        if key in given and _HEEDED_BY[option] not in launchers[name]:
            how = " and ".join(_HOW[launcher] for launcher in sorted(launchers[name], key=str))
            raise UserError(f"{key}={given[key]}: has no effect, since {name} is {how} in this run")
