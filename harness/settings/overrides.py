"""Parse `key=value` by Hydra's override grammar, and study files, into untyped values of each dotted key.

Importing Hydra takes 0.2 s, so a command that parses no keys must not import this file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from serving_bench.harness.contracts import Scalar
from serving_bench.harness.errors import UserError, refuse_first
from serving_bench.harness.settings.decoding import refuse_secrets, shown
from serving_bench.harness.settings.yaml_files import read_yaml

_LINES = "lines `key: value`, such as `engine: [vllm, sglang]`"
_FLAT = "is nested; keys are flat, such as"


def parse(overrides: Sequence[str], study: Path | None = None) -> dict[str, tuple[Scalar, ...]]:
    """Return the values of each key; the command line wins over the study. Raises UserError."""
    choices: dict[str, tuple[Scalar, ...]] = _read_study(study) if study else {}
    for text in overrides:
        refuse_secrets(text)
    parser = OverridesParser.create()
    given: dict[str, tuple[Scalar, ...]] = {}
    for text in overrides:
        key, values = _parse_one(parser, text)
        if key in given:
            before = ",".join(map(shown, given[key]))
            raise UserError(f"{key}={before} {text}: {key} is given twice; give it once")
        given[key] = values
    return choices | given


def _parse_one(parser: Any, text: str) -> tuple[str, tuple[Scalar, ...]]:
    key, equals, value = text.partition("=")
    refuse_first(
        (not equals or not key, f"{text}: not of the form key=value, such as scenario=chat_multi_turn"),
        (key.startswith(("+", "~")), f"{text}: bench only sets keys; write {key.lstrip('+~')}=VALUE"),
        (not value, f"{text}: has no value; null unsets a key"),
        (value.startswith("{"), f"{text}: {key} {_FLAT} load.concurrency=8"),
    )
    try:
        override: Override = parser.parse_override(text)
        return key, _values(override)
    except (HydraException, ValueError) as error:
        is_missing = "" in [each.strip(" []") for each in value.split(",")]
        cause = "a value is missing beside a comma" if is_missing else "cannot be read"
        remedy = "leave out the comma" if is_missing else f"quote the value: '{key}=\"{value}\"'"
        raise UserError(f"{text}: {cause}; {remedy}") from error


def _values(override: Override) -> tuple[Scalar, ...]:
    value = override._value  # the public accessors resolve quotes and sweeps for Hydra's own config
    if isinstance(value, ChoiceSweep):
        value = value.list
    elif isinstance(value, RangeSweep):
        value = list(value.range())
    return tuple(map(_scalar, value if isinstance(value, list) else [value]))


def _scalar(value: object) -> Scalar:
    if isinstance(value, QuotedString):
        return str(value.text)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise ValueError(f"{value!r} is no single value")


def _read_study(path: Path) -> dict[str, tuple[Scalar, ...]]:
    content = read_yaml(path, f"--from {path}", f"a study has {_LINES}")
    if not isinstance(content, dict):
        raise UserError(f"--from {path}: not a study: it must have {_LINES}")
    return choices_of(content, f"--from {path}: ")


def choices_of(settings: Mapping[str, object], of: str = "") -> dict[str, tuple[Scalar, ...]]:
    """Return the values of each key of a study, or of a program. `of` begins each error. Raises UserError."""
    choices: dict[str, tuple[Scalar, ...]] = {}
    if not isinstance(settings, Mapping):
        raise UserError(f"{of}settings are values by key, such as {{'load.concurrency': [1, 8]}}")
    for key, value in settings.items():
        refuse_secrets(f"{key}={value}")
        if isinstance(value, Mapping):
            raise UserError(f"{of}{key} {_FLAT} `load.concurrency: 8`")
        values = value if isinstance(value, list | tuple) else [value]
        try:
            choices[str(key)] = tuple(map(_scalar, values))
        except ValueError:
            values = []
        if not values:
            raise UserError(f"{of}{key}: must be a value or a list of values")
    return choices
