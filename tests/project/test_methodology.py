"""Tables of METHODOLOGY.md against the code: percentiles that are shown, and how often a winner is named."""

from methodology import lines, rows_below
from test_decisions_simulated import POWER

from harness.contracts.timing import needed
from reports.measures.metrics import PERCENTILES


def test_the_minimum_counts_of_percentiles_are_those_that_are_used() -> None:
    (counts,) = rows_below("| percentile | p50 | p90 | p95 | p99 |")
    assert [int(count) for count in counts[1:]] == [needed(level) for level in PERCENTILES]


def test_the_table_of_winners_is_what_the_simulation_is_held_to() -> None:
    [head] = [line for line in lines() if line.startswith("| repeats | wrong")]
    said = {int(row[0]): [int(cell.removesuffix(" %")) / 100 for cell in row[2:]] for row in rows_below(head)}
    assert said == {repeats: [power[repeats] for _, power, _ in POWER] for repeats in (3, 5, 7)}
