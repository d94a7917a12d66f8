"""The shape of a distribution: two kinds of requests behind one median."""

from collections.abc import Iterator

from reports.checks.finding import BY_OBJECTIVES, Finding, cell_name, measured_cells, numbers
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.written import number, several
from reports.stats.humps import Humps, humps

_METRICS = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"))


def bimodal(run: Run) -> Iterator[Finding]:
    """Cells in which TTFT or TPOT of one turn has two clearly separated humps; a finding for each.

    Turn by turn, since later ones have longer prompts; start by start, since each has its own luck.
    """
    for metric, title in _METRICS:
        said, found = [], []
        for cell in measured_cells(run):
            if seen := _clearest(run, cell, metric):
                turn, two = seen
                found.append(cell)
                said.append(
                    f"{cell_name(cell)}, start {cell.planned.repeat + 1}, turn {turn + 1}: "
                    f"{number(two.low_s * 1e3)} ms, and {number(two.high_s * 1e3)} ms in "
                    f"{100 * two.upper_share:.0f} % (n = {two.n:,} requests)"
                )
        if said:
            yield Finding(
                f"bimodal_{metric.removesuffix('_s')}",
                f"{title} has two humps",
                f"The medians of the two: {several(said, '; ')}. A median or a mean of both is of neither, "
                "and jumps when their shares change.",
                "See the distribution under Latency; tell the two apart, as by load.concurrency=1 or "
                "engine.prefix_cache=false.",
                cells=numbers(found),
                # Whether a limit between the two is kept hangs on their shares.
                metrics=(metric, *BY_OBJECTIVES),
            )


def _clearest(run: Run, cell: Cell, metric: str) -> tuple[int, Humps] | None:
    """The turn (from 0) whose humps are furthest apart, with them."""
    by_turn = run.by_turn(cell.number, metric).groupby("turn")["seconds"]
    found = [(int(str(turn)), two) for turn, each in by_turn if (two := humps(each.to_numpy()))]
    return max(found, key=lambda pair: pair[1].high_s / pair[1].low_s, default=None)
