"""What differs between two sides in how they were made: hardware, versions, settings, flags.

Facts as they were recorded. What changes with every start (ports, directories, instants) is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
# The kernel reserves another part of the same memory after an update.
_SAME_MEMORY = 0.02
_SAME_KIND = ("swap_bytes", "uuid", "index", "notes")
_ARGV = "argv "
# Where the server listens, and what tells its container from others: each start has its own.
_OWN_OF_START = ("port", "name", "label")


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

    def cells(self) -> tuple[str, ...]:
        """Return what, a and b as a person reads them."""
        what = f"{self.what} ({self.where})" if self.where else self.what
        return what, *(NOTHING if side is None else side for side in (self.a, self.b))


def differences(a: Run, b: Run, pairs: Sequence[tuple[str, str]]) -> tuple[Difference, ...]:
    """Return what differs between two runs (which may be one) and between their compared deployments.

    What was set and is said again by the server's flags stands once, as a setting.
    """
    return each_once([*_of_runs(a, b), *_of_deployments(a, b, pairs)])


def each_once(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return differences in the order of their kinds; of two that say the same the first."""
    ordered = sorted(found, key=lambda each: KINDS.index(each.kind))
    once = {each.cells(): each for each in reversed(ordered)}
    return tuple(each for each in ordered if once[each.cells()] is each)


def hardware_differs(a: Run, b: Run) -> str | None:
    """Return what of the hardware is not the same, as a clause; None where all of it is."""
    if a is b:
        return None
    if not all("machine" in run.record.environment for run in (a, b)):
        return "the hardware of one of them is not recorded"
    found = [each for each in _of_runs(a, b) if each.kind == "hardware" and _matters(each)]
    if not found:
        return None
    return "; ".join(f"{each.what}: {' and '.join(each.cells()[1:])}" for each in found[:3])


def _matters(difference: Difference) -> bool:
    """Return False for another device of the same kind, a little more or less memory, and swap."""
    if any(name in _SAME_KIND for name in difference.what.split(".")):
        return False
    if not difference.what.endswith("memory_bytes") or difference.a is None or difference.b is None:
        return True
    sizes = sorted(float(each) if each.isdecimal() else 0.0 for each in (difference.a, difference.b))
    return sizes[0] < sizes[1] * (1 - _SAME_MEMORY)


# --- of the runs -----------------------------------------------------------------------------------

_Facts = dict[tuple[Kind, str], str]
_Told = tuple[Kind, str, str | None, str | None]


def _unlike(a: _Facts, b: _Facts) -> Iterator[_Told]:
    """Yield kind, name and both values of each fact that is not the same."""
    for kind, what in dict.fromkeys([*a, *b]):
        first, second = a.get((kind, what)), b.get((kind, what))
        if first != second:
            yield kind, what, first, second


def _of_runs(a: Run, b: Run) -> Iterator[Difference]:
    return (Difference(*each) for each in _unlike(_facts(a), _facts(b)))


def _facts(run: Run) -> _Facts:
    found: _Facts = {("settings", key): ",".join(values) for key, values in run.record.settings.items()}
    for key, value in flat(run.record.environment):
        if not key.startswith(_PASSING):
            found[_kind(key), key] = str(value)
    found["settings", "status"] = run.record.status
    return found


def _kind(key: str) -> Kind:
    topic, _, name = key.partition(".")
    if topic == "devices":
        return "versions" if name.rpartition(".")[2] in _SOFTWARE_OF_DEVICE else "hardware"
    return "hardware" if topic == "machine" and name in _HARDWARE else "versions"


# --- of the deployments ----------------------------------------------------------------------------


def _of_deployments(a: Run, b: Run, pairs: Sequence[tuple[str, str]]) -> Iterator[Difference]:
    where: dict[_Told, list[str]] = {}
    for first, second in pairs:
        is_one_engine = a.deployments[first].engine == b.deployments[second].engine
        for each in _unlike(_launch_facts(a, first), _launch_facts(b, second)):
            # Of two engines all of the command line differs, and says nothing.
            if is_one_engine or not each[1].startswith(_ARGV):
                where.setdefault(each, []).append(first)
    for told, labels in where.items():
        yield Difference(*told, "" if len(labels) == len(pairs) else several(labels))


def _launch_facts(run: Run, label: str) -> _Facts:
    """Return facts of a deployment: as planned, then as its starts were made, each value of them once."""
    deployment = run.deployments[label]
    records = run.starts_of(label)
    parts = {
        "engine": msgspec.to_builtins(deployment.terms),
        deployment.engine: msgspec.to_builtins(deployment.options),
    }
    planned = {key: str(value) for key, value in flat(parts) if value is not None}
    flags = {"engine": deployment.engine, "quantization": deployment.quantization}
    found: _Facts = {
        ("flags", key): value for key, value in {**flags, **planned, **_argv_facts(records)}.items()
    }
    for field in ("resolved", "environment", "weights", "image"):
        kind: Kind = "versions" if field == "image" else "flags"
        facts = [pair for record in records for pair in getattr(record, field).items()]
        for key in dict.fromkeys(key for key, value in facts if value is not None and not is_secret(key)):
            values = [str(value) for name, value in facts if name == key and value is not None]
            found[kind, f"{field} {key}"] = _once(values)
    if versions := [record.version for record in records if record.version]:
        found["versions", "server version"] = _once(versions)
    return found


def _once(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _argv_facts(records: Sequence[StartRecord]) -> dict[str, str]:
    """Return the server's arguments but those that differ from one start to the next."""
    each = [_arguments(record) for record in records if record.argv]
    names = dict.fromkeys(name for arguments in each for name in arguments)
    values = {name: {arguments.get(name) for arguments in each} for name in names}
    return {f"{_ARGV}{name}": found.pop() or "given" for name, found in values.items() if len(found) == 1}


def _arguments(record: StartRecord) -> Mapping[str, str]:
    """Return flags with their values (empty: none), and words without a flag by their place."""
    found: dict[str, str] = {}
    words = list(record.argv)
    flag = None
    for place, word in enumerate(words):
        if word.startswith("-") and not _is_number(word):
            flag, equals, value = word.partition("=")
            found[flag] = f"{found[flag]} {value}".strip() if flag in found else value
            flag = None if equals else flag
        elif flag is not None:
            found[flag] = f"{found[flag]} {word}".strip()
            flag = None
        else:
            found["program" if not place else f"word {place}"] = word
    return {
        name: value
        for name, value in found.items()
        if name.strip("-") not in _OWN_OF_START and record.name not in value
    }


def _is_number(word: str) -> bool:
    return word[1:].replace(".", "", 1).isdecimal()
