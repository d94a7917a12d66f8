"""List all keys with their defaults and what they take, and refuse keys that do not exist."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engines import ENGINES
from harness.contracts import EngineTerms, GuardTerms, Load, Price, QualityTerms, Scalar, SearchTerms
from harness.errors import did_you_mean, refuse_first
from harness.settings import sections
from harness.settings.decoding import Choices, Field, as_text, fields_by_key, shown
from scenarios import SCENARIOS

DEFAULT_MODEL = "smollm2-135m"
DEFAULTS: Mapping[str, tuple[Scalar, ...]] = {
    "model": (DEFAULT_MODEL,),
    "engine": ("llama_cpp",),
    "quantization": ("fp16", "gguf-q8_0", "gguf-q4_0"),
    "scenario": ("chat_multi_turn",),
    "load.concurrency": (4,),
    "device": ("auto",),
    "repeats": (5,),
    "seed": (1,),
    "guard": ("mark",),
}
# Up to this many keys of a section are listed in an error.
_FEW_KEYS = 20
# A short name -> the key that it stands for.
SHORT = {"fairness": "engine.fairness"}
_TAKES = {
    "model": "a name of `bench list models`, a path, or hf:organisation/name",
    "engine": "a name of `bench list engines`",
    "quantization": "a name of `bench list quantizations`",
    "scenario": "a name of `bench list scenarios`",
    "load.concurrency": "a whole number",
    "device": 'auto, cpu, 0, or several as "0,1"',
    "repeats": "a whole number",
    "seed": "a whole number",
    "guard": "strict, mark or off",
}


@dataclass(frozen=True)
class FitTerms:
    """The keys that only `bench fit` has. `device_memory_bytes`: of one device; None takes this machine's."""

    device_memory_bytes: int | None = None


def known_keys() -> list[str]:
    return sorted({*DEFAULTS, *SHORT, *_fields(), *sections.KEYS_OF_RUNS})


def listed_keys() -> dict[str, tuple[str, str]]:
    """Return each key with its default as a user would give it, and what it takes, in words."""
    found = {key: (",".join(map(as_text, values)), _TAKES[key]) for key, values in DEFAULTS.items()}
    for key, field in _fields().items():
        name, _, option = key.partition(".")
        takes = field.takes
        if name in ENGINES and option == "program" and takes == "text":
            takes = " or ".join([*filter(None, ENGINES[name].programs), "a path"])
        elif name in ENGINES and option == "environment":
            takes = "a directory"
        elif name == "scenario":
            takes = " or ".join(_taken_by_scenarios(key))
        found.setdefault(key, (field.default_text, takes))
    return found | sections.LISTED


def _taken_by_scenarios(key: str) -> list[str]:
    """Return what scenarios take for a key, which may be one of several."""
    fields = (fields_by_key("scenario", scenario.options) for scenario in SCENARIOS.values())
    return list(dict.fromkeys(own[key].takes for own in fields if key in own))


def _fields() -> dict[str, Field]:
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
    ]
    found: dict[str, Field] = {}
    for prefix, kind in kinds:
        found |= {key: field for key, field in fields_by_key(prefix, kind).items() if key not in found}
    return found


def _keys_of(section: str, known: Iterable[str]) -> str:
    """Return a clause with the keys of a section; an empty text if it has many or none."""
    own = [key.partition(".")[2] for key in known if key.startswith(f"{section}.")]
    return f"{section} has {', '.join(own)}; " if 0 < len(own) <= _FEW_KEYS else ""


def check_keys(given: Choices) -> None:
    """Raise UserError for a key that does not exist, belongs to another command, or would have no effect."""
    known = known_keys()
    engines = {str(value) for value in given.get("engine", DEFAULTS["engine"])}
    chosen = [str(value) for value in given.get("scenario", DEFAULTS["scenario"])]
    asked = [SCENARIOS[name] for name in chosen if name in SCENARIOS]
    options = {key for scenario in asked for key in fields_by_key("scenario", scenario.options)}
    for key, values in given.items():
        what, section = f"{key}={shown(values[0])}", key.partition(".")[0]
        elsewhere = ENGINES.keys() - {section} if section in ENGINES else ()  # what other engines take
        meant = [each for each in known if each.partition(".")[0] not in elsewhere]
        near = "" if key in known else did_you_mean(key, meant) or _keys_of(section, known)
        refuse_first(
            (
                key.startswith("gate.") or (section in ("fit", "search") and key in known),
                f"{what}: is only for `bench {section}`; leave it out",
            ),
            (
                key not in known and not sections.is_slo(key),
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
