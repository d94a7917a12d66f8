"""What differs between two sides in how they were made: hardware, versions, settings, flags.

Facts as they were recorded. What changes with every start (ports, directories, instants) is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from harness.contracts import is_secret
from harness.store.store import StartRecord
from reports.data.run import Run
from reports.measures.written import NOTHING, flat, several

Kind = Literal["hardware", "versions", "settings", "flags"]
KINDS: tuple[Kind, ...] = ("hardware", "versions", "settings", "flags")
# Of the machine; its other facts are of its software.
_HARDWARE = ("architecture", "cpu_model", "cores_physical", "cores_logical", "cores_usable", "memory_bytes")
_SOFTWARE_OF_DEVICE = ("driver", "cuda")
# Of the moment, and of no consequence by itself.
_PASSING = (
    "clock", "selftest", "memory", "machine.load_1min", "machine.boot_id", "machine.swap_bytes", "host",
)  # fmt: skip
# Tells one device from another of the same kind.
_SAME_KIND = ("uuid", "index", "notes")
# The kernel reserves another part of the same memory after an update.
_SAME_MEMORY = 0.02
_ARGV = "argv "
# Where the server listens, and what tells its container from others: each start has its own.
_OWN_OF_START = ("port", "name", "label")
_Facts = dict[tuple[Kind, str], str]


@dataclass(frozen=True)
class Difference:
    """A fact that is not the same on both sides; None: not recorded, or not set.

    `where`: the deployments that it is of; empty where it is of all that are compared.
    """

    kind: Kind
    what: str
    a: str | None
    b: str | None
    where: str = ""

    def cells(self) -> tuple[str, str, str]:
        """Return what, a and b as a person reads them."""
        what = f"{self.what} ({self.where})" if self.where else self.what
        return what, NOTHING if self.a is None else self.a, NOTHING if self.b is None else self.b


def differences(a: Run, b: Run, labels: Sequence[tuple[str, str]]) -> tuple[Difference, ...]:
    """Return what differs between two runs (which may be one) and between their compared deployments.

    Sorted by kind. What was set and is said again by a deployment's plan stands once, as a setting.
    """
    whole = _unlike(_facts(a), _facts(b))
    said = {each.cells() for each in whole}
    where: dict[Difference, list[str]] = {}
    for first, second in labels:
        is_one_engine = a.deployments[first].engine == b.deployments[second].engine
        for each in _unlike(_launch_facts(a, first), _launch_facts(b, second)):
            # Of two engines all of the command line differs, and says nothing.
            if each.cells() not in said and (is_one_engine or not each.what.startswith(_ARGV)):
                where.setdefault(each, []).append(first)
    own = [
        replace(each, where=several(found) if len(found) < len(labels) else "")
        for each, found in where.items()
    ]
    return tuple(sorted([*whole, *own], key=lambda each: KINDS.index(each.kind)))


def hardware_differs(a: Run, b: Run) -> str | None:
    """Return what of the hardware is not the same, as a clause; None where all of it is."""
    if a is b:
        return None
    if not all("machine" in run.record.environment for run in (a, b)):
        return "the hardware of one of them is not recorded"
    found = [each for each in _unlike(_facts(a), _facts(b)) if each.kind == "hardware" and _matters(each)]
    return "; ".join(f"{each.what}: {' and '.join(each.cells()[1:])}" for each in found[:3]) or None


def _matters(difference: Difference) -> bool:
    if not {*difference.what.split(".")}.isdisjoint(_SAME_KIND):
        return False
    sizes = [float(each) for each in (difference.a, difference.b) if each and each.isdecimal()]
    is_size = difference.what.endswith("memory_bytes") and len(sizes) == 2
    return not is_size or min(sizes) < max(sizes) * (1 - _SAME_MEMORY)


def _unlike(a: _Facts, b: _Facts) -> list[Difference]:
    return [Difference(*key, a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)]


def _facts(run: Run) -> _Facts:
    found: _Facts = {("settings", key): ",".join(values) for key, values in run.record.settings.items()}
    for key, value in flat(run.record.environment):
        if not key.startswith(_PASSING):
            found[_kind(key), key] = str(value)
    return {**found, ("settings", "status"): run.record.status}


def _kind(key: str) -> Kind:
    topic, _, name = key.partition(".")
    if topic == "devices":
        return "versions" if name.rpartition(".")[2] in _SOFTWARE_OF_DEVICE else "hardware"
    return "hardware" if topic == "machine" and name in _HARDWARE else "versions"


def _launch_facts(run: Run, label: str) -> _Facts:
    """Return the facts of a deployment: as planned, then what was the same in all of its starts."""
    deployment = run.deployments[label]
    planned = {
        "quantization": deployment.quantization,
        "engine": msgspec.to_builtins(deployment.terms),
        deployment.engine: msgspec.to_builtins(deployment.options),
    }
    found: _Facts = {("flags", "engine"): deployment.engine}
    found |= {("flags", key): str(value) for key, value in flat(planned) if value is not None}
    values: dict[tuple[Kind, str], set[str]] = {}
    for record in run.starts_of(label):
        for kind, topic, facts in _of_start(record):
            for key, value in facts.items():
                if value is not None and not is_secret(key):
                    values.setdefault((kind, topic + key), set()).add(str(value))
    return found | {key: min(each) for key, each in values.items() if len(each) == 1}


def _of_start(record: StartRecord) -> Iterator[tuple[Kind, str, Mapping[str, Any]]]:
    yield "versions", "server ", {"version": record.version or None}
    yield "versions", "image ", record.image
    yield "flags", "resolved ", record.resolved
    yield "flags", "environment ", record.environment
    yield "flags", "weights ", record.weights
    yield "flags", _ARGV, _arguments(record)


def _arguments(record: StartRecord) -> dict[str, str]:
    """Return the server's flags with what follows each, but for those that are this start's own."""
    found, flag = dict[str, str](), "program"
    for word in record.argv:
        is_flag = word.startswith("-") and not word[1:].replace(".", "", 1).isdecimal()
        name, _, value = word.partition("=")
        flag = name if is_flag else flag
        found[flag] = f"{found.get(flag, '')} {value if is_flag else word}".strip()
    return {
        flag: value or "given"
        for flag, value in found.items()
        if flag.strip("-") not in _OWN_OF_START and record.name not in value
    }
