"""The two sides of a comparison: which runs and deployments they are, what both have, and what differs.

Differences are in how the runs were made: hardware, versions, settings and flags, as they were recorded. What
changes with every start (ports, directories, instants) is left out. Makes no verdicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from serving_bench.harness.contracts import (
    Deployment,
    Fact,
    GuardTerms,
    RunTerms,
    because,
    is_secret,
    values_in,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.store.store import RunRecord
from serving_bench.reports.data import Group, Run, StartRecord, first_that_holds, gathered, open_run
from serving_bench.reports.measures import NOTHING, are_alike, flat, several
from serving_bench.reports.verdicts import Names, Pair


@dataclass(frozen=True)
class Side:
    """A run, and the label of one of its deployments, or None for all. `text`: the side as it was given."""

    text: str
    run: Run
    label: str | None = None

    @property
    def groups(self) -> list[Group]:
        return [each for each in self.run.groups if self.label in (None, each.deployment)]


@dataclass(frozen=True)
class LeftOut:
    """A deployment, scenario and load of one side, or of both (`A and B`), that is not compared, and why."""

    side: str
    deployment: str
    scenario: str
    load: str
    why: Fact

    @property
    def what(self) -> str:
        return ", ".join((self.deployment, self.scenario, self.load))


def open_sides(a: str, b: str) -> tuple[Side, Side]:
    """Open both sides, each `DIR` or `DIR:deployment`. A directory that is given twice is read once.

    If only one side names a deployment, the other side's is the same one, or its only one. Raises StoreError
    if a run cannot be read, UserError for a search, an unknown deployment, and two sides that are the same
    starts.
    """
    (path, label), (other_path, other_label) = _split(a), _split(b)
    run = open_run(path)
    other = run if other_path.resolve() == path.resolve() else open_run(other_path)
    first, second = _side(a, run, label, other_label), _side(b, other, other_label, label)
    if other is run and first.label == second.label:
        raise UserError(f"{a} and {b} are the same starts; give another run, or two deployments: DIR:LABEL")
    return first, second


def _split(text: str) -> tuple[Path, str | None]:
    """Return the directory and the label after it, if there is one.

    The directory is the longest prefix that is a run, since its name may contain a `:`. If none is, it is the
    longest prefix that exists, and opening it will say that it is no run.
    """
    ends = (len(text), *reversed([n for n, character in enumerate(text) if character == ":" and n]))
    there = [end for end in ends if Path(text[:end]).exists()]
    runs = [end for end in there if (Path(text[:end]) / "run.json").is_file()]
    end = next(iter(runs or there), len(text))
    return Path(text[:end]), text[end + 1 :] or None


def _side(text: str, run: Run, label: str | None, others: str | None) -> Side:
    if run.record.search is not None:
        raise UserError(f"{text}: is a search, which tried other loads on each start; its page compares them")
    wanted = label or others
    if wanted is None:
        return Side(text, run)
    labels = [name for name, each in run.deployments.items() if wanted in (name, each.slug)]
    if label is None and not labels:
        labels = list(run.deployments)
    has = ", ".join(run.deployments) or "none"
    if label is not None and not labels:
        raise UserError(f"{text}: no deployment {wanted} in {run.path}; it has {has}")
    if len(labels) != 1:
        raise UserError(
            f"{text}: cannot tell which deployment to compare with {wanted}; give {run.path}:LABEL, "
            f"with LABEL one of {has}"
        )
    return Side(text, run, labels[0])


def pairs_of(a: Side, b: Side, names: Names = ("A", "B")) -> tuple[list[Pair], list[LeftOut]]:
    """Return the pairs that both sides have at a load of the same name, in a's order, and what is left out.

    Raises UserError, with the reasons, if they have nothing in common.
    """
    whole = _why_none(a, b, names)
    # Two named deployments may have different labels. Of another tool's traffic only the load is known.
    is_foreign = any(side.run.foreign for side in (a, b))
    first = 2 if is_foreign else int(a.label is not None)
    rest = {group.key[first:]: group for group in b.groups}
    pairs, left_out = [], []
    for group in a.groups:
        other = rest.pop(group.key[first:], None)
        if other is None:
            left_out.append(LeftOut(names[0], *group.key, because("only_in", side=names[0])))
        elif why := _why_unlike(group, other, is_foreign=is_foreign):
            left_out.append(LeftOut(" and ".join(names), *group.key, why))
        else:
            pairs.append(Pair(names, (a.run, b.run), (group, other), whole))
    left_out += [LeftOut(names[1], *group.key, because("only_in", side=names[1])) for group in rest.values()]
    if not pairs:
        whys = several([f"{each.what}: {each.why}" for each in left_out], "; ")
        raise UserError(f"{a.text} and {b.text} have nothing in common; {_would_do(a, b, names)} ({whys})")
    return pairs, left_out


def _would_do(a: Side, b: Side, names: Names) -> str:
    """Return what would make two sides comparable that have no group in common."""
    labels = [{group.deployment for group in side.groups} for side in (a, b)]
    if a.label is None and labels[0].isdisjoint(labels[1]):
        return "DIR:DEPLOYMENT on each side compares deployments of other names"
    traffic = [dict.fromkeys(f"{group.scenario} at {group.load}" for group in side.groups) for side in (a, b)]
    if not traffic[0].keys().isdisjoint(traffic[1]):
        return "give runs of the same model and scenario options"
    traffics = ", ".join(
        f"{name} has {several(list(traffic_of_one))}"
        for name, traffic_of_one in zip(names, traffic, strict=True)
    )
    return f"their traffic differs: {traffics}; give runs of the same scenario and load"


def _why_unlike(a: Group, b: Group, *, is_foreign: bool) -> Fact | None:
    scenarios = (group.cells[0].planned.scenario for group in (a, b))
    first, second = ({"scenario": each.name, **each.options} for each in scenarios)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    differing = ", ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in names)
    return first_that_holds(
        {
            because("models_differ", models=(a.model, b.model)): a.model != b.model,
            because("options_differ", options=differing): differing and not is_foreign,
        }
    )


def _why_none(a: Side, b: Side, names: Names) -> Fact | None:
    """Return why no value gets a verdict, because of servers not restarted or other hardware, or None."""
    sides = zip(names, (a, b), strict=True)
    untested = next(
        (
            because("side_was" if side.run.foreign else "of_side", side=name, why=why)
            for name, side in sides
            if (why := side.run.why_untested)
        ),
        None,
    )
    is_recorded = a.run is b.run or all("machine" in side.run.record.environment for side in (a, b))
    unlike = [each for each in _unlike(_facts(a.run.record), _facts(b.run.record)) if each.is_other_hardware]
    hardware = tuple(f"{each.what}: {' and '.join(each.cells()[1:])}" for each in unlike[:3])
    return first_that_holds(
        {
            untested: untested,
            because("hardware_unknown"): not is_recorded,
            because("hardware_differs", differences=hardware): unlike,
        }
    )


# --- what differs ----------------------------------------------------------------------------------

Kind = Literal["hardware", "versions", "settings", "flags"]
KINDS: tuple[Kind, ...] = ("hardware", "versions", "settings", "flags")
# Facts about the machine's hardware; its other facts are about software.
_HARDWARE = ("architecture", "cpu_model", "cores_physical", "cores_logical", "cores_usable", "memory_bytes")
_SOFTWARE_OF_DEVICE = ("driver", "cuda")
# Facts about the moment, which do not matter by themselves.
_PASSING = (
    "clock", "selftest", "memory", "machine.load_1min", "machine.boot_id", "machine.swap_bytes", "host",
)  # fmt: skip
# What distinguishes devices of the same kind.
_SAME_KIND = ("uuid", "index", "notes")
# Where the server listens, and how its container is named: different in each start.
_OWN_OF_START = ("port", "name", "label")
# Keys of deployments, and sections of keys whose values are in the record of a run.
_OF_DEPLOYMENT = ("model", "engine", "quantization")
_RECORDED = ("compare", "quality", "price", "search", "until")
_Facts = dict[tuple[Kind, str], str]


@dataclass(frozen=True)
class Difference:
    """A fact that differs between the sides; None: not recorded, or not set.

    `where`: the deployments that it is about; empty if it is about all that are compared.
    """

    kind: Kind
    what: str
    a: str | None
    b: str | None
    where: str = ""

    def cells(self) -> tuple[str, str, str]:
        a, b = (NOTHING if side is None else side for side in (self.a, self.b))
        return f"{self.what} ({self.where})" if self.where else self.what, a, b

    @property
    def is_other_hardware(self) -> bool:
        """Whether the difference means other hardware.

        It does not if it only distinguishes devices of the same kind, or if sizes of memory are practically
        equal.
        """
        is_alike = are_alike(self.what, (self.a or "", self.b or ""))
        return self.kind == "hardware" and not is_alike and not {*self.what.split(".")} & {*_SAME_KIND}


def differences(a: Run, b: Run, labels: Sequence[tuple[str, str]]) -> tuple[Difference, ...]:
    """Return what differs between two runs (which may be one) and between their compared deployments.

    Sorted by kind. A setting that a deployment's plan repeats is listed once, as a setting.
    """
    whole = _of_records(a.record, b.record)
    by_side = {each.cells() for each in whole}
    where = gathered(
        (each, first)
        for first, second in labels
        # The command lines of two engines differ throughout, which says nothing.
        for has_argv in [a.deployments[first].engine == b.deployments[second].engine]
        for each in _unlike(_launch_facts(a, first, has_argv), _launch_facts(b, second, has_argv))
        if each.cells() not in by_side
    )
    facts = [
        replace(each, where=several(side) if len(side) < len(labels) else "") for each, side in where.items()
    ]
    return tuple(sorted([*whole, *facts], key=lambda each: KINDS.index(each.kind)))


def planned_differences(a: RunRecord, b: RunRecord) -> tuple[Difference, ...]:
    """Return what differs between the records of two runs. The second need not have begun."""
    whole = _of_records(a, b)
    was, now = a.plan.deployments, b.plan.deployments
    facts = [
        replace(each, where=label)
        for label in was.keys() & now.keys()
        for each in _unlike(_planned_facts(was[label]), _planned_facts(now[label]))
    ]
    return tuple(sorted([*whole, *facts], key=lambda each: (KINDS.index(each.kind), each.what, each.where)))


def _of_records(a: RunRecord, b: RunRecord) -> list[Difference]:
    """Return what differs in the settings of two runs, given or not, and in what they were made on."""
    settings = []
    for key in {**a.settings, **b.settings}:
        used = [_used(record, key) for record in (a, b)]
        if a.settings.get(key) != b.settings.get(key) and used[0].keys() != used[1].keys():
            given = (
                record.settings.get(key, texts.values()) for record, texts in zip((a, b), used, strict=True)
            )
            a_text, b_text = (",".join(texts) or None for texts in given)
            settings.append(Difference("settings", key, a_text, b_text))
    return [*settings, *_unlike(_facts(a), _facts(b))]


def _used(record: RunRecord, key: str) -> dict[Any, str]:
    """Return the values of a key that a run used, whether it was given or not, each with its text.

    Of a key that records do not repeat these are the given texts, else that of its default.
    """
    section, _, name = key.partition(".") if "." in key else ("", "", key)
    cells = [cell for start in record.plan.starts for cell in start.cells]
    deployments, race = record.plan.deployments.values(), record.plan.race
    alone = {
        **{kind: tuple(getattr(each, kind) for each in deployments) for kind in _OF_DEPLOYMENT},
        "scenario": tuple(cell.scenario.name for cell in cells),
        "repeats": f"{race.least}..{race.most}" if race else record.plan.blocks,
        "quality": record.quality.asked or ("off",),
    }
    sections: dict[str, Sequence[Any]] = {
        "": [alone],
        "load": [cell.load for cell in cells],
        "scenario": [cell.scenario.options for cell in cells],
        "engine": [each.terms for each in deployments],
        **{each: [getattr(record, each)] for each in _RECORDED},
    }
    of_engine = [each.options for each in deployments if each.engine == section]
    values = [values_in(each, name) for each in sections.get(section, of_engine) if each]
    used = {value: text for each in values for value, text in each.items() if value is not None}
    defaults = values_in(GuardTerms(), name) if section == "guard" else values_in(RunTerms(), key)
    given = [text for text in record.settings.get(key, ()) if text != "null"]
    return used or {text: text for text in given or defaults.values()}


def _unlike(a: _Facts, b: _Facts) -> list[Difference]:
    return [Difference(*key, a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)]


def _facts(record: RunRecord) -> _Facts:
    machine = flat(record.environment)
    made_on = {
        # Named as in the facts of a start.
        (_kind(key), key.replace("variables.", "environment ")): str(value)
        for key, value in machine
        if not key.startswith(_PASSING)
    }
    return {**made_on, ("settings", "status"): record.status}


def _kind(key: str) -> Kind:
    topic, _, name = key.partition(".")
    if topic == "variables":
        return "flags"
    if topic == "devices":
        return "versions" if name.rpartition(".")[2] in _SOFTWARE_OF_DEVICE else "hardware"
    return "hardware" if topic == "machine" and name in _HARDWARE else "versions"


def _launch_facts(run: Run, label: str, has_argv: bool) -> _Facts:
    """Return a deployment's facts: as planned, then those that were the same in all its starts."""
    planned = _planned_facts(run.deployments[label])
    values = gathered(
        ((kind, topic + key), str(value))
        for record in run.starts_of(label)
        for kind, topic, facts in _of_start(record, has_argv)
        for key, value in facts.items()
        if value is not None and not is_secret(key)
    )
    return planned | {key: each[0] for key, each in values.items() if len(set(each)) == 1}


def _planned_facts(deployment: Deployment) -> _Facts:
    planned = {
        "quantization": deployment.quantization,
        "engine": msgspec.to_builtins(deployment.terms),
        deployment.engine: msgspec.to_builtins(deployment.options),
    }
    facts: _Facts = {("flags", "engine"): deployment.engine}
    return facts | {("flags", key): str(value) for key, value in flat(planned) if value is not None}


def _of_start(record: StartRecord, has_argv: bool) -> tuple[tuple[Kind, str, Mapping[str, Any]], ...]:
    return (
        ("versions", "server ", {"version": record.version or None}),
        ("versions", "image ", record.image),
        ("flags", "resolved ", record.resolved),
        ("flags", "environment ", record.environment),
        ("flags", "weights ", record.weights),
        ("flags", "argv ", _arguments(record) if has_argv else {}),
    )


def _arguments(record: StartRecord) -> dict[str, str]:
    """Return the server's flags with their values, without those that differ in every start."""
    arguments, flag = dict[str, str](), "program"
    for word in record.argv:
        is_flag = word.startswith("-") and not word[1:].replace(".", "", 1).isdecimal()
        name, _, value = word.partition("=")
        flag = name if is_flag else flag
        arguments[flag] = f"{arguments.get(flag, '')} {value if is_flag else word}".strip()
    return {
        flag: value or "given"
        for flag, value in arguments.items()
        if flag.strip("-") not in _OWN_OF_START and record.name not in value
    }
