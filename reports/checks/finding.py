"""What a check found, and how it names cells.

Which findings mark numbers. A finding has `marks` where somebody who acts on a number of one of its cells may
be misled by what was found: the number may be wrong, be of something else than its name says, or hold for
this window alone. It has not where

- it is so of every number of the run alike, by the machine or by the plan (client and server share the cores;
  every window is short; there is one start): a mark on everything says nothing, so it stands at the page's
  top and under Checks;
- the page leaves the number out, or offers none (failed and invalid cells, a p95 of too few requests, E2E of
  answers that are not as long as asked);
- it says what the numbers are of, and none of them is wrong (origin of the weights).

It has `compares` where a number is right by itself, and its comparison with another deployment's may mislead:
other terms, builds, templates, cores; answers across quantizations that nobody looked at. What marks a
number marks its comparisons, too (reports/checks/marks.py).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from reports.data.cells import Cell
from reports.data.run import Run

# What the client sees of a server's speed; energy and cost are reckoned from tokens/s.
TOKENS = ("output_tokens_per_s", "energy_j_per_output_token", "cost_per_million_output_tokens")
LATENCIES = ("ttft_s", "itl_s", "tpot_s", "e2e_s")
RATES = ("requests_per_s", "goodput_per_s", *TOKENS)
SPEED = (*LATENCIES, "slo_share", *RATES)
# What counts requests whose latencies are within limits: whatever bears on TTFT, TPOT or E2E bears on these.
BY_OBJECTIVES = ("slo_share", "goodput_per_s")
# What begins with a request's sending.
FROM_SENDING = ("ttft_s", "e2e_s", *BY_OBJECTIVES)


@dataclass(frozen=True)
class Finding:
    """`text` says what was seen; `remedy` what would help.

    `cells`: numbers of the cells that it is about; empty: of the whole run. `metrics`: names of the metrics
    that it bears on (`ttft_s`); empty: on all. With `marks` a headline number of such a cell and metric bears
    this finding's mark wherever it is shown; with `compares` a comparison of such a number does.
    """

    check: str
    title: str
    text: str
    remedy: str
    cells: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()
    marks: bool = True
    compares: bool = False


def by_weight(found: Iterable[Finding]) -> list[Finding]:
    """Those that mark a number first, then those that mark a comparison: the order in which they are told."""
    return sorted(found, key=lambda each: (not each.marks, not each.compares))


def measured_cells(run: Run) -> list[Cell]:
    """The cells whose values count."""
    return [cell for cell in run.planned_cells if cell.counts]


def cell_name(cell: Cell) -> str:
    """A cell as a finding names it."""
    return f"{cell.label} at {cell.load_label}"


def numbers(cells: Iterable[Cell]) -> tuple[int, ...]:
    """The numbers of cells, each once, in order."""
    return tuple(sorted({cell.number for cell in cells}))


def cells_of(run: Run, labels: Collection[str]) -> tuple[int, ...]:
    """The numbers of all planned cells of some deployments."""
    return numbers(cell for cell in run.planned_cells if cell.label in labels)


def are_all(run: Run, cells: Collection[int]) -> bool:
    """Whether these are all the cells of the run that count: what is so of each of them, by the plan or the
    machine, marks none."""
    return {cell.number for cell in measured_cells(run)} <= set(cells)
