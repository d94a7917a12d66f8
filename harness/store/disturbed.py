"""Find the cells that something outside disturbed, so that their repeat decides nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb

from serving_bench.harness.store.records import CellRecord

# From two starts on, disturbances that fall on one deployment as unevenly as this or more by chance may be
# its own doing. Two of five starts against none of five are (22 %): to count what was disturbed costs
# precision, to leave out what is slow by itself names a wrong one.
BY_CHANCE = 0.25


@dataclass(frozen=True)
class Disturbed:
    """`cells`: the numbers of the cells that decide nothing. `at_one`: how many starts of a deployment were
    disturbed, and how many it has, if that is far more often than the others were. It may be its own doing (a
    program that it starts), and to leave out its slow windows would make it look fast, so they count."""

    cells: frozenset[int]
    at_one: Mapping[str, tuple[int, int]]


def disturbed(cells: Iterable[CellRecord]) -> Disturbed:
    """Judge the cells of a run by what the guard saw in all attempts, never by a value.

    A cell that does not count is no deployment's own doing: it is measured again in any case.
    """
    recorded = list(cells)
    hits: dict[str, dict[int, bool]] = {}
    for cell in recorded:
        by_repeat = hits.setdefault(cell.deployment, {})
        is_hit = cell.counts and (cell.is_disturbed or cell.was_disturbed)
        by_repeat[cell.repeat] = by_repeat.get(cell.repeat, False) or is_hit
    counts = {label: (sum(by_repeat.values()), len(by_repeat)) for label, by_repeat in hits.items()}
    all_hit, starts = (sum(count[place] for count in counts.values()) for place in (0, 1))
    at_one = {
        label: (hit, of)
        for label, (hit, of) in counts.items()
        if hit > 1 and _by_chance(hit, of, all_hit, starts) < BY_CHANCE
    }
    kept = {cell.number for cell in recorded if cell.counts and cell.deployment in at_one}
    outside = {cell.number for cell in recorded if cell.is_disturbed} - kept
    return Disturbed(frozenset(outside), at_one)


def _by_chance(hit: int, starts: int, all_hit: int, all_starts: int) -> float:
    """Return the probability that at least `hit` of a deployment's starts are among `all_hit` of all starts,
    drawn at random (Fisher 1935, one-sided); 1 for the only deployment."""
    most = min(starts, all_hit)
    ways = sum(comb(starts, k) * comb(all_starts - starts, all_hit - k) for k in range(hit, most + 1))
    return ways / comb(all_starts, all_hit)
