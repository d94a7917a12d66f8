"""List all keys with their defaults, what they take and what they mean; refuse keys that do not exist."""

from collections.abc import Iterable, Mapping, Sequence

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import (
    CompareTerms,
    EngineTerms,
    FitTerms,
    GateTerms,
    GuardTerms,
    Load,
    Price,
    QualityTerms,
    RaceTerms,
    Scalar,
    SearchTerms,
    SloTerms,
    Until,
)
from serving_bench.harness.errors import did_you_mean, refuse_first
from serving_bench.harness.settings import sections
from serving_bench.harness.settings.decoding import ALONE, Choices, Field, fields_by_key, shown
from serving_bench.scenarios import SCENARIOS

# Those of the axes and of the keys without a section.
DEFAULTS: Mapping[str, tuple[Scalar, ...]] = {
    name: each.default if each.is_list else (each.default,) for name, each in ALONE.items()
}
DEFAULT_MODEL = str(DEFAULTS["model"][0])
# Up to this many keys of a section are listed in an error.
_FEW_KEYS = 20
# A short name -> the key that it stands for.
SHORT = {"fairness": "engine.fairness"}


def fields() -> Mapping[str, Sequence[Field]]:
    """Return each key with its fields: one for each scenario that has it as an option, or one."""
    kinds: list[tuple[str, type]] = [
        ("load", Load),
        ("engine", EngineTerms),
        ("guard", GuardTerms),
        ("price", Price),
        ("fit", FitTerms),
        ("search", SearchTerms),
        ("quality", QualityTerms),
        *(("scenario", scenario.options) for scenario in SCENARIOS.values()),
        *((name, engine.options) for name, engine in ENGINES.items()),
        ("slo", SloTerms),
        ("until", Until),
        ("compare", CompareTerms),
        ("race", RaceTerms),
        ("gate", GateTerms),
    ]
    every = {name: [field] for name, field in ALONE.items()}
    for prefix, kind in kinds:
        for name, field in fields_by_key(prefix, kind).items():
            every.setdefault(name, []).append(field)
    return every


def known_keys() -> list[str]:
    """Return the keys of a run, of `bench fit` and of `bench search`."""
    return sorted({*SHORT, *sections.OBJECTIVES, *(key for key in fields() if not key.startswith("gate."))})


def listed_keys() -> dict[str, tuple[str, str, str]]:
    """Return each key with its default as a user would give it, what it takes, and what it means."""
    rows = {}
    for name, (field, *others) in fields().items():
        takes, section = [field.takes, *(each.takes for each in others)], name.partition(".")[0]
        if name == f"{section}.program" and section in ENGINES and takes == ["text"]:
            takes = [*filter(None, ENGINES[section].programs), "a path"]
        rows[name] = (field.default_text, " or ".join(dict.fromkeys(takes)), field.key.about)
    return rows


def _keys_of(section: str, keys: Iterable[str]) -> str:
    """Return a clause with the keys of a section; an empty text if it has many or none."""
    short_keys = [key.partition(".")[2] for key in keys if key.startswith(f"{section}.")]
    return f"{section} has {', '.join(short_keys)}; " if 0 < len(short_keys) <= _FEW_KEYS else ""


def check_keys(given: Choices) -> None:
    """Raise UserError for a key that does not exist, belongs to another command, or would have no effect."""
    engines = {str(value) for value in given.get("engine", DEFAULTS["engine"])}
    chosen = [str(value) for value in given.get("scenario", DEFAULTS["scenario"])]
    scenarios = [SCENARIOS[name] for name in chosen if name in SCENARIOS]
    keys = known_keys()  # with those of a scenario in a file
    options = {key for scenario in scenarios for key in fields_by_key("scenario", scenario.options)}
    for key, values in given.items():
        what, section = f"{key}={shown(values[0])}", key.partition(".")[0]
        elsewhere = ENGINES.keys() - {section} if section in ENGINES else ()  # what other engines take
        meant = [each for each in keys if each.partition(".")[0] not in elsewhere]
        near = "" if key in keys else did_you_mean(key, meant) or _keys_of(section, keys)
        refuse_first(
            (
                key.startswith("gate.") or (section in ("fit", "search") and key in keys),
                f"{what}: is only for `bench {section}`; leave it out",
            ),
            (
                key not in keys and not sections.is_slo(key),
                f"{what}: no such key; {near}`bench list keys` has all",
            ),
            (
                section in ENGINES and section not in engines,
                f"{what}: engine {section} is not in this run; add it with engine={section}",
            ),
            (
                key.startswith("scenario.") and options and key not in options,
                f"{what}: scenario {','.join(chosen)} has no such option; "
                f"it has {', '.join(sorted(options))}",
            ),
        )
