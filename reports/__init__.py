"""What a results directory says: frames, values side by side, and one self-contained HTML page.

Reads results through harness.store only; starts no server and measures nothing.
"""

from serving_bench.reports.data.run import Run, open_run
from serving_bench.reports.measures.metrics import METRICS
from serving_bench.reports.outputs.tables import TABLES, tables_of
from serving_bench.reports.page.document import write_report
from serving_bench.reports.page.several_runs import write_comparison
from serving_bench.reports.two_runs.compare import Comparison, compare_runs
from serving_bench.reports.two_runs.gate import Gate, gate_runs, gate_to_builtins

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
