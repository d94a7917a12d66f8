"""The energy of the CPU's packages, from Linux's power capping interface (RAPL of Intel and AMD).

Reads small files of sysfs. Most systems let root alone read the counters: None then, with the reason.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/class/powercap")


class PackageEnergy:
    """The packages' counters added up. `reason` says why there is no value; it is None while there is one.

    A counter begins again after max_energy_range_uj (minutes at full power): read it more often than that.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self.reason: str | None = None
        # A package is a zone of the first level (intel-rapl:0, on AMD as well). Its parts (intel-rapl:0:0)
        # are in it, `psys` is the whole machine, and intel-rapl-mmio has the same package once more.
        zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._counters: list[_Counter] = []
        try:
            self._counters = [_Counter(zone) for zone in zones if _text(zone / "name").startswith("package")]
        except (OSError, ValueError) as error:
            self.reason = _reason(error)
        if not self._counters and self.reason is None:
            self.reason = f"this system shows no energy counter of the CPU ({root} has no package)"

    def read_j(self) -> float | None:
        """Joules so far, from an arbitrary beginning; never decreases."""
        if self.reason is not None:
            return None
        try:
            return sum(counter.read_uj() for counter in self._counters) / 1e6
        except (OSError, ValueError) as error:
            self.reason = _reason(error)
            return None


class _Counter:
    """One package's counter, continued over its wrap."""

    def __init__(self, zone: Path) -> None:
        self._path = zone / "energy_uj"
        self._range_uj = int(_text(zone / "max_energy_range_uj"))
        self._wrapped_uj = 0
        self._last_uj = int(_text(self._path))

    def read_uj(self) -> int:
        now_uj = int(_text(self._path))
        if now_uj < self._last_uj:
            self._wrapped_uj += self._range_uj
        self._last_uj = now_uj
        return self._wrapped_uj + now_uj


def _text(path: Path) -> str:
    return path.read_text().strip()


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{error.filename} may be read by root only"
    return f"the energy counter of the CPU cannot be read: {error}"
