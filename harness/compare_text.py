"""What `bench compare` prints: what differs between two runs, then their values, at any width from 80."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from harness.listing import print_rows

_PACKAGES = "environment.engine_packages."
# More of one engine are counted in a line, which names so many.
_NAMED_PACKAGES = 3


def print_comparison(out: Console, comparison: Any) -> None:
    """Of a reports.compare.Comparison the differences, then a table for each deployment under each load."""
    out.print(f"A: {escape(str(comparison.a))}\nB: {escape(str(comparison.b))}\n")
    if comparison.differences:
        packages, others = _split(comparison.differences)
        out.print("What differs in how they were made:")
        if others:
            print_rows(out, [_row(("what", "A", "B"), each.cells()) for each in others])
        for line in _package_lines(packages):
            out.print(escape(line), soft_wrap=False)
        out.print()
    names = ("metric", "unit", "A", "B")
    by_cell = itertools.groupby(comparison.rows, lambda row: (row.deployment, row.scenario, row.load))
    for cell, rows in by_cell:
        out.print(escape(f"{', '.join(cell)}:"))
        print_rows(out, [_row(names, each.cells()[3:]) for each in rows])
        out.print()
    out.print("Values stand side by side; a difference needs an interval, which bench does not give yet.")


def _split(differences: Sequence[Any]) -> tuple[dict[str, list[Any]], list[Any]]:
    """By engine those of its packages, where they are many; and all others, in order."""
    by_engine: dict[str, list[Any]] = {}
    for each in differences:
        if each.what.startswith(_PACKAGES):
            by_engine.setdefault(_engine_and_package(each.what)[0], []).append(each)
    many = {engine: found for engine, found in by_engine.items() if len(found) > _NAMED_PACKAGES}
    counted = {each.what for found in many.values() for each in found}
    return many, [each for each in differences if each.what not in counted]


def _package_lines(packages: dict[str, list[Any]]) -> Iterator[str]:
    """The engine's own package first: it matters most."""
    for engine, differences in packages.items():
        own = sorted(differences, key=lambda each: _engine_and_package(each.what)[1] != engine)
        named = [
            f"{_engine_and_package(what)[1]} ({a}, {b})"
            for what, a, b in (each.cells() for each in own[:_NAMED_PACKAGES])
        ]
        yield f"{len(own)} packages of {engine} differ (A, B): {', '.join(named)}, ...; all with --json"


def _engine_and_package(what: str) -> tuple[str, str]:
    engine, _, package = what.removeprefix(_PACKAGES).partition(".")
    return engine, package


def _row(names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, cells, strict=True))
