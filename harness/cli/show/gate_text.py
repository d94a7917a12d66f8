"""What `bench gate` prints: a short table, what one has to know of it, and one line that is the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.cli.show.compare_text import marked, print_differences, print_distrust, print_left_out
from harness.cli.show.tables import print_rows
from reports.metrics import metric_of
from reports.two_runs.gate_limit import limit_text
from reports.written import NOTHING

if TYPE_CHECKING:
    from reports.two_runs.gate import Gate, GatedCase


def print_gate(out: Console, gate: Gate) -> None:
    """Print the gate; the last line is the verdict."""
    out.print(escape(f"BASE: {gate.base}\nNEW: {gate.new}\n"), soft_wrap=False)
    print_differences(out, gate.differences, ("BASE", "NEW"))
    unit = metric_of(gate.metric).shown_unit
    limit = limit_text(gate.metric, gate.max_regression_share)
    out.print(escape(f"{gate.metric} in {unit}; NEW may be worse by {limit}:"), soft_wrap=False)
    print_rows(out, [_cells(gate, case) for case in gate.cases])
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


def _cells(gate: Gate, case: GatedCase) -> dict[str, str]:
    base, new = (marked(side.text(gate.metric), side.marks) for side in (case.base, case.new))
    return {
        "case": case.name,
        "BASE": base,
        "NEW": new,
        "NEW worse by": case.regression_text(gate.metric) or NOTHING,
        "": marked(case.outcome, case.marks),
    }
