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
_TAKEN, _TEXT = Rule(lambda value: True), Rule(_is_plain)
_LENGTH = Rule(lambda value: not (isinstance(value, str) and is_column(value)))
# By key; `*` is any engine.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("engine.chat_template", "scenario.path", "scenario.schema"), _PATH),
    **dict.fromkeys(("load.tokenizer", "quality.text", "*.environment"), _PATH),
    **dict.fromkeys(("engine.base_url", "engine.api_key_env", "engine.launcher"), _ASKED),
    "*.image": _ASKED,
    "engine.trust_remote_code": Rule(lambda value: value is False),
    "*.program": Rule(_PROGRAMS.__contains__),
    "model": Rule(MODELS.__contains__),
    "device": Rule(("auto", "cpu").__contains__),
    "engine.speculation": Rule(_is_speculation),
    "scenario.adapters": Rule(lambda value: str(value).isdecimal()),
    "quality.against": Rule(_is_no_file),
    "quality.tasks": Rule(_is_task),
    **dict.fromkeys(
        (f"scenario.{each}_tokens" for each in ("document", "input", "prefix", "result")), _LENGTH
    ),
    "scenario.steps": _LENGTH,
    **dict.fromkeys((f"*.{each}_backend" for each in ("attention", "sampling")), _TEXT),
    **dict.fromkeys(("*.quantization", "*.threads_bind", "*.tool_call_parser", "*.label", "*.fault"), _TEXT),
    **dict.fromkeys(("engine", "quantization", "scenario", "guard", "fairness", "quality"), _TAKEN),
    **dict.fromkeys(("repeats", "seed", "until", "until.metric", "until.budget", "run.budget"), _TAKEN),
    **dict.fromkeys(("compare.baseline", "compare.margin", "compare.metric", "price.currency"), _TAKEN),
    **dict.fromkeys(("load.steps", "slo.kl_nats.mean", "slo.tasks.score"), _TAKEN),
}
# What a measurement may cost this machine. It is told, and asked for above these: bytes, users, processes,
# repeats, seconds.
_MOST: Mapping[str, float] = {
    "reference.memory": 1 << 30,
    "load.concurrency": 256,
    "load.workers": 16,
    "repeats": 20,
    "load.duration": 600.0,
}
# Beyond these a conversation takes seconds to make, which happens before anything is measured.
_MOST_TURNS, _MOST_TOKENS = 32, 8192
_TURNS = ("scenario.turns", "scenario.steps", "scenario.retrieved", "scenario.parallel")
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
    if key in _MOST:
        field = _FIELDS.get(key)
        number = decode(key, field.kind if field else int, value, field.suffix if field else None)
        return "shown" if number <= _MOST[key] else "asked"
    is_large = key.startswith("scenario.") and _largest(value) > (
        _MOST_TURNS if key in _TURNS else _MOST_TOKENS
    )
    if (rule is None or rule.believes(value)) and not is_large:
        return "taken"
    return "shown" if key == "model" and str(value).startswith("hf:") else "asked"


def _largest(value: Scalar) -> float:
    """Return the largest number in a value or its text, such as 1024 of `256..1024`."""
    return max(
        (float(each) for each in re.findall(r"\d+\.?\d*(?:[eE][+]?\d{1,3})?", str(value))), default=0.0
    )


def words(choices: Choices, kind: Belief) -> Iterator[str]:
    """Yield `key=value,value` for each key that has a value of this kind, as it would be typed."""
    for key, values in choices.items():
        if kind in {belief(key, value) for value in values}:
            yield f"{key}={','.join(map(as_text, values))}"
