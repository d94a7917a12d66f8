"""Say which settings bench takes from a file that somebody else may have made: a run, a bundle, a claim.

A setting may say what runs on this machine, which file is read, or where requests and keys are sent. Such a
value is the user's to give. Every key that takes free text has a rule here. What the user types, and a study
given with --from, is the user's own word.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines import ENGINES, MODELS
from harness.contracts import Load, Scalar
from harness.settings.decoding import Choices, as_text, decode, fields_by_key
from scenarios import is_column

# taken: as it is. shown: taken, but told before anything starts. asked: only if the user agrees.
Belief = Literal["taken", "shown", "asked"]
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.,:|-]{0,63}", re.ASCII)
_NUMBER = re.compile(r"\d+\.?\d*(?:[eE][+]?\d{1,3})?")
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


_PATH, _ASKED = Rule(lambda value: False, is_path=True), Rule(lambda value: False)
_TAKEN, _TEXT, _LABEL = Rule(lambda value: True), Rule(_is_plain), Rule(_is_no_file)
_LENGTH = Rule(lambda value: not (isinstance(value, str) and is_column(value)))
_LENGTHS = tuple(f"scenario.{each}_tokens" for each in ("document", "input", "prefix", "result"))
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
    **dict.fromkeys(("*.threads_bind", "*.tool_call_parser", "*.fault", "price.currency"), _TEXT),
    # Settings look these up in a table of bench's own, or read a number.
    **dict.fromkeys(("engine", "quantization", "scenario", "guard", "fairness", "quality", "until"), _TAKEN),
    **dict.fromkeys(("repeats", "seed", "until.metric", "until.budget", "run.budget", "load.steps"), _TAKEN),
    **dict.fromkeys(("compare.margin", "compare.metric", "slo.kl_nats.mean", "slo.tasks.score"), _TAKEN),
}
# What a measurement may cost this machine. It is told, and asked for above these: bytes, users, processes,
# repeats, seconds, sessions a second; and what takes seconds to make before anything is measured.
_MOST: Mapping[str, float] = {
    "reference.memory": 1 << 30,
    "load.workers": 16,
    **dict.fromkeys(("load.concurrency", "load.rate"), 256),
    **dict.fromkeys(("load.conversations", "load.min_requests"), 10_000),
    **dict.fromkeys(("load.duration", "load.warmup", "load.ramp_up", "load.ramp_down"), 600.0),
    **dict.fromkeys(("repeats", "load.steps"), 20),
    **dict.fromkeys(("scenario.turns", "scenario.steps", "scenario.retrieved", "scenario.parallel"), 32),
    **dict.fromkeys((*_LENGTHS, "scenario.input_words", "scenario.system_words"), 8192),
    "scenario.output_tokens": 8192,
}
_FIELDS = {**fields_by_key("load", Load), **fields_by_key("reference", ENGINES["reference"].options)}


def rule_of(key: str) -> Rule | None:
    """Return the rule of a key; None for one that takes only numbers, or one of a few words."""
    section, _, option = key.partition(".")
    return RULES.get(key) or (RULES.get(f"*.{option}") if section in ENGINES else None)


def belief(key: str, value: Scalar) -> Belief:
    """Return how a value from a stranger's file is treated. Raises UserError for one of a wrong type."""
    rule = rule_of(key)
    if value is None:
        return "taken"
    if rule and not rule.believes(value):
        return "shown" if key == "model" and str(value).startswith("hf:") else "asked"
    if key not in _MOST:
        return "taken"
    return "shown" if _largest(key, value) <= _MOST[key] else "asked"


def _largest(key: str, value: Scalar) -> float:
    """Return a number in its unit, or the largest one in a text such as 1024 of `256..1024`."""
    if key.startswith("scenario."):
        return max(map(float, _NUMBER.findall(str(value))), default=0.0)
    field = _FIELDS.get(key)
    return float(decode(key, field.kind if field else int, value, field.suffix if field else None))


def words(choices: Choices, kind: Belief) -> Iterator[str]:
    """Yield `key=value,value` for each key that has a value of this kind, as it would be typed."""
    for key, values in choices.items():
        if kind in {belief(key, value) for value in values}:
            yield f"{key}={','.join(map(as_text, values))}"
