"""Print `bench compare` and `bench gate`: how two sides differ, then B against A, at any width from 80."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from serving_bench.harness.cli.terminal import out, print_lines, print_rows
from serving_bench.reports.checks.examine import SIGN, mark_text
from serving_bench.reports.two_runs.compare import Comparison
from serving_bench.reports.two_runs.gate import NAMES, Gate
from serving_bench.reports.two_runs.matching import KINDS, Difference

_PACKAGES = "engine_packages."
# If more packages of one engine differ, they are only counted.
_NAMED_PACKAGES = 3


def print_comparison(comparison: Comparison) -> None:
    _print_differences(comparison, ("A", "B"))
    for case in comparison.cases:
        notes = [f"no verdicts: {case.why_none}", *case.notes] if case.why_none else case.notes
        print_lines([f"{case.name}, {case.starts_text}:", *(f"  {note}" for note in notes)], fold=True)
        deciding, others = case.by_verdict
        print_rows([comparison.cells(case, row) for row in deciding])
        if others:
            print_lines(["without verdicts:"], fold=True)
            print_rows([{**row.cells, "": mark_text(row.marks)} for row in others])
        out.print()
    for answers in comparison.answers:
        print_lines([f"{answers.deployment}, quality:", *(f"  {note}" for note in answers.notes)], fold=True)
        print_rows(answers.rows)
        out.print()
    _print_doubts(comparison, "Not compared")
    print_lines([comparison.how, comparison.rule], fold=True)


def print_gate(gate: Gate) -> None:
    _print_differences(gate.compared, NAMES)
    heads = ("case", *NAMES, "NEW against BASE", "")
    for rule, cases in gate.by_rule.items():
        print_lines([f"{rule.text}:"], fold=True)
        rows = [(each.case.name, *each.cells, each.outcome) for each in cases]
        print_rows([dict(zip(heads, row, strict=True)) for row in rows])
        out.print()
    for each in gate.cases:
        why = [each.why] if each.why else []
        print_lines((f"{each.case.name}: {line}" for line in (*why, *each.case.notes)), fold=True)
    _print_doubts(gate.compared, "Not gated")
    print_lines([gate.compared.how], fold=True)
    print_lines([gate.summary])  # for whoever reads the last line


def _print_differences(comparison: Comparison, names: Sequence[str]) -> None:
    sides = zip(names, (comparison.a, comparison.b), strict=True)
    print_lines([*(f"{name}: {side}" for name, side in sides), ""], fold=True)
    if comparison.differences:
        print_lines(["What differs in how they were made:"], fold=True)
        print_differences(comparison.differences, names)


def print_differences(differences: Sequence[Difference], names: Sequence[str], to: Console = out) -> None:
    """Print a table for each kind of difference.

    If many packages of an engine differ, only the engine's own package and their number are shown.
    """
    whats = [each.what for each in differences]
    packages = Counter(what.split(".")[1] for what in whats if what.startswith(_PACKAGES))
    many = {engine: count for engine, count in packages.items() if count > _NAMED_PACKAGES}
    prefixes = tuple(f"{_PACKAGES}{engine}." for engine in many)
    own_packages = {f"{_PACKAGES}{engine}.{engine}" for engine in many}
    important = [
        each for each in differences if each.what in own_packages or not each.what.startswith(prefixes)
    ]
    for kind in KINDS:
        rows = [
            dict(zip((kind, *names), each.cells(), strict=True)) for each in important if each.kind == kind
        ]
        if rows:
            print_rows(rows, to=to)
    for engine, count in many.items():
        to.print(f"{count} packages of {engine} differ; --json lists them", markup=False)
    to.print()


def _print_doubts(comparison: Comparison, title: str) -> None:
    print_lines((f"{title}: {each.what}: {each.why}" for each in comparison.left_out), fold=True)
    if comparison.distrust:
        legend = f" ({SIGN} 2 beside numbers: two of them)" if comparison.is_marked else ""
        print_lines([f"Reasons to distrust{legend}:"], fold=True)
        print_lines((f"  {each.text}" for each in comparison.distrust), fold=True)
