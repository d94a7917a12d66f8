"""What pip says while it installs a lock, in few lines: how far it is, what takes long, why it failed.

Pure but for the clock that is passed in. Knows no engine.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Sequence

# The locks are resolved for this one; another works where every package has a wheel for it.
LOCK_PYTHON = "3.11"
# Lines on small packages come no closer than this; a file from here on is always said.
PACE_S = 3.0
LARGE_MB = 50.0
# Before a line of pip's that a mending script (engines/inside) passes on.
INDENT = "  "

_PACKAGE = re.compile(
    r"^(?:Collecting|Processing|Requirement already satisfied:|Ignoring) ([^\s:]\S*?):?(?:\s|$)"
)
_SIZE = re.compile(r"^\s+(?:Downloading|Using cached) \S+ \(([\d.]+) (kB|MB|GB)\)")
_BUILD = re.compile(r"^\s*Building wheel for (\S+) .*: started")
_OTHER_PYTHON = re.compile(r"(\S+) Requires-Python ([^;\s]+(?:, ?[^;\s]+)*)")
_REFUSED = re.compile(r"Package '(\S+)' requires a different Python: \S+ not in '([^']+)'")
_NOT_FOUND = re.compile(r"No matching distribution found for (\S+)==(\S+)")


def packages_of(lock: str) -> int:
    """How many packages a lock (its text) names."""
    return sum(1 for line in lock.splitlines() if line[:1].isalnum())


class PipProgress:
    """Turns pip's lines into a few for people. `step` is what it does now, for who waits."""

    def __init__(self, packages: int, clock_s: Callable[[], float]) -> None:
        self.step = "starting pip"
        self._packages = packages
        self._clock_s = clock_s
        self._seen = 0
        self._said_at_s = float("-inf")

    def read(self, line: str) -> str | None:
        """What to say about a line of pip's, if anything."""
        if match := _PACKAGE.match(line):
            self._seen += 1
            self.step = f"package {self._seen} of {self._packages}: {_short(match[1])}"
            return self._say() if self._is_due() else None
        if match := _SIZE.match(line):
            size_mb = float(match[1]) * {"kB": 0.001, "MB": 1.0, "GB": 1000.0}[match[2]]
            self.step += f" ({match[1]} {match[2]})" if size_mb >= LARGE_MB else ""
            return self._say() if size_mb >= LARGE_MB else None
        if match := _BUILD.match(line):
            self.step = f"building {match[1]}"
            return self._say()
        if line.startswith("Installing collected packages:"):
            count = line.count(",") + 1
            self.step = f"unpacking {count} package{'s' if count > 1 else ''}"
            return self._say()
        return line if line.startswith(("ERROR", "WARNING", "error:")) else None

    def _is_due(self) -> bool:
        return self._clock_s() - self._said_at_s >= PACE_S or self._seen == self._packages

    def _say(self) -> str:
        self._said_at_s = self._clock_s()
        return self.step


class MendProgress:
    """Passes on what a mending script says. Lines that it indents are pip's, for the log; `step` follows."""

    def __init__(self, script: str) -> None:
        self.step = script
        self._script = script

    def read(self, line: str) -> str | None:
        if not line.startswith(INDENT):
            return line.rstrip()
        if match := _PACKAGE.match(line.removeprefix(INDENT)):
            self.step = f"{self._script}: {_short(match[1])}"
        return None


def _short(requirement: str) -> str:
    """A package and its version, from a pin or from a file's path."""
    name = requirement.rpartition("/")[2]
    return "-".join(name.split("-")[:2]) if name.endswith(".whl") else name.replace("==", " ")


def why_it_failed(lines: Sequence[str], needs: str | None, python: str | None = None) -> list[str]:
    """Sentences on what would work, from pip's last lines; `needs` is one. `python`: this one's version, such
    as 3.11."""
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    text = "\n".join(lines)
    said = []
    if match := _REFUSED.search(text):
        said.append(f"wrong Python: {match[1]} needs Python {match[2]}, this is {python}")
    elif match := _NOT_FOUND.search(text):
        name, version = match.groups()
        asked = dict(_OTHER_PYTHON.findall(text)).get(version)
        machine = f"{platform.system()} {platform.machine()}"
        said.append(
            f"wrong Python: {name} {version} needs Python {asked}, this is {python}"
            if asked
            else f"pip finds no {name} {version} for Python {python} on {machine}"
        )
    if needs:
        said.append(needs)
    if python != LOCK_PYTHON:
        said.append(
            f"The lock was made for Python {LOCK_PYTHON}, bench runs on {python}: "
            f"install bench with Python {LOCK_PYTHON}."
        )
    return said
