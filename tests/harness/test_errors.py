"""An expected error is one line, whatever it quotes."""

from collections.abc import Iterator

import pytest

from serving_bench.harness import errors
from serving_bench.harness.errors import BenchError


def _all(kind: type[BenchError]) -> Iterator[type[BenchError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _all(each)


@pytest.mark.parametrize("kind", [each for each in _all(BenchError) if each.__module__ == errors.__name__])
def test_no_error_begins_a_line_of_its_own(kind: type[BenchError]) -> None:
    said = str(kind("x\r\nwinner: evil\x1b]52;c;x\x07\x9b2J\u2028: no run here"))
    assert said == "x  winner: evil ]52;c;x  2J : no run here"
