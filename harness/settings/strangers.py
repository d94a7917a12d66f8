"""Say which settings bench takes from a file that somebody else may have made: a run, a bundle, a claim.

A setting may say what runs on this machine, which file is read, or where requests and keys are sent. Such a
value is the user's to give. Every key that takes free text declares which are taken (Foreign). What the
user types, and a study given with --from, is the user's own word.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from serving_bench.engines import ENGINES, MODELS
from serving_bench.harness.contracts import Foreign, Scalar
from serving_bench.harness.settings import sections
from serving_bench.harness.settings.decoding import Choices, Field, as_text, decode
from serving_bench.harness.settings.keys import SHORT, fields
from serving_bench.scenarios import is_column, length

# taken: as it is. shown: taken, but told before anything starts. asked: only if the user agrees.
Belief = Literal["taken", "shown", "asked"]
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.,:|-]{0,63}", re.ASCII)


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


# Which values of each class are taken, besides null.
_TAKES: Mapping[Foreign, Callable[[Scalar], bool]] = {
    "never": lambda value: False,  # it is started, or says where requests and keys are sent
    "file": lambda value: False,
    "false": lambda value: value is False,
    "program": lambda value: any(value in engine.programs for engine in ENGINES.values()),
    "model": MODELS.__contains__,
    "device": ("auto", "cpu").__contains__,
    "speculation": _is_speculation,
    "adapters": lambda value: str(value).isdecimal(),
    "task": _is_task,
    "label": _is_no_file,
    "word": _is_plain,  # an engine looks it up
    "currency": _is_currency,
    "length": lambda value: not (isinstance(value, str) and is_column(value)),
    "looked up": lambda value: True,  # in a table of bench's own, or read as a number
}
# A measurement's costs without a limit of their own are asked for above _MOST_S seconds, and numbers of a
# scenario above _MOST_NUMBER, since large conversations take long to make.
_MOST_S, _MOST_NUMBER = 3600, 8192


def field_of(key: str) -> Field | None:
    """Return the field by which values of a key are judged; None for objectives and for no key."""
    every = _fields_of(key)
    return next((field for field in every if field.key.foreign), every[0] if every else None)


def _fields_of(key: str) -> Sequence[Field]:
    return fields().get(SHORT.get(key, key), ())


def belief(key: str, value: Scalar) -> Belief:
    """Return how a value from a stranger's file is treated. Raises UserError for one of a wrong type."""
    field = field_of(key)
    # FILE.py and package:NAME are code, and so is a scenario whose options are not known.
    is_code = key == "scenario" and (":" in str(value) or str(value).endswith(".py"))
    if is_code or (field is None and key.startswith("scenario.")):
        return "asked"
    if value is None or field is None:
        return "taken"
    kind, most = field.key.foreign, field.key.ask_above
    if any(str in each.parts and not each.key.foreign for each in _fields_of(key)):
        kind = "never"  # of another package, which did not say
    if kind and not _TAKES[kind](value):
        return "shown" if key == "model" and str(value).startswith("hf:") else "asked"
    if kind == "length":
        number = _longest(key, value)
    elif key == "repeats":
        number = sections.repeats({key: (value,)}).most
    elif value is False or value in ("auto", "off"):
        return "taken"
    elif kind is None and {int, float} & {*field.parts}:
        number = decode(key, field, value)
    else:
        return "taken"
    of_section = _MOST_NUMBER if key.startswith("scenario.") else math.inf
    if number > (most or (_MOST_S if field.suffix == "_s" else of_section)):
        return "asked"
    return "shown" if most else "taken"


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
