"""What `bench compare` and `bench gate` print: how two sides differ, then B over A, at any width from 80."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.cli.show.tables import print_rows
from reports.comparing.verdict_words import ratio_text
from reports.marks import SIGN, mark_text
from reports.metrics import metric_of
from reports.two_runs.compare import verdict_line, verdict_text
from reports.two_runs.differences import KINDS
from reports.two_runs.gate_limit import limit_text
from reports.written import NOTHING

if TYPE_CHECKING:
    from reports.two_runs.cases import LeftOut
    from reports.two_runs.compare import ComparedCase, Comparison, Row
    from reports.two_runs.differences import Difference
    from reports.two_runs.gate import Gate, GatedCase
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


# --- bench gate -------------------------------------------------------------------------------------------


def print_gate(out: Console, gate: Gate) -> None:
    """Print the gate; the last line is the verdict."""
    out.print(escape(f"BASE: {gate.base}\nNEW: {gate.new}\n"), soft_wrap=False)
    print_differences(out, gate.differences, ("BASE", "NEW"))
    unit = metric_of(gate.metric).shown_unit
    limit = limit_text(gate.metric, gate.max_regression_share)
    out.print(escape(f"{gate.metric} in {unit}; NEW may be worse by {limit}:"), soft_wrap=False)
    print_rows(out, [_gated_cells(gate, case) for case in gate.cases])
    out.print()
    for case in gate.cases:
        # Where all are inconclusive for one reason, the last line says it.
        why = [case.why] if case.why and case.why not in gate.summary else []
        for line in (*why, *case.notes):
            out.print(escape(f"{case.name}: {line}"), soft_wrap=False)
    print_left_out(out, gate.left_out, "Not gated")
    print_distrust(out, gate.distrust)
    if not gate.is_interleaved:
        out.print("The runs were not interleaved: whatever changed between them is in the ratios.")
    out.print(escape(gate.summary))  # whole, for whoever reads the last line


def _gated_cells(gate: Gate, case: GatedCase) -> dict[str, str]:
    base, new = (marked(side.text(gate.metric), side.marks) for side in (case.base, case.new))
    return {
        "case": case.name,
        "BASE": base,
        "NEW": new,
        "NEW worse by": case.regression_text(gate.metric) or NOTHING,
        "": marked(case.outcome, case.marks),
    }


# --- of both ----------------------------------------------------------------------------------------------


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
            by_engine.setdefault(each.what.split(".")[1], []).append(each)
    many = {engine: found for engine, found in by_engine.items() if len(found) > _NAMED_PACKAGES}
    counted = list(itertools.chain.from_iterable(many.values()))
    return many, [each for each in differences if each not in counted]


def _package_lines(packages: dict[str, list[Difference]], names: tuple[str, str]) -> Iterator[str]:
    """Say which packages of an engine differ; its own comes first, as it matters most."""
    for engine, differences in packages.items():
        prefix = f"{_PACKAGES}{engine}."
        own = sorted(differences, key=lambda each: each.what != prefix + engine)
        named = [
            f"{what.removeprefix(prefix)} ({a}, {b})"
            for what, a, b in (each.cells() for each in own[:_NAMED_PACKAGES])
        ]
        sides = ", ".join(names)
        yield f"{len(own)} packages of {engine} differ ({sides}): {', '.join(named)}, ...; all with --json"
