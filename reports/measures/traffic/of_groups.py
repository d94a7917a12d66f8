"""Values over a group's starts that only some scenarios have.

For parts of the requests: each prefix, depth or adapter, as the scenario numbers them. For answers with a
form: how many are valid, and what constrained decoding costs.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from serving_bench.reports.data import Group, Run, once
from serving_bench.reports.measures.metrics import Value, value_of_start
from serving_bench.reports.measures.over_starts import Aggregate, aggregate_of, by_start, calm_starts
from serving_bench.reports.measures.slo import wilson
from serving_bench.reports.measures.traffic.of_cells import by_number
from serving_bench.reports.measures.traffic.validity import VALID, kinds_of
from serving_bench.reports.stats.intervals import Estimate, of_pairs

# --- parts of requests ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The window's ok requests of one part, over all starts that count. None is not known."""

    group: Group
    number: int  # the scenario's, from 0
    requests: int
    input_tokens: float | None  # mean
    cached_share: float | None  # of the input tokens, over requests for which the server reported both
    ttft_s: float | None  # median
    tpot_s: float | None  # median

    @property
    def read_per_s(self) -> float | None:
        """Input tokens not served from a cache / TTFT."""
        if not self.ttft_s or self.input_tokens is None:
            return None
        return self.input_tokens * (1 - (self.cached_share or 0.0)) / self.ttft_s

    @property
    def made_per_s(self) -> float | None:
        return 1 / self.tpot_s if self.tpot_s else None


@once
def parts_of(run: Run, scenario: str) -> list[Part]:
    """Return the parts of each deployment and load with a scenario of this name."""
    return [part for group in groups_under(run, scenario) for part in _parts(run, group)]


def adapter_name(part: Part) -> str:
    """Return an adapter's name, or its number if the run does not have the name."""
    records = (cell.record for cell in part.group.counted)
    adapters = next((record.adapters for record in records if record), ())
    return adapters[part.number].name if part.number < len(adapters) else f"adapter {part.number}"


def by_part(run: Run, part: Part, name: str) -> tuple[Aggregate, dict[int, Value]]:
    """Return a part's median of TTFT or TPOT (`ttft_s.p50`) over the starts, and that of each start by
    repeat."""
    latency, starts = name.partition(".")[0], dict[int, Value]()
    for repeat, cells in calm_starts(run, part.group).items():
        of_part = (by_number(run, cell).get(part.number) for cell in cells)
        starts[repeat] = value_of_start([each[latency] for each in of_part if each])
    return aggregate_of(run, part.group, name, list(starts.values())), starts


def groups_under(run: Run, scenario: str) -> list[Group]:
    """Return the groups with a scenario of this name (whatever its options) that have a counted cell."""
    names = ((group, group.cells[0].planned.scenario.name) for group in run.groups if group.counted)
    return [group for group, name in names if name == scenario]


def _parts(run: Run, group: Group) -> list[Part]:
    frames = [run.ok_requests_with(cell.number, "group") for cell in group.counted]
    numbered = pd.concat(frames).groupby("group") if frames else ()
    return [_part(group, int(cast(int, number)), requests) for number, requests in numbered]


def _part(group: Group, number: int, requests: pd.DataFrame) -> Part:
    both = requests[requests["input_tokens"].notna() & requests["cached_tokens"].notna()]
    sent = both["input_tokens"].sum()
    return Part(
        group,
        number,
        len(requests),
        input_tokens=_known(requests["input_tokens"].mean()),
        cached_share=float(both["cached_tokens"].sum() / sent) if sent else None,
        ttft_s=_known(requests["ttft_s"].median()),
        tpot_s=_known(requests["tpot_s"].median()),
    )


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


# --- answers with a form ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Validity:
    """The answers of a group, counted by kind over all starts. `is_forced`: the server constrains their
    form."""

    group: Group
    is_forced: bool
    counts: Counter[str]

    @property
    def n(self) -> int:
        return self.counts.total()

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the valid share."""
        return wilson(self.counts[VALID], self.n)


@once
def validities_of(run: Run) -> list[Validity]:
    """Return the validity of each group that has answers with a form."""
    validities = []
    for group in run.groups:
        counts = sum((kinds_of(run, cell) for cell in group.counted), Counter[str]())
        if counts:
            records = (cell.record for cell in group.counted if cell.record)
            is_forced = all(form.is_forced for record in records for form in record.forms)
            validities.append(Validity(group, is_forced, counts))
    return validities


def cost_of_constraint(run: Run, validity: Validity) -> Estimate | None:
    """Return the ratio of TPOT p50 with constrained decoding to that without, paired by repeat.

    The second is of the same deployment, load and options, where only the prompt asks for the form. None if
    the run did not sweep this.
    """
    baseline = _but_constrained(validity.group)
    free = [
        each for each in validities_of(run) if not each.is_forced and _but_constrained(each.group) == baseline
    ]
    if not validity.is_forced or len(free) != 1:
        return None
    sides = [by_start(run, group, "tpot_s.p50") for group in (validity.group, free[0].group)]
    pairs = [[side[repeat].value for side in sides] for repeat in sides[0] if repeat in sides[1]]
    both = [(a, b) for a, b in pairs if a and b]
    return of_pairs(*zip(*both, strict=True), is_log=True) if both else None


def _but_constrained(group: Group) -> tuple[object, ...]:
    """Return what identifies a group apart from the option `constrained`."""
    scenario = group.cells[0].planned.scenario
    options = {name: value for name, value in scenario.options.items() if name != "constrained"}
    return group.deployment, group.load, scenario.name, options
