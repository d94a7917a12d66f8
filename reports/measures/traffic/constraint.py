"""How many answers of a group are valid, and what it costs that a server holds them to their form."""

from collections import Counter
from dataclasses import dataclass

from reports.data import Group, Run, once
from reports.measures.over_starts import by_start
from reports.measures.slo import wilson
from reports.measures.traffic.validity import VALID, kinds_of
from reports.stats.intervals import Estimate, of_pairs


@dataclass(frozen=True)
class Validity:
    """The answers of a group by their kind, all starts together; `interval`: of the share that is valid."""

    group: Group
    is_forced: bool
    counts: Counter[str]

    @property
    def n(self) -> int:
        return self.counts.total()

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's interval of the share."""
        return wilson(self.counts[VALID], self.n)


@once
def validities_of(run: Run) -> list[Validity]:
    """Return the answers of each group that has any with a form."""
    found = []
    for group in run.groups:
        counts = sum((kinds_of(run, cell) for cell in group.counted), Counter[str]())
        if counts:
            records = (cell.record for cell in group.counted if cell.record)
            is_forced = all(form.is_forced for record in records for form in record.forms)
            found.append(Validity(group, is_forced, counts))
    return found


def cost_of_constraint(run: Run, held: Validity) -> Estimate | None:
    """Return TPOT p50 of answers that the server holds to their form over that of the same deployment and
    load where the prompt alone asks for it and all else is the same, from the repeats that have both. None
    without such a sweep."""
    own = _but_constrained(held.group)
    free = [each for each in validities_of(run) if not each.is_forced and _but_constrained(each.group) == own]
    if not held.is_forced or len(free) != 1:
        return None
    sides = [by_start(run, group, "tpot_s.p50") for group in (held.group, free[0].group)]
    pairs = [[side[repeat].value for side in sides] for repeat in sides[0] if repeat in sides[1]]
    known = [(a, b) for a, b in pairs if a and b]
    return of_pairs(*zip(*known, strict=True), is_log=True) if known else None


def _but_constrained(group: Group) -> tuple[object, ...]:
    """Return what a group is, but for whether its server is told the form."""
    scenario = group.cells[0].planned.scenario
    options = {name: value for name, value in scenario.options.items() if name != "constrained"}
    return group.deployment, group.load, scenario.name, options
