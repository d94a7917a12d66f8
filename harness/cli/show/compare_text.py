"""What `bench compare` prints: what differs between the two sides, then B over A, at any width from 80."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.cli.show.tables import print_rows
from reports.comparing.verdict_words import ratio_text
from reports.marks import SIGN, mark_text
from reports.two_runs.compare import verdict_line, verdict_text
from reports.two_runs.differences import KINDS
from reports.written import NOTHING

if TYPE_CHECKING:
    from reports.two_runs.cases import LeftOut
    from reports.two_runs.compare import ComparedCase, Comparison, Row
    from reports.two_runs.differences import Difference
    from reports.two_runs.side_values import Mark, Reason

_PACKAGES = "engine_packages."
# More packages of one engine are counted in a line that names this many.
_NAMED_PACKAGES = 3


def print_comparison(out: Console, comparison: Comparison) -> None:
    """Print the differences, then each case: its verdicts, and its other values."""
    out.print(escape(f"A: {comparison.a}\nB: {comparison.b}\n"), soft_wrap=False)
    print_differences(out, comparison.differences, ("A", "B"))
    for case in comparison.cases:
        _print_case(out, comparison, case)
    print_left_out(out, comparison.left_out, "Not compared")
    print_distrust(out, comparison.distrust)
    out.print(escape(f"{comparison.how}\n{verdict_line(comparison)}"), soft_wrap=False)


def _print_case(out: Console, comparison: Comparison, case: ComparedCase) -> None:
    out.print(escape(f"{case.name}, {case.starts_text}:"), soft_wrap=False)
    whys = dict.fromkeys(row.verdict.why for row in case.rows if row.verdict)
    why = next(iter(whys)) if len(whys) == 1 else None
    for line in (*([f"no verdicts: {why}"] if why else []), *case.notes):
        out.print(escape(f"  {line}"), soft_wrap=False)
    asked = [row for row in case.rows if row.verdict]
    print_rows(out, [_cells(row, comparison.margin_share, has_why=not why) for row in asked])
    if others := [row for row in case.rows if row.verdict is None]:
        out.print("without verdicts:")
        print_rows(out, [_values(row) for row in others])
    out.print()


def marked(said: str, marks: Sequence[Mark]) -> str:
    """Return a value with its mark behind it."""
    return f"{said} {mark_text(marks)}".rstrip()


def _values(row: Row) -> dict[str, str]:
    a, b = (marked(side.text(row.metric, has_why=row.verdict is None), side.marks) for side in (row.a, row.b))
    return {"metric": row.metric, "unit": row.shown_unit, "A": a, "B": b}


def _cells(row: Row, margin_share: float, *, has_why: bool) -> dict[str, str]:
    if row.verdict is None:
        return _values(row)
    is_said = has_why or row.verdict.kind != "none"
    said = verdict_text(row.metric, row.verdict, margin_share) if is_said else NOTHING
    ratio = ratio_text(row.metric, row.verdict) or NOTHING
    return {**_values(row), "B / A": ratio, "verdict": marked(said, row.marks)}


# --- shared with `bench gate` ----------------------------------------------------------------------


def print_differences(out: Console, differences: Sequence[Difference], names: tuple[str, str]) -> None:
    """Print a table for each kind of difference; nothing if nothing differs."""
    if not differences:
        return
    packages, others = _split(differences)
    out.print("What differs in how they were made:")
    for kind in KINDS:
        found = [each for each in others if each.kind == kind]
        if found:
            rows = [dict(zip((kind, *names), each.cells(), strict=True)) for each in found]
            print_rows(out, rows)
    for line in _package_lines(packages, names):
        out.print(escape(line), soft_wrap=False)
    out.print()


def print_left_out(out: Console, left_out: Sequence[LeftOut], title: str) -> None:
    """Print what has no partner on the other side, a line each."""
    for each in left_out:
        out.print(escape(f"{title}: {each.what}: {each.why}"), soft_wrap=False)


def print_distrust(out: Console, distrust: Sequence[Reason]) -> None:
    """Print what the marks stand for: what was found, on which sides, and what would help."""
    if not distrust:
        return
    out.print(f"Reasons to distrust ({SIGN} 2 behind a number: two of them):")
    for each in distrust:
        out.print(escape(f"  {each.text}"), soft_wrap=False)


def _split(differences: Sequence[Difference]) -> tuple[dict[str, list[Difference]], list[Difference]]:
    """Return the packages of each engine, where they are many; and all other differences, in order."""
    by_engine: dict[str, list[Difference]] = {}
    for each in differences:
        if each.what.startswith(_PACKAGES):
            by_engine.setdefault(_engine_and_package(each.what)[0], []).append(each)
    many = {engine: found for engine, found in by_engine.items() if len(found) > _NAMED_PACKAGES}
    counted = {each.what for found in many.values() for each in found}
    return many, [each for each in differences if each.what not in counted]


def _package_lines(packages: dict[str, list[Difference]], names: tuple[str, str]) -> Iterator[str]:
    """Say which packages of an engine differ; its own comes first, as it matters most."""
    for engine, differences in packages.items():
        own = sorted(differences, key=lambda each: _engine_and_package(each.what)[1] != engine)
        named = [
            f"{_engine_and_package(what)[1]} ({a}, {b})"
            for what, a, b in (each.cells() for each in own[:_NAMED_PACKAGES])
        ]
        sides = ", ".join(names)
        yield f"{len(own)} packages of {engine} differ ({sides}): {', '.join(named)}, ...; all with --json"


def _engine_and_package(what: str) -> tuple[str, str]:
    engine, _, package = what.removeprefix(_PACKAGES).partition(".")
    return engine, package
