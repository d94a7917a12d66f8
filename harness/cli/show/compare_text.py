"""What `bench compare` and `bench gate` print: how two sides differ, then B over A, at any width from 80."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from harness.cli.show.tables import print_lines, print_rows
from reports.checks.examine import SIGN, mark_text
from reports.measures.metrics import metric_of
from reports.measures.written import NOTHING
from reports.two_runs.compare import ComparedCase, Comparison, Row, verdict_line, verdict_text
from reports.two_runs.differences import KINDS, Difference
from reports.two_runs.gate import Gate, GatedCase
from reports.two_runs.gate_limit import limit_text
from reports.two_runs.side_values import Mark
from reports.words.verdict_words import ratio_text

_PACKAGES = "engine_packages."
# More packages of one engine are counted in a line that names this many.
_NAMED_PACKAGES = 3


def print_comparison(out: Console, comparison: Comparison) -> None:
    """Print the differences, then each case: its verdicts, and its other values."""
    print_lines(out, [f"A: {comparison.a}", f"B: {comparison.b}", ""])
    _print_differences(out, comparison.differences, ("A", "B"))
    for case in comparison.cases:
        _print_case(out, comparison, case)
    _print_doubts(out, comparison, "Not compared")
    print_lines(out, [comparison.how, verdict_line(comparison)])


def _print_case(out: Console, comparison: Comparison, case: ComparedCase) -> None:
    whys = {row.verdict.why for row in case.rows if row.verdict}
    why = whys.pop() if len(whys) == 1 else None
    notes = [f"no verdicts: {why}", *case.notes] if why else case.notes
    print_lines(out, [f"{case.name}, {case.starts_text}:", *(f"  {note}" for note in notes)])
    rows = [_cells(row, comparison.margin_share, has_why=not why) for row in case.rows]
    print_rows(out, [row for row in rows if "verdict" in row])
    if others := [row for row in rows if "verdict" not in row]:
        print_lines(out, ["without verdicts:"])
        print_rows(out, others)
    out.print()


def _cells(row: Row, margin_share: float, *, has_why: bool) -> dict[str, str]:
    a, b = (_marked(side.text(row.metric, has_why=not row.verdict), side.marks) for side in (row.a, row.b))
    cells = {"metric": row.metric, "unit": row.shown_unit, "A": a, "B": b}
    if row.verdict:
        is_said = has_why or row.verdict.kind != "none"
        said = verdict_text(row.metric, row.verdict, margin_share) if is_said else NOTHING
        cells["B / A"] = ratio_text(row.metric, row.verdict) or NOTHING
        cells["verdict"] = _marked(said, row.marks)
    return cells


def print_gate(out: Console, gate: Gate) -> None:
    """Print the gate; the last line is the verdict."""
    print_lines(out, [f"BASE: {gate.base}", f"NEW: {gate.new}", ""])
    _print_differences(out, gate.differences, ("BASE", "NEW"))
    unit = metric_of(gate.metric).shown_unit
    limit = limit_text(gate.metric, gate.max_regression_share)
    print_lines(out, [f"{gate.metric} in {unit}; NEW may be worse by {limit}:"])
    print_rows(out, [_gated_cells(gate, case) for case in gate.cases])
    out.print()
    for case in gate.cases:
        # Where all are inconclusive for one reason, the last line says it.
        why = [case.why] if case.why and case.why not in gate.summary else []
        print_lines(out, (f"{case.name}: {line}" for line in (*why, *case.notes)))
    _print_doubts(out, gate, "Not gated")
    if not gate.is_interleaved:
        print_lines(out, ["The runs were not interleaved: whatever changed between them is in the ratios."])
    out.print(escape(gate.summary))  # whole, for whoever reads the last line


def _gated_cells(gate: Gate, case: GatedCase) -> dict[str, str]:
    base, new = (_marked(side.text(gate.metric), side.marks) for side in (case.base, case.new))
    return {
        "case": case.name,
        "BASE": base,
        "NEW": new,
        "NEW worse by": case.regression_text(gate.metric) or NOTHING,
        "": _marked(case.outcome, case.marks),
    }


# --- of both ----------------------------------------------------------------------------------------------


def _marked(said: str, marks: Sequence[Mark]) -> str:
    """Return a value with its mark behind it."""
    return f"{said} {mark_text(marks)}".rstrip()


def _print_differences(out: Console, differences: Sequence[Difference], names: tuple[str, str]) -> None:
    """Print a table for each kind of difference, and a line for an engine of which many packages differ."""
    if not differences:
        return
    packages = Counter(each.what.split(".")[1] for each in differences if each.what.startswith(_PACKAGES))
    many = tuple(f"{_PACKAGES}{engine}." for engine, count in packages.items() if count > _NAMED_PACKAGES)
    print_lines(out, ["What differs in how they were made:"])
    for kind in KINDS:
        found = [each for each in differences if each.kind == kind and not each.what.startswith(many)]
        if found:
            print_rows(out, [dict(zip((kind, *names), each.cells(), strict=True)) for each in found])
    for prefix in many:
        engine = prefix.split(".")[1]
        found = [each for each in differences if each.what.startswith(prefix)]
        found.sort(key=lambda each: each.what != prefix + engine)  # its own matters most
        first = (each.cells() for each in found[:_NAMED_PACKAGES])
        named = ", ".join(f"{what.removeprefix(prefix)} ({a}, {b})" for what, a, b in first)
        sides = ", ".join(names)
        print_lines(
            out, [f"{len(found)} packages of {engine} differ ({sides}): {named}, ...; all with --json"]
        )
    out.print()


def _print_doubts(out: Console, compared: Comparison | Gate, title: str) -> None:
    """Print what has no partner on the other side, and what the marks stand for with what would help."""
    print_lines(out, (f"{title}: {each.what}: {each.why}" for each in compared.left_out))
    if compared.distrust:
        print_lines(out, [f"Reasons to distrust ({SIGN} 2 behind a number: two of them):"])
        print_lines(out, (f"  {each.text}" for each in compared.distrust))
