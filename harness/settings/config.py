"""Turn the chosen values of each key into typed, frozen Settings, with defaults; check which go together."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from random import Random
from typing import Any

from serving_bench.engines import ENGINES, ONLY_ATTACHED, QUANTIZATIONS, aliases
from serving_bench.harness.contracts import (
    CompareTerms,
    Conversation,
    Deployment,
    EngineTerms,
    FitTerms,
    GuardMode,
    GuardTerms,
    Load,
    Objective,
    Price,
    QualityTerms,
    RaceTerms,
    Repeats,
    RunTerms,
    Scalar,
    Scenario,
    ScenarioChoice,
    SearchTerms,
    Until,
    masked_argv,
)
from serving_bench.harness.errors import UserError, choose_from, expanded, refuse_first, see_list
from serving_bench.harness.plugins import reason
from serving_bench.harness.settings import sections
from serving_bench.harness.settings.attached import check_attached, check_price, key_env
from serving_bench.harness.settings.decoding import (
    Choices,
    Varied,
    as_text,
    fields_by_key,
    points,
    refuse_repeated,
    refuse_secrets,
    shown,
    single,
)
from serving_bench.harness.settings.keys import DEFAULT_MODEL, DEFAULTS, SHORT, check_keys
from serving_bench.harness.settings.loads import loads
from serving_bench.harness.settings.strangers import field_of
from serving_bench.scenarios import SCENARIOS, is_column

# For `bench fit`, which asks what could be served, not what to measure. It asks about all engines.
FIT_DEFAULTS: Mapping[str, tuple[Scalar, ...]] = {
    "quantization": ("bf16", "fp8", "awq", "gguf-q8_0", "gguf-q4_k_m"),
    "load.concurrency": (Load.concurrency,),
}
# Sections of keys that say how often to measure and what to make of it.
_OF_RUNS = ("repeats", "seed", "guard", "price", "slo", "until", "compare", "race", "run", "quality")
_ADAPTERS = "scenario.adapters"
# An error lists up to this many names (all engines). Of scenarios and quantizations it lists those near.
_MOST_NAMES = 12
# How often each deployment is started where nothing can race and `repeats` does not say it.
GRID_REPEATS = 5


@dataclass(frozen=True)
class Settings:
    """One run as it was asked for. Each tuple is an axis, and the plan multiplies them.

    `engines`: the points of each engine's own options, by its name. `given`: what the user set, as text that
    parses again, and what was determined before the plan was made (scenario.tokens_per_word).
    """

    models: tuple[str, ...]
    engines: Mapping[str, tuple[Varied, ...]]
    quantizations: tuple[str, ...]
    terms: tuple[Varied, ...]
    scenarios: tuple[ScenarioChoice, ...]
    loads: tuple[Load, ...]
    device: str
    repeats: Repeats
    seed: int
    guard: GuardMode
    guard_terms: GuardTerms
    price: Price
    slo: tuple[Objective, ...]
    until: Until | None
    budget_s: float | None
    compare: CompareTerms
    race: RaceTerms
    quality: QualityTerms
    given: Mapping[str, tuple[str, ...]]
    search: SearchTerms | None = None  # None: it is a run

    @property
    def scenario_names(self) -> tuple[str, ...]:
        """Return their names; of a file without its directory."""
        return tuple(PurePath(scenario.name).name for scenario in self.scenarios)

    @property
    def is_attached(self) -> bool:
        return any(point.value.base_url for point in self.terms)


def settings(given: Choices) -> Settings:
    """Check and type all choices. Raises UserError with the key, the value, and what would work."""
    for key, values in given.items():
        refuse_secrets(f"{key}={values}")
        if key.endswith(".args") and key.partition(".")[0] in ENGINES:
            _check_args(key, values)
    check_keys(given)
    if "fairness" in given and "engine.fairness" in given:
        raise UserError("fairness and engine.fairness are one key; give one of them")
    is_attached = any(given.get("engine.base_url", ()))
    given = {
        SHORT.get(key, key): values if key == _ADAPTERS and is_attached else _absolute(key, values)
        for key, values in given.items()
    }
    choices: dict[str, tuple[Scalar, ...]] = {**DEFAULTS, **given}
    if choices.get("engine.base_url", (None,))[0]:
        choices.setdefault("engine.api_key_env", (key_env(str(choices["engine"][0])),))
        if "quantization" not in given:
            choices["quantization"] = ("-",)
    # A study's `off` is YAML for false.
    if "engine.speculation" in given:
        choices["engine.speculation"] = tuple(value or "off" for value in given["engine.speculation"])
    run = single("", RunTerms, choices, until_share=None)
    short = aliases(run.model[0])
    quantizations = [short.get(value, value) for value in run.quantization]
    refuse_repeated("quantization", choices["quantization"], quantizations)
    scenarios = _scenarios(choices)
    complete = Settings(
        models=run.model,
        engines={
            name: points(name, ENGINES[name].options, choices)
            for name in _names("engine", run.engine, ENGINES)
        },
        quantizations=_quantizations(quantizations, choices),
        terms=points("engine", EngineTerms, choices),
        scenarios=scenarios,
        loads=loads(choices, given, scenarios),
        device=run.device,
        repeats=sections.repeats(given),
        seed=run.seed,
        guard=run.guard,
        guard_terms=single("guard", GuardTerms, choices),
        price=single("price", Price, choices),
        slo=tuple(sections.objectives(given)),
        until=sections.until(given),
        budget_s=sections.budget_s(given),
        compare=sections.compare_terms(given),
        race=sections.race_terms(given),
        quality=sections.quality_terms(given),
        given=_as_given(given),
    )
    if complete.is_attached:
        check_attached(
            complete.terms, complete.engines, complete.quantizations, complete.quality, complete.given
        )
    check_price(complete.price, complete.given, is_attached=complete.is_attached)
    if complete.race.keep and not complete.repeats.is_race:
        text = complete.repeats.text
        raise UserError(
            f"race.keep={complete.race.keep}: repeats={text} is no race; give race.keep=null or repeats=3..12"
        )
    if complete.until:
        complete = as_grid(complete, "until decides itself how many there are")
    if complete.is_attached:
        complete = as_grid(complete, "a running server is not restarted, so nobody races")
    for terms in (point.value for point in complete.terms):
        _check_speculation(terms, is_alone="engine.speculation" not in given)
    for path in {point.value.chat_template for point in complete.terms} - {None}:
        if not Path(path).is_file():
            raise UserError(f"engine.chat_template={path}: no such file; give a Jinja file")
    return complete


def as_grid(settings: Settings, why: str) -> Settings:
    """Return the settings of a run that is no race. Raises UserError if one was asked for."""
    if not settings.repeats.is_race:
        return settings
    for key, value, remedy in (
        ("repeats", settings.repeats.text, "give repeats=N"),
        ("race.keep", settings.race.keep, "leave it out"),
    ):
        if key in settings.given:
            raise UserError(f"{key}={value}: {why}; {remedy}")
    return replace(settings, repeats=Repeats(GRID_REPEATS, GRID_REPEATS))


def fit_settings(given: Choices, typed: Iterable[str] = ()) -> tuple[Settings, FitTerms]:
    """Return the settings of `bench fit` and the values of its own keys. Raises UserError like `settings`.

    A study may have keys for a run as well. On the command line (`typed`) each key must have an effect.
    """
    for key in typed:
        if key.partition(".")[0] in _OF_RUNS:
            raise UserError(f"{key}={shown(given[key][0])}: bench fit measures nothing; leave it out")
    if any(given.get("engine.base_url", ())):
        url = shown(given["engine.base_url"][0])
        raise UserError(f"engine.base_url={url}: a running server has its memory already; leave it out")
    terms = single("fit", FitTerms, given)
    rest = {key: values for key, values in given.items() if key not in fields_by_key("fit", FitTerms)}
    defaults = {"engine": engines_with_weights(), **FIT_DEFAULTS}
    if {"load.rate", "load.arrival"} & rest.keys():
        del defaults["load.concurrency"]
    return _with_defaults(rest, defaults), terms


def search_settings(given: Choices) -> Settings:
    """Return the settings of `bench search` with its lowest load."""
    terms = sections.search_terms(given)
    looks = "looks for the load itself; give"
    refused = {
        **dict.fromkeys(("load.concurrency", "load.rate"), f"{looks} search.lowest and search.highest"),
        "until": f"{looks} repeats=N",
        "run.budget": "ends when it has found the load; leave it out",
    }
    for key in (key for key in refused if key in given):
        raise UserError(f"{key}={shown(given[key][0])}: bench search {refused[key]}")
    declared = fields_by_key("search", SearchTerms)
    lowest = terms.lowest or 1.0
    start: Scalar = int(lowest) if terms.over == "concurrency" else lowest
    rest = {key: values for key, values in given.items() if key not in declared}
    rest_settings = _with_defaults(rest, {f"load.{terms.over}": (start,)})
    if not rest_settings.slo:
        raise UserError("bench search needs an objective: give slo.ttft_s.p95=500ms, slo.success=99% or both")
    search_given = _as_given({key: values for key, values in given.items() if key in declared})
    rest_settings = as_grid(rest_settings, "a search starts each deployment equally often")
    return replace(rest_settings, given={**rest_settings.given, **search_given}, search=terms)


def _with_defaults(given: Choices, defaults: Choices) -> Settings:
    complete = settings({**defaults, **given})
    kept = {key: values for key, values in complete.given.items() if key in given or key not in defaults}
    return replace(complete, given=kept)


def engines_with_weights() -> tuple[str, ...]:
    """Return the engines that load weights, so none that bench only attaches to and none without a model."""
    return tuple(
        name
        for name, engine in ENGINES.items()
        if engine.weights(Deployment(name, DEFAULT_MODEL, "bf16", EngineTerms(), engine.options(), ""))
        is not None
    )


def _check_args(key: str, values: Sequence[Scalar]) -> None:
    """Raise UserError for further arguments that a shell could not read, or that have a secret in them."""
    for text in (value for value in values if isinstance(value, str)):
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UserError(f"{key}={text}: {error}") from error
        if masked_argv(words) != tuple(words):
            raise UserError(f"{key}: has a secret in it, which would be stored with the run; leave it out")


def _as_given(given: Choices) -> dict[str, tuple[str, ...]]:
    return {key: tuple(map(as_text, values)) for key, values in given.items()}


def _absolute(key: str, values: Sequence[Scalar]) -> tuple[Scalar, ...]:
    """Return paths as absolute ones, so that --resume finds them from anywhere."""
    if key == _ADAPTERS:
        return tuple(_absolute_adapters(value) if isinstance(value, str) else value for value in values)
    field = field_of(key)
    kind = field.key.foreign if field else None
    return tuple(
        str(expanded(key, value).absolute())
        if isinstance(value, str)
        and (
            kind == "file"
            or (key == "scenario" and value.endswith(".py"))
            or (kind == "program" and "/" in value)
            or (key == "quality.against" and Path(value).is_dir())
            or (kind == "length" and is_column(value))
        )
        else value
        for value in values
    )


def _absolute_adapters(adapters: str) -> str:
    """Return the adapters with directories as absolute paths that end in /, and the others as they are."""
    paths = []
    for each in adapters.split(":"):
        path = expanded(_ADAPTERS, each)
        paths.append(f"{path.absolute()}/" if each and path.is_dir() else each)
    return ":".join(paths)


def _check_speculation(terms: EngineTerms, *, is_alone: bool) -> None:
    """Raise UserError for an unknown way to speculate, or for a number of tokens without one (`is_alone`)."""
    given, tokens = f"engine.speculation={terms.speculation}", terms.speculative_tokens
    model, quantization = terms.draft or ("-", "")
    refuse_first(
        (
            is_alone and tokens is not None,
            f"engine.speculative_tokens={tokens}: says how many engine.speculation=ngram or draft:MODEL "
            "proposes at once; give that too",
        ),
        (
            (terms.draft is None and terms.speculation not in (None, "off", "ngram")) or not model,
            f"{given}: choose from off, ngram, draft:MODEL, draft:MODEL@QUANTIZATION",
        ),
        (
            quantization and quantization not in QUANTIZATIONS,
            f"{given}: no such quantization; {see_list(quantization, QUANTIZATIONS, 'quantizations')}",
        ),
    )


def _names(key: str, values: Sequence[Scalar], choices: Mapping[str, Any]) -> tuple[str, ...]:
    for value in values:
        if value not in choices:
            name, names = shown(value), sorted(choices)
            is_many = len(names) > _MOST_NAMES
            advice = see_list(name, names, f"{key}s") if is_many else choose_from(name, names)
            raise UserError(f"{key}={name}: no such {key}; {advice}")
    refuse_repeated(key, values, values)
    return tuple(map(str, values))


def _quantizations(names: Sequence[str], choices: Choices) -> tuple[str, ...]:
    claimed = [name for name in names if ONLY_ATTACHED.fullmatch(name)]
    if claimed and not any(choices.get("engine.base_url", ())):
        raise UserError(
            f"quantization={claimed[0]}: no engine that bench starts serves it; engine=openai "
            "engine.base_url=URL measures a running server that does, such as TabbyAPI"
        )
    return _names("quantization", names, {**QUANTIZATIONS, "-": None, **dict.fromkeys(claimed)})


def _scenarios(choices: Choices) -> tuple[ScenarioChoice, ...]:
    built = []
    for name in _names("scenario", choices["scenario"], SCENARIOS):
        scenario = SCENARIOS[name]
        for point in points("scenario", scenario.options, choices):
            differs = (f"{key.partition('.')[2]}={v}" for key, v in point.differs.items())
            label = " ".join([PurePath(name).name, *differs])
            built.append(ScenarioChoice(name, point.value, label, *_shape(name, scenario, point.value)))
    if len({choice.label for choice in built}) < len(built):
        raise UserError(
            f"scenario={','.join(map(shown, choices['scenario']))}: two have one name; rename one"
        )
    return tuple(built)


def _shape(name: str, scenario: Scenario, options: Any) -> tuple[float | None, bool, int]:
    """Return how long the arrivals of a scenario take, whether it ends itself, and its width.

    Making the first conversation shows whether the options work, before anything is started.
    """
    try:
        first = next(iter(scenario.conversations(options, Random(0))), None)
        arrivals = scenario.arrivals(options)
        span_s = None if arrivals is None else max(at_s for at_s, _ in arrivals)
        shape = span_s, scenario.ends_itself, options.width
        scenario.largest(options), scenario.forms(options), options.lora
    except Exception as error:
        if isinstance(error, UserError) or name not in SCENARIOS.origins:
            raise
        raise UserError(f"scenario={name}: {reason(error)}") from error
    if not isinstance(first, Conversation):
        raise UserError(f"scenario={name}: it yields no Conversation")
    return shape
