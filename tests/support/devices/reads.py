"""A reader whose samples a test makes."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Reads(Generic[Row]):
    """Gives the rows of `read()`, and at a mark those of `at_mark()`."""

    def __init__(
        self, read: Callable[[], Sequence[Row]], at_mark: Callable[[], Sequence[Row]] | None = None
    ) -> None:
        self.notes: dict[str, str] = {}
        self._read, self._at_mark = read, at_mark or read

    def read(self, *, is_mark: bool = False) -> Sequence[Row]:
        return (self._at_mark if is_mark else self._read)()
