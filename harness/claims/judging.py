"""Judge a claim: which cases of a run are its sides, what an interval says, which conditions differ.

Pure. It computes no interval: the caller passes it in.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import msgspec

from serving_bench.engines import ENGINES
from serving_bench.harness.claims.claim import Claim, Conditions, Keys, Predicate, choices, side_text
from serving_bench.harness.contracts import Deployment, Fact, Load, Plan, at, scalars
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.decoding import as_text
from serving_bench.harness.settings.keys import fields

Outcome = Literal["reproduced", "not reproduced", "inconclusive", "not testable here"]
# The worst last.
EXIT_CODES: dict[Outcome, int] = {
    "reproduced": 0, "not testable here": 3, "inconclusive": 3, "not reproduced": 1,
}  # fmt: skip
_OF_DEPLOYMENT = ("engine", "model", "quantization")


@dataclass(frozen=True)
class Case:
    """A deployment under a load of a scenario."""

    deployment: Deployment
    load: Load
    scenario_label: str
    load_label: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.deployment.label, self.scenario_label, self.load_label

    @property
    def text(self) -> str:
        return f"{self.deployment.label} at {self.load_label}"


@dataclass(frozen=True)
class Judged:
    """The result of one comparison.

    `value` lies between `low` and `high` at `confidence`. They are None where nothing may be said, and `why`
    gives the reason. `outcome` is None if there is no figure to compare with.
    """

    compared: str
    outcome: Outcome | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    why: Fact | None = None


@dataclass(frozen=True)
class Part:
    """The outcome of one predicate.

    `accepted`: the values that reproduce it. `crossing`: where its ratio crosses 1 as loads rise; None if it
    was asked at one load.
    """

    asked: Predicate
    accepted: tuple[float, float] | None
    judged: tuple[Judged, ...]
    crossing: str | None = None


@dataclass(frozen=True)
class Differs:
    """A condition that is not the original's."""

    condition: str
    original: str
    here: str


@dataclass(frozen=True)
class Judgement:
    """The result of a claim.

    `why`: why it cannot be tested here. `kernels`: those for quantized weights, as servers named them, by
    deployment. `report`: the path of the run's page; None if nothing ran.
    """

    claim: Claim
    outcome: Outcome
    why: str | None = None
    parts: tuple[Part, ...] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[Differs, ...] = ()
    report: str | None = None


def cases_of(plan: Plan) -> list[Case]:
    first = (start for start in plan.starts if start.repeat == 0)
    return [
        Case(start.deployment, cell.load, cell.scenario.label, cell.load.label)
        for start in first
        for cell in start.cells
    ]


def combinations(predicate: Predicate, cases: Sequence[Case]) -> list[tuple[Case, ...]]:
    """Return the pairs of cases to compare, one case of each side. With one side, return each case by itself.

    Both cases of a pair have the same scenario. They have the same engine, model, quantization and load,
    unless a side names it, and the same deployment if the sides name only loads.
    """
    first, *others = ([case for case in cases if _is_of(side, case)] for side in predicate.sides)
    if not others:
        return [(case,) for case in first]
    named = {key for side in predicate.sides for key in side}
    shared = [key for key in _OF_DEPLOYMENT if key not in named]
    are_of_loads = [key.startswith("load.") for side in predicate.sides for key in side]
    return [
        (a, b)
        for a in first
        for b in others[0]
        if all(_text(key, a) == _text(key, b) for key in shared)
        and a.scenario_label == b.scenario_label
        and a != b
        and (any(are_of_loads) or a.load_label == b.load_label)
        and (not all(are_of_loads) or a.deployment == b.deployment)
    ]


def missing(predicate: Predicate, cases: Sequence[Case]) -> tuple[str, bool]:
    """Return what the predicate names but no case has, and whether it names only options of an engine."""
    absent = [side for side in predicate.sides if not any(_is_of(side, case) for case in cases)]
    words = " and no ".join(map(side_text, absent)) or f"two cases of {predicate.words}"
    are_options = all(key.partition(".")[0] in ENGINES for side in absent for key in side)
    return words, bool(absent) and are_options


def _is_of(side: Keys, case: Case) -> bool:
    return all(_text(key, case) in map(as_text, values) for key, values in choices(side).items())


def _text(key: str, case: Case) -> str:
    """Return a case's value of a key, `null` for another engine's option. Raises UserError."""
    deployment, section = case.deployment, key.partition(".")[0]
    if key in _OF_DEPLOYMENT:
        return as_text(getattr(deployment, key))
    declared = fields().get(key)
    if declared is None or section not in ("engine", "load", *ENGINES):
        raise UserError(
            f"predicate: {key}: does not select deployments or loads; give {', '.join(_OF_DEPLOYMENT)}, "
            "engine.*, load.* or an engine's own key"
        )
    holders = {"engine": deployment.terms, "load": case.load, deployment.engine: deployment.options}
    return as_text(msgspec.to_builtins(holders.get(section, {})).get(declared[0].name))


def outcome_of(low: float, high: float, accepted: tuple[float, float]) -> Outcome:
    """Return what an interval says: whether all of it is accepted, none of it, or neither."""
    least, most = accepted
    if least <= low and high <= most:
        return "reproduced"
    return "not reproduced" if high < least or low > most else "inconclusive"


def crossing(judged: Sequence[tuple[Load, Judged]]) -> str | None:
    """Return between which loads the ratio of one pair crosses 1, lowest load first; None with one load."""
    by_level = sorted(judged, key=lambda each: each[0].concurrency or each[0].rate_per_s or 0.0)
    sides = [(load.label, _side_of_one(each)) for load, each in by_level]
    present = [(label, side) for label, side in sides if side]
    if len(sides) < 2 or not present:
        return None
    through = [f"{a} ({old} 1) and {b} ({new} 1)" for (a, old), (b, new) in pairwise(present) if old != new]
    if through:
        return f"crosses 1 between {' and between '.join(through)}"
    loads = ", ".join(label for label, _ in present)
    return f"does not cross 1: {present[0][1]} it at {loads}"


def _side_of_one(judged: Judged) -> str:
    """Return `above` or `below` if the whole interval is; an empty text if it includes 1 or is not known."""
    if judged.low is not None and judged.low > 1:
        return "above"
    return "below" if judged.high is not None and judged.high < 1 else ""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of all together: a sentence holds if it holds in each case."""
    return max(outcomes, key=list(EXIT_CODES).index)


def differences(
    claim: Claim,
    environment: Mapping[str, Any],
    settings: Mapping[str, Sequence[str]],
    deployments: Sequence[Deployment],
    versions: Mapping[str, str],
) -> tuple[Differs, ...]:
    """Return each condition of the original, and each engine.* key, that differs in the run.

    `versions`: those of the servers, by engine.
    """
    devices, machine = environment.get("devices"), scalars(environment.get("machine"))
    names = [str(at(each, "name")) for each in devices] if isinstance(devices, list) else []
    traffic = [f"{key}={','.join(v)}" for key, v in settings.items() if key.startswith(("scenario", "load."))]
    here = Conditions(
        device=_several(names)
        or f"no GPU; {machine.get('cores_usable')} cores of {machine.get('cpu_model')}",
        model=_several(each.model for each in deployments),
        quantization=_several(each.quantization for each in deployments),
        engines=_several(f"{each.engine} {versions.get(each.engine, '')}".strip() for each in deployments),
        traffic=" ".join(traffic),
    )
    fields = msgspec.structs.asdict(here)
    conditions = [
        Differs(name, wanted, fields[name])
        for name, wanted in msgspec.structs.asdict(claim.conditions).items()
        if _plain(wanted) not in _plain(fields[name])
    ]
    said_of = {key: ",".join(map(as_text, values)) for key, values in choices(claim.original).items()}
    keys = [
        Differs(key, said_of.get(key, "not set"), ",".join(values))
        for key, values in settings.items()
        if key.startswith("engine.") and ",".join(values) != said_of.get(key)
    ]
    return (*conditions, *keys)


def _several(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
