"""What `bench compare` and `bench gate` print: how two sides differ, then B over A, at any width from 80."""

from collections import Counter
from collections.abc import Sequence

from harness.cli.terminal import out, print_lines, print_rows
from reports.checks.examine import SIGN
from reports.measures.metrics import metric_of
from reports.measures.written import NOTHING
from reports.two_runs.compare import ComparedCase, Comparison, Row, verdict_line, verdict_text, with_marks
from reports.two_runs.differences import KINDS
from reports.two_runs.gate import NAMES, Gate
from reports.words.verdict_words import ratio_text

_PACKAGES = "engine_packages."
# More packages of one engine are counted.
_NAMED_PACKAGES = 3


def print_comparison(comparison: Comparison) -> None:
    """Print the differences, then each case: its verdicts, and its other values."""
    _print_differences(comparison, ("A", "B"))
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
    sides = (row.a, row.b)
    a, b = (with_marks(side.text(row.metric, has_why=not row.verdict), side.marks) for side in sides)
    cells = {"metric": row.metric, "unit": row.shown_unit, "A": a, "B": b}
    if row.verdict:
        is_said = has_why or row.verdict.kind != "none"
        said = verdict_text(row.metric, row.verdict, margin_share) if is_said else NOTHING
        cells["B / A"] = ratio_text(row.metric, row.verdict) or NOTHING
        cells["verdict"] = with_marks(said, row.marks)
    return cells


def print_gate(gate: Gate) -> None:
    """Print the gate; the last line is the verdict."""
    _print_differences(gate.compared, NAMES)
    unit = metric_of(gate.terms.metric).shown_unit
    print_lines([f"{gate.terms.metric} in {unit}; NEW may be worse by {gate.limit_text}:"], fold=True)
    heads = ("case", *NAMES, "NEW worse by", "")
    rows = [(each.case.name, *each.cells, each.outcome) for each in gate.cases]
    print_rows([dict(zip(heads, row, strict=True)) for row in rows])
    out.print()
    for each in gate.cases:
        # Where all are inconclusive for one reason, the last line says it.
        why = [each.why] if each.why and each.why not in gate.summary else []
        print_lines((f"{each.case.name}: {line}" for line in (*why, *each.case.notes)), fold=True)
    _print_doubts(gate.compared, "Not gated")
    print_lines([gate.compared.how], fold=True)
    print_lines([gate.summary])  # for whoever reads the last line


def _print_differences(comparison: Comparison, names: Sequence[str]) -> None:
    """Print both sides, then a table for each kind of difference. An engine of which many packages differ
    shows its own alone."""
    sides = zip(names, (comparison.a, comparison.b), strict=True)
    print_lines([*(f"{name}: {side}" for name, side in sides), ""], fold=True)
    if not comparison.differences:
        return
    print_lines(["What differs in how they were made:"], fold=True)
    whats = [each.what for each in comparison.differences]
    packages = Counter(what.split(".")[1] for what in whats if what.startswith(_PACKAGES))
    many = {engine: count for engine, count in packages.items() if count > _NAMED_PACKAGES}
    prefixes = tuple(f"{_PACKAGES}{engine}." for engine in many)
    own = {f"{_PACKAGES}{engine}.{engine}" for engine in many}
    shown = [d for d in comparison.differences if d.what in own or not d.what.startswith(prefixes)]
    for kind in KINDS:
        rows = [dict(zip((kind, *names), each.cells(), strict=True)) for each in shown if each.kind == kind]
        if rows:
            print_rows(rows)
    counted = (f"{count} packages of {engine} differ; all with --json" for engine, count in many.items())
    print_lines(counted, fold=True)
    out.print()


def _print_doubts(comparison: Comparison, title: str) -> None:
    print_lines((f"{title}: {each.what}: {each.why}" for each in comparison.left_out), fold=True)
    if comparison.distrust:
        print_lines([f"Reasons to distrust ({SIGN} 2 behind a number: two of them):"], fold=True)
        print_lines((f"  {each.text}" for each in comparison.distrust), fold=True)
