"""Read a claim: a published sentence, its source and conditions, how it is run, and what reproduces it.

Each is a YAML file of scenarios/claims/, or one of the user's own. Knows no plan and no result.
"""

from collections.abc import Mapping
from math import inf
from pathlib import Path

import msgspec

from serving_bench import scenarios
from serving_bench.harness.contracts import CompareTerms, Scalar
from serving_bench.harness.errors import UserError, choose_from, refuse_first
from serving_bench.harness.settings.decoding import Choices, as_text
from serving_bench.harness.settings.yaml_files import read_yaml

# Keys as on a command line. A list is a sweep; in a side it means any of its values.
Keys = Mapping[str, Scalar | list[Scalar]]
# How far the answers of a deployment are from its reference's. It has no ratio.
KL_NATS = "kl_nats.mean"
_ITS_FIELDS = "those of scenarios/claims/ have all fields"
_FOLDER = Path(scenarios.__file__).with_name("claims")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who said it, where (an address), and when, as far as that is known."""

    who: str
    where: str
    date: str


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a claim was measured with, in words."""

    device: str = "not said"
    model: str = "not said"
    quantization: str = "not said"
    engines: str = "not said"
    traffic: str = "not said"


class Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What reproduces a claim: `metric` of one side over that of another (`ratio`), or of one side (`value`).

    A side is some keys and their values, which select its deployments and loads. One of `at_least`, `at_most`
    and `within` has the published figure; without a figure the predicate is only shown. `within`: the share
    by which a ratio may differ from 1. `turn`: counts only these turns; the first is 1.
    """

    metric: str
    ratio: tuple[Keys, Keys] | None = None
    value: Keys | None = None
    at_least: float | None = None
    at_most: float | None = None
    within: float | None = None
    turn: int | None = None

    @property
    def sides(self) -> tuple[Keys, ...]:
        return self.ratio or (self.value or {},)

    @property
    def figures(self) -> list[str]:
        """Return the published figure in words: `at least 1.29`; empty without one."""
        limits = {"at least": self.at_least, "at most": self.at_most, "1, give or take": self.within}
        return [f"{limit} {value:g}" for limit, value in limits.items() if value is not None]

    @property
    def accepted(self) -> tuple[float, float] | None:
        """Return the least and the greatest value that reproduce it; None without a figure.

        A ratio that equals the published figure within compare.margin (5 %) reproduces it as well.
        """
        if not self.figures:
            return None
        if self.within is not None:
            return 1 / (1 + self.within), 1 + self.within
        margin = 1 + CompareTerms.margin_share if self.ratio else 1.0
        least = -inf if self.at_least is None else self.at_least / margin
        return least, inf if self.at_most is None else self.at_most * margin

    @property
    def words(self) -> str:
        """Return it as a clause: `output_tokens_per_s of engine=sglang over engine=vllm, at least 1.29`."""
        turn = f" of turn {self.turn}" if self.turn else ""
        sides = " over ".join(side_text(side) or "each deployment" for side in self.sides)
        return ", ".join([f"{self.metric}{turn} of {sides}", *self.figures])


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published sentence. It holds if each of its predicates with a figure does.

    `reading`: how the sentence became these predicates, if that is not obvious. `original`: the keys of a run
    on a device like the original one; `here`: those of a run that is scaled down.
    """

    sentence: str
    source: Source
    conditions: Conditions
    original: Keys
    here: Keys
    predicates: tuple[Predicate, ...]
    reading: str = ""
    name: str = ""


def known() -> dict[str, Path]:
    """Return the files of bench's own claims by their names, in order."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def find(name: str) -> Claim:
    """Return a claim by its name, or from a YAML file. Raises UserError."""
    files = known()
    path = files.get(name, Path(name))
    is_file = path.suffix in (".yaml", ".yml")
    refuse_first((not is_file, f"claim {name}: no such claim; {choose_from(name, files)}, or a YAML file"))
    return read(path)


def read(path: Path) -> Claim:
    """Return the claim in a file. Raises UserError for one that has none."""
    not_one = f"claim {path}: not a claim"
    try:
        claim = msgspec.convert(read_yaml(path, f"claim {path}", _ITS_FIELDS), Claim)
    except msgspec.ValidationError as error:
        raise UserError(f"{not_one}: {error}; {_ITS_FIELDS}") from error
    for predicate in claim.predicates:
        is_value = predicate.value is not None
        is_kl = predicate.metric == KL_NATS
        numbers = [
            each for each in (predicate.at_least, predicate.at_most, predicate.within) if each is not None
        ]
        refuse_first(
            ((predicate.ratio is not None) == is_value, f"{not_one}: predicates: give ratio or value"),
            (len(numbers) > 1, f"{not_one}: predicates: give one of at_least, at_most and within"),
            (
                not all(0 < number < inf for number in numbers),
                f"{not_one}: predicates: a figure must be finite and above 0",
            ),
            (is_kl and not is_value, f"{not_one}: predicates: {KL_NATS} takes value"),
            (
                is_value and (predicate.within or predicate.turn) is not None,
                f"{not_one}: predicates: within and turn go with ratio",
            ),
            (
                predicate.turn is not None and predicate.turn < 1,
                f"{not_one}: predicates: the first turn is 1",
            ),
        )
    refuse_first(
        (not any(each.figures for each in claim.predicates), f"{not_one}: predicates: none has a figure")
    )
    return msgspec.structs.replace(claim, name=path.stem)


def choices(keys: Keys) -> Choices:
    """Return keys as settings take them, each with all its values."""
    return {key: tuple(value) if isinstance(value, list) else (value,) for key, value in keys.items()}


def side_text(side: Keys) -> str:
    """Return a side as its keys are given: `engine=vllm load.concurrency=1`."""
    return " ".join(f"{key}={','.join(map(as_text, values))}" for key, values in choices(side).items())
