"""Tables of what bench knows by name: its own rows, then those that installed packages add by entry points.

A package is imported when a table is first used. A broken entry point is one line of the log, which names the
package, and stops nothing else.
"""

import logging
import traceback
from collections.abc import Callable, ItemsView, Iterator, Mapping, MutableMapping, ValuesView
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import RLock
from typing import Generic, Protocol, TypeVar

from serving_bench.harness.contracts import inert
from serving_bench.harness.errors import BenchError, UserError

_log = logging.getLogger(__name__)


class Named(Protocol):
    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


class Table(MutableMapping[str, Row], Generic[Row]):
    """The rows of one kind by name: `rows`, then those of the entry points `serving_bench.<kind>`.

    `check` raises an error for a row of another package that would not work. `elsewhere` returns the row, and
    its origin, of a name that no list has; None if there is none. `origins`: the distribution and version, or
    the file and its SHA-256, of each row that is not bench's own.
    """

    def __init__(
        self,
        kind: str,
        rows: Mapping[str, Row],
        check: Callable[[Row], object],
        elsewhere: Callable[[str], tuple[Row, str] | None] = lambda name: None,
    ) -> None:
        self.origins: dict[str, str] = {}
        self._group, self._own = f"serving_bench.{kind}", rows
        self._check, self._elsewhere = check, elsewhere
        self._known: dict[str, Row] | None = None
        self._given = set[str]()  # names that only `elsewhere` knows
        self._lock = RLock()

    @property
    def _rows(self) -> dict[str, Row]:
        with self._lock:
            if self._known is None:
                self._known = {**self._own}  # a module may look one up while it is imported here
                points = ((_origin(each), each) for each in entry_points(group=self._group))
                for origin, point in sorted(points, key=lambda pair: (pair[0], pair[1].name)):
                    self._add(self._known, origin, point)
            return self._known

    def _add(self, rows: dict[str, Row], origin: str, point: EntryPoint) -> None:
        try:
            row, kind = point.load(), type(next(iter(self._own.values())))
            if not isinstance(row, kind):
                raise UserError(f"{point.value} is no {kind.__name__}")
            if row.name != point.name:
                raise UserError(f"its name is {row.name}")
            if row.name in rows:
                raise UserError(f"{self.origins.get(row.name, 'bench')} has that name already")
            self._check(row)
        except (Exception, SystemExit) as error:
            message = f"{origin}: {self._group} {point.name} is left out: {reason(error)}"
            _log.warning("%s", inert(message))
        else:
            rows[row.name], self.origins[row.name] = row, origin

    def __getitem__(self, name: str) -> Row:
        rows = self._rows
        is_listed = name in rows and name not in self._given
        if not is_listed and isinstance(name, str) and (row := self._elsewhere(name)):
            rows[name], self.origins[name] = row  # again each time: a file may have changed since
            self._given.add(name)
        return rows[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def values(self) -> ValuesView[Row]:
        """Return the rows as they are known, without reading a file again."""
        return self._rows.values()

    def items(self) -> ItemsView[str, Row]:
        return self._rows.items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package"


def reason(error: BaseException) -> str:
    """Return what somebody else's code raised, on one line, with the place where it did."""
    if isinstance(error, BenchError | SyntaxError):
        return str(error)
    *_, last = traceback.extract_tb(error.__traceback__)
    return inert(f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})")
