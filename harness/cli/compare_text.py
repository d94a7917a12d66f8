"""What `bench compare` and `bench gate` print: how two sides differ, then B over A, at any width from 80."""

from collections import Counter
from collections.abc import Sequence

from harness.cli.terminal import out, print_lines, print_rows
from reports.checks.examine import SIGN, mark_text
from reports.measures.metrics import metric_of
from reports.measures.written import NOTHING
from reports.two_runs.compare import ComparedCase, Comparison, Row, verdict_line, verdict_text
from reports.two_runs.differences import KINDS, Difference
from reports.two_runs.gate import Gate, GatedCase, limit_text
from reports.two_runs.side_values import Mark
from reports.words.verdict_words import ratio_text

_PACKAGES = "engine_packages."
# More packages of one engine are counted.
_NAMED_PACKAGES = 3


def print_comparison(comparison: Comparison) -> None:
    """Print the differences, then each case: its verdicts, and its other values."""
    print_lines([f"A: {comparison.a}", f"B: {comparison.b}", ""], fold=True)
    _print_differences(comparison.differences, ("A", "B"))
    for case in comparison.cases:
        _print_case(comparison, case)
    _print_doubts(comparison, "Not compared")
    print_lines([comparison.how, verdict_line(comparison)], fold=True)


def _print_case(comparison: Comparison, case: ComparedCase) -> None:
    whys = {row.verdict.why for row in case.rows if row.verdict}
    why = whys.pop() if len(whys) == 1 else None
    notes = [f"no verdicts: {why}", *case.notes] if why else case.notes
    print_lines([f"{case.name}, {case.starts_text}:", *(f"  {note}" for note in notes)], fold=True)
    rows = [_cells(row, comparison.margin_share, has_why=not why) for row in case.rows]
    print_rows([row for row in rows if "verdict" in row])
    if others := [row for row in rows if "verdict" not in row]:
        print_lines(["without verdicts:"], fold=True)
        print_rows(others)
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


def print_gate(gate: Gate) -> None:
    """Print the gate; the last line is the verdict."""
    print_lines([f"BASE: {gate.base}", f"NEW: {gate.new}", ""], fold=True)
    _print_differences(gate.differences, ("BASE", "NEW"))
    unit = metric_of(gate.metric).shown_unit
    limit = limit_text(gate.metric, gate.max_regression_share)
    print_lines([f"{gate.metric} in {unit}; NEW may be worse by {limit}:"], fold=True)
    print_rows([_gated_cells(gate, case) for case in gate.cases])
    out.print()
    for case in gate.cases:
        # Where all are inconclusive for one reason, the last line says it.
        why = [case.why] if case.why and case.why not in gate.summary else []
        print_lines((f"{case.name}: {line}" for line in (*why, *case.notes)), fold=True)
    _print_doubts(gate, "Not gated")
    if not gate.is_interleaved:
        print_lines(
            ["The runs were not interleaved: whatever changed between them is in the ratios."], fold=True
        )
    print_lines([gate.summary])  # for whoever reads the last line


def _gated_cells(gate: Gate, case: GatedCase) -> dict[str, str]:
    base, new = (_marked(side.text(gate.metric), side.marks) for side in (case.base, case.new))
    return {
        "case": case.name,
        "BASE": base,
        "NEW": new,
        "NEW worse by": case.regression_text(gate.metric) or NOTHING,
        "": _marked(case.outcome, case.marks),
    }


def _marked(said: str, marks: Sequence[Mark]) -> str:
    return f"{said} {mark_text(marks)}".rstrip()


def _print_differences(differences: Sequence[Difference], names: tuple[str, str]) -> None:
    """Print a table for each kind. An engine of which many packages differ shows its own alone."""
    if not differences:
        return
    print_lines(["What differs in how they were made:"], fold=True)
    packages = Counter(each.what.split(".")[1] for each in differences if each.what.startswith(_PACKAGES))
    many = {engine: count for engine, count in packages.items() if count > _NAMED_PACKAGES}
    prefixes = tuple(f"{_PACKAGES}{engine}." for engine in many)
    own = {f"{_PACKAGES}{engine}.{engine}" for engine in many}
    shown = [each for each in differences if each.what in own or not each.what.startswith(prefixes)]
    for kind in KINDS:
        rows = [dict(zip((kind, *names), each.cells(), strict=True)) for each in shown if each.kind == kind]
        if rows:
            print_rows(rows)
    print_lines(
        (f"{count} packages of {engine} differ; all with --json" for engine, count in many.items()), fold=True
    )
    out.print()


def _print_doubts(compared: Comparison | Gate, title: str) -> None:
    print_lines((f"{title}: {each.what}: {each.why}" for each in compared.left_out), fold=True)
    if compared.distrust:
        print_lines([f"Reasons to distrust ({SIGN} 2 behind a number: two of them):"], fold=True)
        print_lines((f"  {each.text}" for each in compared.distrust), fold=True)
