"""What a results directory says: frames, values side by side, and one self-contained HTML page.

Reads results through harness.store only; starts no server and measures nothing.
"""

from reports.data.run import Run, open_run
from reports.measures.metrics import METRICS
from reports.outputs.tables import TABLES, tables_of
from reports.page.document import write_report
from reports.page.of_several import write_comparison
from reports.two_runs.compare import Comparison, compare_runs
from reports.two_runs.gate import Gate, gate_runs, gate_to_builtins

__all__ = [
    "METRICS",
    "TABLES",
    "Comparison",
    "Gate",
    "Run",
    "compare_runs",
    "gate_runs",
    "gate_to_builtins",
    "open_run",
    "tables_of",
    "write_comparison",
    "write_report",
]
