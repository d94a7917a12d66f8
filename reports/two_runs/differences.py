"""What differs between two sides in how they were made: hardware, versions, settings, flags.

Facts as they were recorded. What changes with every start (ports, directories, instants) is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from harness.contracts import is_secret
from harness.store.store import StartRecord
from reports.data.run import Run
from reports.measures.written import NOTHING, flat, several

Kind = Literal["hardware", "versions", "settings", "flags"]
KINDS: tuple[Kind, ...] = ("hardware", "versions", "settings", "flags")
# Of the machine; its other facts are of its software.
_HARDWARE = (
    "architecture", "cpu_model", "cores_physical", "cores_logical", "cores_usable", "memory_bytes",
    "swap_bytes",
)  # fmt: skip
_SOFTWARE_OF_DEVICE = ("driver", "cuda")
# Of the moment, and of no consequence by itself.
_PASSING = ("clock", "selftest", "machine.load_1min", "machine.boot_id", "host")
# Tells one device from another of the same kind.
_SAME_KIND = ("swap_bytes", "uuid", "index", "notes")
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

    Sorted by kind. What was set and is said again by the server's flags stands once, as a setting.
    """
    where: dict[Difference, list[str]] = {}
    for first, second in labels:
        facts = [{**_facts(run), **_launch_facts(run, label)} for run, label in ((a, first), (b, second))]
        is_one_engine = a.deployments[first].engine == b.deployments[second].engine
        for each in _unlike(*facts):
            # Of two engines all of the command line differs, and says nothing.
            if is_one_engine or not each.what.startswith(_ARGV):
                where.setdefault(each, []).append(first)
    once: dict[tuple[str, ...], Difference] = {}
    for each in sorted(where, key=lambda each: KINDS.index(each.kind)):
        of_some = several(where[each]) if len(where[each]) < len(labels) else ""
        told = replace(each, where=of_some)
        once.setdefault(told.cells(), told)
    return tuple(once.values())


def hardware_differs(a: Run, b: Run) -> str | None:
    """Return what of the hardware is not the same, as a clause; None where all of it is."""
    if a is b:
        return None
    if not all("machine" in run.record.environment for run in (a, b)):
        return "the hardware of one of them is not recorded"
    found = [each for each in _unlike(_facts(a), _facts(b)) if each.kind == "hardware" and _matters(each)]
    return "; ".join(f"{each.what}: {' and '.join(each.cells()[1:])}" for each in found[:3]) or None


def _matters(difference: Difference) -> bool:
    """Return False for another device of the same kind, a little more or less memory, and swap."""
    if any(name in _SAME_KIND for name in difference.what.split(".")):
        return False
    if not difference.what.endswith("memory_bytes") or difference.a is None or difference.b is None:
        return True
    least, most = sorted(float(each) if each.isdecimal() else 0.0 for each in (difference.a, difference.b))
    return least < most * (1 - _SAME_MEMORY)


def _unlike(a: _Facts, b: _Facts) -> list[Difference]:
    return [Difference(*key, a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)]


def _facts(run: Run) -> _Facts:
    """Return the facts of a run: its settings and its environment."""
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
    """Return the facts of a deployment: as planned, then as its starts were made, each value once."""
    deployment, records = run.deployments[label], run.starts_of(label)
    planned = {
        "quantization": deployment.quantization,
        "engine": msgspec.to_builtins(deployment.terms),
        deployment.engine: msgspec.to_builtins(deployment.options),
    }
    found: _Facts = {("flags", "engine"): deployment.engine}
    found |= {("flags", key): str(value) for key, value in flat(planned) if value is not None}
    values: dict[tuple[Kind, str], list[str]] = {}
    for record in records:
        parts = {field: getattr(record, field) for field in ("resolved", "environment", "weights", "image")}
        for field, facts in {**parts, "server": {"version": record.version or None}}.items():
            kind: Kind = "versions" if field in ("image", "server") else "flags"
            for key, value in facts.items():
                if value is not None and not is_secret(key):
                    values.setdefault((kind, f"{field} {key}"), []).append(str(value))
    joined = {key: ", ".join(dict.fromkeys(each)) for key, each in values.items()}
    return {**found, **_arguments(records), **joined}


def _arguments(records: Sequence[StartRecord]) -> _Facts:
    """Return the server's flags with what follows each, but those that differ from start to start."""
    values: dict[str, list[str]] = {}
    started = [record for record in records if record.argv]
    for record in started:
        found, flag = {"program": ""}, "program"
        for word in record.argv:
            is_flag = word.startswith("-") and not word[1:].replace(".", "", 1).isdecimal()
            name, _, value = word.partition("=")
            flag = name if is_flag else flag
            found[flag] = f"{found.get(flag, '')} {value if is_flag else word}".strip()
        for flag, value in found.items():
            if flag.strip("-") not in _OWN_OF_START and record.name not in value:
                values.setdefault(flag, []).append(value)
    return {
        ("flags", f"{_ARGV}{flag}"): each[0] or "given"
        for flag, each in values.items()
        if len(each) == len(started) and len(set(each)) == 1
    }
