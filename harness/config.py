"""Choices of each key -> typed, frozen Settings: the one place that knows every key, its unit and its range.

A field's suffix is its unit and no part of its key: `load.duration=20s` sets Load.duration_s. Knows what
engines and scenarios exist through their dicts alone.
"""

from __future__ import annotations

import difflib
import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engines import ALIASES, ENGINES, QUANTIZATIONS
from harness import loads, units
from harness.contracts import (
    Deployment,
    EngineTerms,
    GuardMode,
    GuardTerms,
    Load,
    Price,
    Scalar,
    ScenarioChoice,
)
from harness.errors import UserError
from harness.overrides import Choices, as_text, shown
from scenarios import SCENARIOS

DEFAULT_MODEL = "gemma3-270m"
DEFAULTS: dict[str, tuple[Scalar, ...]] = {
    "model": (DEFAULT_MODEL,),
    "engine": ("llama_cpp",),
    "quantization": ("gguf-q4_k_m", "fp16", "gguf-q8_0"),
    "scenario": ("chat_multi_turn",),
    "load.concurrency": (1, 4),
    "device": ("auto",),
    "repeats": (2,),
    "seed": (1,),
    "guard": ("mark",),
}
# Of `bench fit`, which asks what could be served, not what is to be measured; its engines are all.
FIT_DEFAULTS: dict[str, tuple[Scalar, ...]] = {
    "quantization": ("bf16", "fp8", "awq", "gguf-q8_0", "gguf-q4_k_m"),
    "load.concurrency": (4,),
}
_SINGLE = (
    "device",
    "repeats",
    "seed",
    "guard",
    "guard.wait",
    "price.gpu_hour",
    "price.currency",
    "fit.device_memory",
)
# Kept absolute, so that --resume finds them from anywhere. Of an engine's program only what is a path.
_PATHS = ("scenario.path", "load.tokenizer", "engine.chat_template")
_PATHS_OF_ENGINES = ("environment", "program")
# Short for the key that holds it.
_SHORT = {"fairness": "engine.fairness"}
_UNITS = {
    "_per_s": units.rate_per_s,
    "_s": units.duration_s,
    "_bytes": units.size_bytes,
    "_share": units.share,
}
_UNIT_EXAMPLES = {
    "_per_s": "a rate, such as 2/s or 90/min",
    "_s": "a duration, such as 500ms or 20s",
    "_bytes": "a size, such as 24GiB",
    "_share": "a share, such as 10%",
}
# Of the keys outside of the sections.
_TAKES = {
    "model": "a name of `bench list models`, a path, or hf:organisation/name",
    "engine": "a name of `bench list engines`",
    "quantization": "a name of `bench list quantizations`",
    "scenario": "a name of `bench list scenarios`",
    "device": 'auto, cpu, 0, or several as "0,1"',
    "repeats": "a whole number",
    "seed": "a whole number",
    "guard": "strict, mark or off",
}
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# What the fields' types cannot say: the smallest value that makes sense.
_MINIMUM = {
    "repeats": 1,
    "seed": 0,
    "load.concurrency": 1,
    "load.rate": 0.001,
    "load.burstiness": 0.01,
    "load.speedup": 0.001,
    "load.ramp_up": 0,
    "load.ramp_down": 0,
    "load.ramp_steps": 1,
    "load.max_failed": 0,
    "load.workers": 1,
    "load.warmup": 0,
    "load.duration": 0.1,
    "load.conversations": 1,
    "load.timeout": 0.1,
    "engine.context_length": 16,
    "engine.concurrent_sequences": 1,
    "engine.kv_cache_tokens": 16,
    "engine.tensor_parallel": 1,
    "engine.seed": 0,
    "engine.speculative_tokens": 1,
    "engine.memory_limit": 1 << 20,
    "engine.start_timeout": 0.1,
    "guard.wait": 0,
    "price.gpu_hour": 0,
    "fit.device_memory": 1 << 20,
}
_DAY_S = 86400
_MAXIMUM = {
    "repeats": 1000,
    "seed": 2**63 - 1,
    "load.concurrency": 100_000,
    "load.rate": 100_000,
    "load.burstiness": 1000,
    "load.speedup": 1_000_000,
    "load.ramp_up": _DAY_S,
    "load.ramp_down": _DAY_S,
    "load.ramp_steps": 1000,
    "load.max_failed": 1,
    "load.workers": 256,
    "load.warmup": _DAY_S,
    "load.duration": _DAY_S,
    "load.timeout": _DAY_S,
    "engine.start_timeout": _DAY_S,
    "guard.wait": _DAY_S,
}


@dataclass(frozen=True)
class Varied:
    """A decoded section of keys. `differs`: those of its keys that are swept, with this point's value."""

    value: Any
    differs: Mapping[str, str]


@dataclass(frozen=True)
class FitTerms:
    """Keys of `bench fit` alone. `device_memory_bytes`: of one device; None: as it is on this machine."""

    device_memory_bytes: int | None = None


@dataclass(frozen=True)
class EngineChoice:
    name: str
    points: tuple[Varied, ...]  # of the engine's own options


@dataclass(frozen=True)
class Settings:
    """One run as asked for; each tuple is an axis that the plan multiplies. `given` holds what the user
    set, as text that parses again."""

    models: tuple[str, ...]
    engines: tuple[EngineChoice, ...]
    quantizations: tuple[str, ...]
    terms: tuple[Varied, ...]
    scenarios: tuple[ScenarioChoice, ...]
    loads: tuple[Load, ...]
    device: str
    repeats: int
    seed: int
    guard: GuardMode
    guard_terms: GuardTerms
    price: Price
    given: Mapping[str, tuple[str, ...]]

    @property
    def is_attached(self) -> bool:
        return any(point.value.base_url for point in self.terms)


def settings(given: Choices) -> Settings:
    """Check and type all choices. Raises UserError: the key, the value, and what would work."""
    _check_keys(given)
    given = {_spelled_out(key, given): _absolute(key, values) for key, values in given.items()}
    choices: dict[str, tuple[Scalar, ...]] = {**DEFAULTS, **given}
    attached = bool(choices.get("engine.base_url", (None,))[0])
    if attached and "quantization" not in given:
        choices["quantization"] = ("-",)
    for key in _SINGLE:
        if key in choices:
            _check_single(key, choices[key])
    engines = _names("engine", choices["engine"], ENGINES)
    scenarios = _scenarios(choices)
    made = Settings(
        models=tuple(dict.fromkeys(_text("model", value) for value in choices["model"])),
        engines=tuple(EngineChoice(name, _points(name, ENGINES[name].options, choices)) for name in engines),
        quantizations=_quantizations(choices["quantization"]),
        terms=_points("engine", EngineTerms, choices),
        scenarios=scenarios,
        loads=loads.loads(choices, given, scenarios, lambda chosen: _points("load", Load, chosen)),
        device=str(choices["device"][0]),
        repeats=_decode("repeats", int, choices["repeats"][0]),
        seed=_decode("seed", int, choices["seed"][0]),
        guard=_guard_mode(choices["guard"][0]),
        guard_terms=_points("guard", GuardTerms, choices)[0].value,
        price=_price(choices),
        given={key: tuple(as_text(value) for value in values) for key, values in given.items()},
    )
    _check_attached(made)
    _check_templates(made)
    loads.check_bind(made.loads, made.terms[0].value.base_url)
    return made


def fit_settings(given: Choices) -> tuple[Settings, FitTerms]:
    """Settings for `bench fit`, and its own keys. Raises UserError as `settings` does."""
    if any(given.get("engine.base_url", ())):
        url = shown(given["engine.base_url"][0])
        raise UserError(f"engine.base_url={url}: a running server has its memory already; leave it out")
    own = _fields_by_key("fit", FitTerms)
    for key in own:
        _check_single(key, given.get(key, ()))
    terms = _points("fit", FitTerms, given)[0].value
    rest = {key: values for key, values in given.items() if key not in own}
    users = {} if {"load.rate", "load.arrival"} & rest.keys() else FIT_DEFAULTS
    defaults = {"engine": engines_with_weights(), "quantization": FIT_DEFAULTS["quantization"], **users}
    made = settings({**defaults, **rest})
    asked = {key: values for key, values in made.given.items() if key in rest or key not in defaults}
    return replace(made, given=asked), terms


def engines_with_weights() -> tuple[str, ...]:
    """The engines that load any: not a server of others, nor one without a model."""
    asked = (
        (name, engine.weights(Deployment(name, DEFAULT_MODEL, "bf16", EngineTerms(), engine.options(), "")))
        for name, engine in ENGINES.items()
    )
    return tuple(name for name, needed in asked if needed is not None)


def _spelled_out(key: str, given: Choices) -> str:
    whole = _SHORT.get(key, key)
    if whole != key and whole in given:
        raise UserError(f"{key} and {whole} are one key; give one of them")
    return whole


def _absolute(key: str, values: Sequence[Scalar]) -> tuple[Scalar, ...]:
    """The values of a key, paths among them as they are from anywhere."""
    engine, _, name = key.partition(".")
    may_be_path = engine in ENGINES and name in _PATHS_OF_ENGINES
    return tuple(
        str(Path(value).expanduser().absolute())
        if isinstance(value, str) and (key in _PATHS or (may_be_path and ("/" in value or name != "program")))
        else value
        for value in values
    )


def known_keys() -> list[str]:
    """Every key that bench knows, sorted."""
    return sorted({"model", *DEFAULTS, *_SHORT, *_all_section_keys()})


def _sections() -> list[tuple[str, type]]:
    """Prefix and dataclass of each section of keys."""
    sections: list[tuple[str, type]] = [
        ("load", Load),
        ("engine", EngineTerms),
        ("guard", GuardTerms),
        ("price", Price),
        ("fit", FitTerms),
    ]
    sections += [("scenario", scenario.options) for scenario in SCENARIOS.values()]
    return sections + [(name, engine.options) for name, engine in ENGINES.items()]


def takes_of_keys() -> dict[str, str]:
    """What each key takes: `a duration, such as 20s`, `a whole number`, `linear or steps` ..."""
    found = _TAKES | {
        key: _takes(typing.get_type_hints(kind)[name], suffix)
        for prefix, kind in reversed(_sections())
        for key, (name, suffix) in _fields_by_key(prefix, kind).items()
    }
    for name, engine in ENGINES.items():
        if found.get(f"{name}.program") == "text":
            found[f"{name}.program"] = " or ".join([*filter(None, engine.programs), "a path"])
        if f"{name}.environment" in found:
            found[f"{name}.environment"] = "a directory"
    return found


def _takes(kind: Any, suffix: str | None) -> str:
    first = next(part for part in _parts(kind) if part is not type(None))
    if typing.get_origin(first) is typing.Literal:
        return " or ".join(map(str, typing.get_args(first)))
    return _UNIT_EXAMPLES[suffix] if suffix else _TYPE_NAMES.get(first, "text")


def default_of_keys() -> dict[str, str]:
    """Every key with its default as it would be given; `scenario.*` keys of all scenarios."""
    found = {key: ",".join(as_text(value) for value in values) for key, values in DEFAULTS.items()}
    for prefix, kind in _sections():
        for line in option_keys(prefix, kind):
            key, _, default = line.partition("=")
            found.setdefault(key, default)
    return found


def option_keys(prefix: str, kind: type) -> list[str]:
    """`key=default` of each option of a dataclass whose fields all have defaults; durations in seconds."""
    defaults = kind()
    return [
        f"{key}={shown(getattr(defaults, name))}{'s' if suffix == '_s' else ''}"
        for key, (name, suffix) in _fields_by_key(prefix, kind).items()
    ]


def _all_section_keys() -> set[str]:
    return {key for prefix, kind in _sections() for key in _fields_by_key(prefix, kind)}


def _fields_by_key(prefix: str, kind: type) -> dict[str, tuple[str, str | None]]:
    """Dotted key -> (field, unit suffix) of a dataclass."""
    hints = typing.get_type_hints(kind)
    found = {}
    for field in fields(kind):
        # A choice has no unit: load.keep_bytes=true.
        is_number = hints[field.name] is not bool
        suffix = next((s for s in _UNITS if is_number and field.name.endswith(s)), None)
        found[f"{prefix}.{field.name.removesuffix(suffix or '')}"] = (field.name, suffix)
    return found


def _check_keys(given: Choices) -> None:
    known = known_keys()
    for key, values in given.items():
        if key not in known:
            raise UserError(f"{key}={shown(values[0])}: no such key; {_nearest(key, known)}")
        if key.startswith("fit."):
            raise UserError(f"{key}={shown(values[0])}: is of `bench fit` alone; leave it out")
    _check_short(given)
    _check_sections(given)


def _check_short(given: Choices) -> None:
    """A mistake in a short key's value is told by the key that was typed."""
    hints = typing.get_type_hints(EngineTerms)
    for key, whole in _SHORT.items():
        for value in given.get(key, ()):
            _decode(key, hints[whole.removeprefix("engine.")], value)


def _check_sections(given: Choices) -> None:
    """A key of an engine or scenario that is not in this run would have no effect: say so."""
    engines = {str(value) for value in given.get("engine", DEFAULTS["engine"])}
    chosen = [str(value) for value in given.get("scenario", DEFAULTS["scenario"])]
    scenario_keys = {
        key
        for name in chosen
        if name in SCENARIOS
        for key in _fields_by_key("scenario", SCENARIOS[name].options)
    }
    for key, values in given.items():
        prefix = key.partition(".")[0]
        what = f"{key}={shown(values[0])}"
        if "." in key and prefix in ENGINES and prefix not in engines:
            raise UserError(f"{what}: engine {prefix} is not in this run; add it with engine={prefix}")
        if prefix == "scenario" and "." in key and scenario_keys and key not in scenario_keys:
            options = ", ".join(sorted(scenario_keys))
            raise UserError(f"{what}: scenario {','.join(chosen)} has no such option; it has {options}")


def _check_single(key: str, values: Sequence[Scalar]) -> None:
    if len(values) > 1:
        listed = ",".join(shown(value) for value in values)
        hint = f" (several devices for one server: '{key}=\"{listed}\"')" if key == "device" else ""
        raise UserError(f"{key}={listed}: cannot be swept; give one value{hint}")


def _check_templates(made: Settings) -> None:
    for path in dict.fromkeys(point.value.chat_template for point in made.terms):
        if path is not None and not Path(path).is_file():
            why = "is not a file" if Path(path).exists() else "no such file"
            raise UserError(f"engine.chat_template={path}: {why}; give a Jinja file")


def _check_attached(made: Settings) -> None:
    if not made.is_attached:
        return
    url = made.terms[0].value.base_url
    _check_url(url)
    if "engine.launcher" in made.given:
        value = made.given["engine.launcher"][0]
        raise UserError(f"engine.launcher={value}: a running server ({url}) is not started; give one of them")
    if len(made.terms) > 1 and any("engine.base_url" in point.differs for point in made.terms):
        raise UserError("engine.base_url: cannot be swept; measure one running server per run")
    for key, values in (("engine", [e.name for e in made.engines]), ("quantization", made.quantizations)):
        if len(values) > 1:
            raise UserError(
                f"{key}={','.join(values)}: a running server ({url}) is one {key}; give one, or none"
                if key == "quantization"
                else f"{key}={','.join(values)}: a running server ({url}) is one engine; give one"
            )
    if "model" not in made.given:
        raise UserError(
            f"engine.base_url={url}: give model=NAME, the name by which the server knows its model"
        )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise UserError(f"engine.base_url={url}: must be of the form http://HOST:PORT/v1")


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if not near and "." in key:
        near = [each for each in known if each.startswith(key.partition(".")[0] + ".")][:6]
    rest = "`bench list keys` has all"
    return f"nearest keys: {', '.join(near)}; {rest}" if near else rest


def _names(key: str, values: Sequence[Scalar], known: Mapping[str, Any]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise UserError(f"{key}={shown(value)}: no such {key}; choose from {', '.join(sorted(known))}")
    return tuple(dict.fromkeys(str(value) for value in values))


def _price(choices: Choices) -> Price:
    # The field's None means that nobody gave it; what is given must be a number.
    for value in choices.get("price.gpu_hour", ()):
        _decode("price.gpu_hour", float, value)
    made: Price = _points("price", Price, choices)[0].value
    return made


def _quantizations(values: Sequence[Scalar]) -> tuple[str, ...]:
    resolved = [ALIASES.get(str(value), str(value)) for value in values]
    return _names("quantization", resolved, {**QUANTIZATIONS, "-": None})


def _scenarios(choices: Choices) -> tuple[ScenarioChoice, ...]:
    made = []
    for name in _names("scenario", choices["scenario"], SCENARIOS):
        scenario = SCENARIOS[name]
        for point in _points("scenario", scenario.options, choices):
            # Its first conversation tells whether its options can work, before anything is started.
            next(iter(scenario.conversations(point.value, Random(0))))
            label = " ".join([name, *(f"{key.partition('.')[2]}={v}" for key, v in point.differs.items())])
            made.append(ScenarioChoice(name, point.value, label, scenario.span_s(point.value)))
    return tuple(made)


def _guard_mode(value: Scalar) -> GuardMode:
    # A study's `guard: off` is YAML for false.
    mode: GuardMode = _decode("guard", GuardMode, "off" if value is False else value)
    return mode


def _points(prefix: str, kind: type, choices: Choices) -> tuple[Varied, ...]:
    """The product of a section's values, each decoded into `kind`."""
    keys = [key for key in _fields_by_key(prefix, kind) if key in choices]
    return tuple(
        _point(prefix, kind, dict(zip(keys, values, strict=True)), choices)
        for values in itertools.product(*(dict.fromkeys(choices[key]) for key in keys))
    )


def _point(prefix: str, kind: type, values: Mapping[str, Scalar], choices: Choices) -> Varied:
    by_key = _fields_by_key(prefix, kind)
    hints = typing.get_type_hints(kind)
    decoded = {}
    for key, value in values.items():
        name, suffix = by_key[key]
        decoded[name] = _decode(key, hints[name], value, suffix)
    differs = {key: shown(value) for key, value in values.items() if len(set(choices[key])) > 1}
    return Varied(kind(**decoded), differs)


def _text(key: str, value: Scalar) -> str:
    text: str = _decode(key, str, value)
    return text


def _decode(key: str, kind: Any, value: Scalar, suffix: str | None = None) -> Any:
    optional = type(None) in _parts(kind)
    if value is None:
        if optional:
            return None
        raise UserError(f"{key}=null: needs a value")
    try:
        plain = _plain(kind, value, suffix, optional=optional)
        decoded = msgspec.convert(plain, kind, strict=not isinstance(plain, str))
    except (ValueError, msgspec.ValidationError) as error:
        raise UserError(f"{key}={shown(value)}: {_wanted(kind, error)}") from error
    if isinstance(decoded, float) and not math.isfinite(decoded):
        raise UserError(f"{key}={shown(value)}: must be a finite number")
    least = _MINIMUM.get(key)
    if least is not None and decoded < least:
        raise UserError(f"{key}={shown(value)}: must be {least} or more")
    most = _MAXIMUM.get(key)
    if most is not None and decoded is not None and decoded > most:
        raise UserError(f"{key}={shown(value)}: must be {most} or less")
    return decoded


def _plain(kind: Any, value: Scalar, suffix: str | None, *, optional: bool) -> Scalar:
    """The value as msgspec takes it: units read, text as text though it looks like a number."""
    if suffix is not None:
        return _UNITS[suffix](str(value))
    if kind is str or (optional and str in _parts(kind)):
        return value if isinstance(value, str) else shown(value)
    return value


def _wanted(kind: Any, error: Exception) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return str(error)
    choices = [part for part in _parts(kind) if typing.get_origin(part) is typing.Literal]
    if choices:
        return f"choose from {', '.join(map(str, typing.get_args(choices[0])))}"
    return "must be " + " or ".join(_TYPE_NAMES.get(part, "null") for part in _parts(kind))


def _parts(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a type; a union with a Literal is another class than one of plain types."""
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return typing.get_args(kind) if is_union else (kind,)
