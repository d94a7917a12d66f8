"""Say which settings bench takes from a file that somebody else may have made: a run, a bundle, a claim.

A setting may say what runs on this machine, which file is read, or where requests and keys are sent. Such a
value is the user's to give. Every key that takes free text has a rule here. What the user types, and a study
given with --from, is the user's own word.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from engines import ENGINES, MODELS
from harness.contracts import EngineTerms, GuardTerms, Load, QualityTerms, Scalar, SearchTerms
from harness.settings.decoding import Choices, Field, as_text, decode, fields_by_key, kinds_of
from scenarios import SCENARIOS, is_column, length

# taken: as it is. shown: taken, but told before anything starts. asked: only if the user agrees.
Belief = Literal["taken", "shown", "asked"]
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.,:|-]{0,63}", re.ASCII)
_PROGRAMS = {program for engine in ENGINES.values() for program in engine.programs}


@dataclass(frozen=True)
class Rule:
    """Whether a value other than null is taken. `is_path`: it is a path, which settings make absolute."""

    believes: Callable[[Scalar], bool]
    is_path: bool = False


def _is_plain(value: Scalar) -> bool:
    """Return whether a text is short and cannot be a path, a flag or code."""
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None


def _is_no_file(value: Scalar) -> bool:
    text = str(value)
    return text.isprintable() and len(text) < 200 and "/" not in text and not Path(text).exists()


def _is_task(value: Scalar) -> bool:
    # lm_eval runs the Python that a task's file names.
    return _is_plain(value) and _is_no_file(value) and not str(value).endswith((".yaml", ".yml"))


def _is_speculation(value: Scalar) -> bool:
    kind, _, model = str(value).partition(":")
    return value in (False, "off", "ngram") or (kind == "draft" and model.partition("@")[0] in MODELS)


def _is_currency(value: Scalar) -> bool:
    text = str(value)
    return _is_plain(value) or (len(text) == 1 and unicodedata.category(text) == "Sc")


_PATH, _ASKED = Rule(lambda value: False, is_path=True), Rule(lambda value: False)
_TAKEN, _TEXT, _LABEL = Rule(lambda value: True), Rule(_is_plain), Rule(_is_no_file)
_LENGTH = Rule(lambda value: not (isinstance(value, str) and is_column(value)))
_LENGTHS = tuple(f"scenario.{each}_tokens" for each in ("document", "input", "output", "prefix", "result"))
# By key; `*` is any engine.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("engine.chat_template", "scenario.path", "scenario.schema"), _PATH),
    **dict.fromkeys(("load.tokenizer", "quality.text", "*.environment"), _PATH),
    **dict.fromkeys(("engine.base_url", "engine.api_key_env", "engine.launcher", "*.image"), _ASKED),
    "engine.trust_remote_code": Rule(lambda value: value is False),
    "*.program": Rule(_PROGRAMS.__contains__),
    "model": Rule(MODELS.__contains__),
    "device": Rule(("auto", "cpu").__contains__),
    "engine.speculation": Rule(_is_speculation),
    "scenario.adapters": Rule(lambda value: str(value).isdecimal()),
    "quality.tasks": Rule(_is_task),
    **dict.fromkeys(("quality.against", "compare.baseline"), _LABEL),
    **dict.fromkeys((*_LENGTHS, "scenario.steps"), _LENGTH),
    **dict.fromkeys(("*.attention_backend", "*.sampling_backend", "*.quantization", "*.label"), _TEXT),
    **dict.fromkeys(("*.threads_bind", "*.tool_call_parser", "*.fault"), _TEXT),
    "price.currency": Rule(_is_currency),
    # Settings look these up in a table of bench's own, or read a number.
    **dict.fromkeys(("engine", "quantization", "scenario", "guard", "fairness", "quality", "until"), _TAKEN),
    **dict.fromkeys(("repeats", "seed", "until.metric", "until.budget", "run.budget", "load.steps"), _TAKEN),
    **dict.fromkeys(("compare.margin", "compare.metric", "slo.kl_nats.mean", "slo.tasks.score"), _TAKEN),
}
# What a measurement may cost, in bytes, processes, users, conversations a second, seconds and repeats. It is
# told, and asked for above these. Other times are asked for above _MOST_S seconds, and other numbers of a
# scenario above _MOST_NUMBER, since large conversations take long to make.
_MOST: Mapping[str, float] = {
    "reference.memory": 1 << 30,
    "load.workers": 16,
    **dict.fromkeys(("load.concurrency", "load.rate", "scenario.rate", "search.highest"), 256),
    **dict.fromkeys(("load.conversations", "load.min_requests"), 10_000),
    **dict.fromkeys(("load.duration", "load.warmup", "load.ramp_up", "load.ramp_down"), 600),
    **dict.fromkeys(("repeats", "load.steps", "search.trials"), 20),
    **dict.fromkeys(("scenario.turns", "scenario.steps", "scenario.retrieved", "scenario.parallel"), 32),
}
_MOST_S, _MOST_NUMBER = 3600, 8192
_SECTIONS: Mapping[str, type] = {
    "load": Load,
    "engine": EngineTerms,
    "guard": GuardTerms,
    "quality": QualityTerms,
    "search": SearchTerms,
    "reference": ENGINES["reference"].options,
}
_FIELDS: Mapping[str, Field] = {
    **{
        key: field
        for each in SCENARIOS.values()
        for key, field in fields_by_key("scenario", each.options).items()
    },
    **{key: field for name, kind in _SECTIONS.items() for key, field in fields_by_key(name, kind).items()},
    **dict.fromkeys(("until.budget", "run.budget"), Field("budget", float, "_s", None)),
    "repeats": Field("repeats", int, None, None),
}


def rule_of(key: str) -> Rule | None:
    """Return the rule of a key; None for one that takes only numbers, or one of a few words."""
    section, _, option = key.partition(".")
    return RULES.get(key) or (RULES.get(f"*.{option}") if section in ENGINES else None)


def belief(key: str, value: Scalar) -> Belief:
    """Return how a value from a stranger's file is treated. Raises UserError for one of a wrong type."""
    rule, field = rule_of(key), _FIELDS.get(key)
    if value is None:
        return "taken"
    if rule and not rule.believes(value):
        return "shown" if key == "model" and str(value).startswith("hf:") else "asked"
    if rule is _LENGTH:
        number = _longest(key, value)
    elif field and {int, float} & {*kinds_of(field.kind)}:
        number = decode(key, field.kind, value, field.suffix)
    else:
        return "taken"
    of_section = _MOST_NUMBER if key.startswith("scenario.") else math.inf
    if number > _MOST.get(key, _MOST_S if field and field.suffix == "_s" else of_section):
        return "asked"
    return "shown" if key in _MOST else "taken"


def _longest(key: str, value: Scalar) -> float:
    """Return the most that a length stands for; of a lognormal one what lies three sigma above its median."""
    most = length(key.removeprefix("scenario."), cast(int | str, value)).most
    if most is not None:
        return most
    _, median, sigma = str(value).split(":")
    return float(median) * math.exp(3 * float(sigma))


def words(choices: Choices, kind: Belief) -> Iterator[str]:
    """Yield `key=value,value` for each key that has a value of this kind, as it would be typed."""
    for key, values in choices.items():
        if kind in {belief(key, value) for value in values}:
            yield f"{key}={','.join(map(as_text, values))}"
