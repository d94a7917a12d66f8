"""Tables of METHODOLOGY.md against the code: percentiles that are shown, and how often a winner is named."""

from places import ROOT
from test_decisions_simulated import POWER

from serving_bench.harness.contracts.timing import needed
from serving_bench.reports.measures.metrics import PERCENTILES

LINES = (ROOT / "METHODOLOGY.md").read_text(encoding="utf-8").splitlines()


def rows_below(head: str) -> list[list[str]]:
    """Return the cells of each row of the only table with this head."""
    assert LINES.count(head) == 1, head
    rows = []
    for line in LINES[LINES.index(head) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_minimum_counts_of_percentiles_are_those_that_are_used() -> None:
    (counts,) = rows_below("| percentile | p50 | p90 | p95 | p99 |")
    assert [int(count) for count in counts[1:]] == [needed(level) for level in PERCENTILES]


def test_the_table_of_winners_is_what_the_simulation_is_held_to() -> None:
    [head] = [line for line in LINES if line.startswith("| repeats | wrong")]
    said = {int(row[0]): [int(cell.removesuffix(" %")) / 100 for cell in row[2:]] for row in rows_below(head)}
    assert said == {repeats: [power[repeats] for _, power, _ in POWER] for repeats in (3, 5, 7)}
