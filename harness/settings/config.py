"""Choices of each key -> typed, frozen Settings: which keys there are, their defaults, and which of them go
together.

Knows what engines and scenarios exist through their dicts alone; harness/settings/decoding.py reads each
value.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from engines import ALIASES, ENGINES, QUANTIZATIONS
from harness.contracts import (
    CompareTerms,
    Deployment,
    EngineTerms,
    GuardMode,
    GuardTerms,
    Load,
    Objective,
    Price,
    Scalar,
    ScenarioChoice,
    SearchTerms,
    Until,
)
from harness.errors import UserError
from harness.settings import goals, loads
from harness.settings.decoding import Varied, check_single, decode, fields_by_key, option_keys, points, takes
from harness.settings.values import Choices, as_text, shown
from scenarios import SCENARIOS

DEFAULT_MODEL = "gemma3-270m"
DEFAULTS: dict[str, tuple[Scalar, ...]] = {
    "model": (DEFAULT_MODEL,),
    "engine": ("llama_cpp",),
    "quantization": ("gguf-q4_k_m", "fp16", "gguf-q8_0"),
    "scenario": ("chat_multi_turn",),
    "load.concurrency": (1, 4),
    "device": ("auto",),
    "repeats": (3,),
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
    slo: tuple[Objective, ...]
    until: Until | None
    compare: CompareTerms
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
            check_single(key, choices[key])
    engines = _names("engine", choices["engine"], ENGINES)
    scenarios = _scenarios(choices)
    asked = goals.goals(given)
    made = Settings(
        models=tuple(dict.fromkeys(_text("model", value) for value in choices["model"])),
        engines=tuple(EngineChoice(name, points(name, ENGINES[name].options, choices)) for name in engines),
        quantizations=_quantizations(choices["quantization"]),
        terms=points("engine", EngineTerms, choices),
        scenarios=scenarios,
        loads=loads.loads(choices, given, scenarios, lambda chosen: points("load", Load, chosen)),
        device=str(choices["device"][0]),
        repeats=decode("repeats", int, choices["repeats"][0]),
        seed=decode("seed", int, choices["seed"][0]),
        guard=_guard_mode(choices["guard"][0]),
        guard_terms=points("guard", GuardTerms, choices)[0].value,
        price=_price(choices),
        slo=asked.slo,
        until=asked.until,
        compare=asked.compare,
        given={key: tuple(as_text(value) for value in values) for key, values in given.items()},
    )
    _check_attached(made)
    _check_templates(made)
    return made


def fit_settings(given: Choices) -> tuple[Settings, FitTerms]:
    """Settings for `bench fit`, and its own keys. Raises UserError as `settings` does."""
    if any(given.get("engine.base_url", ())):
        url = shown(given["engine.base_url"][0])
        raise UserError(f"engine.base_url={url}: a running server has its memory already; leave it out")
    own = fields_by_key("fit", FitTerms)
    for key in own:
        check_single(key, given.get(key, ()))
    terms = points("fit", FitTerms, given)[0].value
    rest = {key: values for key, values in given.items() if key not in own}
    users = {} if {"load.rate", "load.arrival"} & rest.keys() else FIT_DEFAULTS
    defaults = {"engine": engines_with_weights(), "quantization": FIT_DEFAULTS["quantization"], **users}
    made = settings({**defaults, **rest})
    asked = {key: values for key, values in made.given.items() if key in rest or key not in defaults}
    return replace(made, given=asked), terms


def search_settings(given: Choices) -> tuple[Settings, SearchTerms]:
    """Settings for `bench search`, and its own keys; the settings' loads are one at the lowest end of what is
    searched. Raises UserError as `settings` does."""
    terms = goals.search_terms(given)
    for key in ("load.concurrency", "load.rate", "until"):
        if key in given:
            value = shown(given[key][0])
            where = "search.lowest and search.highest" if key != "until" else "repeats=N"
            raise UserError(f"{key}={value}: bench search looks for the load itself; give {where}")
    own = goals.search_keys()
    lowest = terms.lowest or 1.0
    start: Scalar = int(lowest) if terms.over == "concurrency" else lowest
    rest = {key: values for key, values in given.items() if key not in own}
    made = settings({**rest, f"load.{terms.over}": (start,)})
    if not made.slo:
        raise UserError("bench search needs an objective: give slo.ttft_s.p95=500ms, slo.success=99% or both")
    asked = {key: tuple(as_text(value) for value in values) for key, values in given.items() if key in own}
    rest_given = {key: values for key, values in made.given.items() if key in rest}
    return replace(made, given={**rest_given, **asked}), terms


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
    return sorted({"model", *DEFAULTS, *_SHORT, *_all_section_keys(), *goals.keys()})


def _sections() -> list[tuple[str, type]]:
    """Prefix and dataclass of each section of keys."""
    sections: list[tuple[str, type]] = [
        ("load", Load),
        ("engine", EngineTerms),
        ("guard", GuardTerms),
        ("price", Price),
        ("fit", FitTerms),
        ("search", SearchTerms),
    ]
    sections += [("scenario", scenario.options) for scenario in SCENARIOS.values()]
    return sections + [(name, engine.options) for name, engine in ENGINES.items()]


def takes_of_keys() -> dict[str, str]:
    """What each key takes: `a duration, such as 20s`, `a whole number`, `linear or steps` ..."""
    found = (
        _TAKES
        | goals.takes()
        | {
            key: takes(typing.get_type_hints(kind)[name], suffix)
            for prefix, kind in reversed(_sections())
            for key, (name, suffix) in fields_by_key(prefix, kind).items()
        }
    )
    for name, engine in ENGINES.items():
        if found.get(f"{name}.program") == "text":
            found[f"{name}.program"] = " or ".join([*filter(None, engine.programs), "a path"])
        if f"{name}.environment" in found:
            found[f"{name}.environment"] = "a directory"
    return found


def default_of_keys() -> dict[str, str]:
    """Every key with its default as it would be given; `scenario.*` keys of all scenarios."""
    found = {key: ",".join(as_text(value) for value in values) for key, values in DEFAULTS.items()}
    for prefix, kind in _sections():
        for line in option_keys(prefix, kind):
            key, _, default = line.partition("=")
            found.setdefault(key, default)
    return found | goals.defaults()


def _all_section_keys() -> set[str]:
    return {key for prefix, kind in _sections() for key in fields_by_key(prefix, kind)}


def _check_keys(given: Choices) -> None:
    known = known_keys()
    for key, values in given.items():
        if key not in known and not goals.is_slo(key):
            if key.startswith("gate."):
                raise UserError(f"{key}={shown(values[0])}: is of `bench gate` alone; leave it out")
            why = goals.why_no_slo(key) or _nearest(key, known)
            raise UserError(f"{key}={shown(values[0])}: no such key; {why}")
        for section in ("fit", "search"):
            if key.startswith(f"{section}."):
                raise UserError(f"{key}={shown(values[0])}: is of `bench {section}` alone; leave it out")
    _check_short(given)
    _check_sections(given)


def _check_short(given: Choices) -> None:
    """A mistake in a short key's value is told by the key that was typed."""
    hints = typing.get_type_hints(EngineTerms)
    for key, whole in _SHORT.items():
        for value in given.get(key, ()):
            decode(key, hints[whole.removeprefix("engine.")], value)


def _check_sections(given: Choices) -> None:
    """A key of an engine or scenario that is not in this run would have no effect: say so."""
    engines = {str(value) for value in given.get("engine", DEFAULTS["engine"])}
    chosen = [str(value) for value in given.get("scenario", DEFAULTS["scenario"])]
    scenario_keys = {
        key
        for name in chosen
        if name in SCENARIOS
        for key in fields_by_key("scenario", SCENARIOS[name].options)
    }
    for key, values in given.items():
        prefix = key.partition(".")[0]
        what = f"{key}={shown(values[0])}"
        if "." in key and prefix in ENGINES and prefix not in engines:
            raise UserError(f"{what}: engine {prefix} is not in this run; add it with engine={prefix}")
        if prefix == "scenario" and "." in key and scenario_keys and key not in scenario_keys:
            options = ", ".join(sorted(scenario_keys))
            raise UserError(f"{what}: scenario {','.join(chosen)} has no such option; it has {options}")


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
        decode("price.gpu_hour", float, value)
    made: Price = points("price", Price, choices)[0].value
    return made


def _quantizations(values: Sequence[Scalar]) -> tuple[str, ...]:
    resolved = [ALIASES.get(str(value), str(value)) for value in values]
    return _names("quantization", resolved, {**QUANTIZATIONS, "-": None})


def _scenarios(choices: Choices) -> tuple[ScenarioChoice, ...]:
    made = []
    for name in _names("scenario", choices["scenario"], SCENARIOS):
        scenario = SCENARIOS[name]
        for point in points("scenario", scenario.options, choices):
            # Its first conversation tells whether its options can work, before anything is started.
            next(iter(scenario.conversations(point.value, Random(0))))
            label = " ".join([name, *(f"{key.partition('.')[2]}={v}" for key, v in point.differs.items())])
            made.append(ScenarioChoice(name, point.value, label, scenario.span_s(point.value)))
    return tuple(made)


def _guard_mode(value: Scalar) -> GuardMode:
    # A study's `guard: off` is YAML for false.
    mode: GuardMode = decode("guard", GuardMode, "off" if value is False else value)
    return mode


def _text(key: str, value: Scalar) -> str:
    text: str = decode(key, str, value)
    return text
