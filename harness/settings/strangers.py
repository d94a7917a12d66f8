"""Say which settings bench takes from a file that somebody else may have made: a run, a bundle, a claim.

A setting may say what runs on this machine, which file is read, or where requests and keys are sent. Such a
value is the user's to give. Every key that takes text has a rule here. What the user types, and a study given
with --from, is the user's own word.
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


@dataclass(frozen=True)
class Rule:
    """How much a key's value is believed. `is_path`: the value is a path, which settings make absolute."""

    believes: Callable[[str, Scalar], bool]  # whether a value other than null is taken
    is_path: bool = False


def _never(_key: str, _value: Scalar) -> bool:
    return False


def _is_false(_key: str, value: Scalar) -> bool:
    return value is False


def _always(_key: str, _value: Scalar) -> bool:
    return True


def _is_listed_program(key: str, value: Scalar) -> bool:
    return value in ENGINES[key.partition(".")[0]].programs


def _is_listed_model(_key: str, value: Scalar) -> bool:
    return value in MODELS


def _is_plain(_key: str, value: Scalar) -> bool:
    """Return whether a text is short and cannot be a path, a flag or code."""
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None


def _is_name(key: str, value: Scalar) -> bool:
    """Return whether a text is no file: lm_eval runs the Python that a task's file names."""
    return (
        _is_plain(key, value) and not str(value).endswith((".yaml", ".yml")) and not Path(str(value)).exists()
    )


def _is_label(_key: str, value: Scalar) -> bool:
    return "/" not in str(value) and not Path(str(value)).exists()


def _is_length(_key: str, value: Scalar) -> bool:
    return not (isinstance(value, str) and is_column(value))


def _is_number(_key: str, value: Scalar) -> bool:
    return str(value).isdecimal()


def _is_speculation(_key: str, value: Scalar) -> bool:
    model = str(value).removeprefix("draft:").partition("@")[0]
    return value in (False, "off", "ngram") or (str(value).startswith("draft:") and model in MODELS)


def _is_any_device(_key: str, value: Scalar) -> bool:
    return value in ("auto", "cpu")


_PATH, _ASKED, _TAKEN, _TEXT, _LENGTH = (
    Rule(_never, is_path=True), Rule(_never), Rule(_always), Rule(_is_plain), Rule(_is_length),
)  # fmt: skip
# By key; `*` is any engine.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("engine.chat_template", "scenario.path", "scenario.schema"), _PATH),
    **dict.fromkeys(("load.tokenizer", "quality.text", "*.environment"), _PATH),
    **dict.fromkeys(("engine.base_url", "engine.api_key_env", "engine.launcher"), _ASKED),
    "*.image": _ASKED,
    "engine.trust_remote_code": Rule(_is_false),
    "*.program": Rule(_is_listed_program),
    "model": Rule(_is_listed_model),
    "device": Rule(_is_any_device),
    "engine.speculation": Rule(_is_speculation),
    "scenario.adapters": Rule(_is_number),
    "quality.against": Rule(_is_label),
    "quality.tasks": Rule(_is_name),
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
    if rule is None or rule.believes(key, value):
        return "taken"
    return "shown" if key == "model" and str(value).startswith("hf:") else "asked"


def words(choices: Choices, kind: Belief) -> Iterator[str]:
    """Yield `key=value,value` for each key that has a value of this kind, as it would be typed."""
    for key, values in choices.items():
        if kind in {belief(key, value) for value in values}:
            yield f"{key}={','.join(map(as_text, values))}"
