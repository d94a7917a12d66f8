"""What `bench gate` prints: a short table, what one has to know of it, and one line that is the verdict."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from harness.compare_text import print_differences, print_distrust, print_left_out
from harness.listing import print_rows
from reports.gate_files import limit_text
from reports.markup import NOTHING
from reports.metrics import metric_of


def print_gate(out: Console, gate: Any) -> None:
    """Of a reports.gate.Gate."""
    out.print(escape(f"BASE: {gate.base}\nNEW: {gate.new}\n"), soft_wrap=False)
    print_differences(out, gate.differences, ("BASE", "NEW"))
    unit = metric_of(gate.metric).shown_unit
    out.print(escape(f"{gate.metric} in {unit}; NEW may be worse by {limit_text(gate)}:"), soft_wrap=False)
    print_rows(out, [_cells(gate, case) for case in gate.cases])
    out.print()
    for case in gate.cases:
        # Where all are inconclusive for one reason, the last line says it.
        is_said = case.why is None or case.why in gate.summary
        for line in (*([] if is_said else [case.why]), *case.marks):
            out.print(escape(f"{case.name}: {line}"), soft_wrap=False)
    print_left_out(out, gate.left_out, "Not gated")
    print_distrust(out, gate.distrust)
    if not gate.is_interleaved:
        out.print("The runs were not interleaved: whatever changed between them is in the ratios.")
    out.print(escape(gate.summary))  # whole, for whoever reads the last line


def _cells(gate: Any, case: Any) -> dict[str, str]:
    return {
        "case": case.name,
        "BASE": case.base.text(gate.metric),
        "NEW": case.new.text(gate.metric),
        "NEW worse by": case.regression_text(gate.metric) or NOTHING,
        "": case.outcome,
    }
