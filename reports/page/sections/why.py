"""Why: what bounded each load point, what decode reads each second, and what servers and devices told."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reports.checks.bounds import BUSY_SHARE, KV_FULL_SHARE, MOST, Bound, bound_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.data.samples import read_roof
from reports.measures.anatomy import WEIGHTS, alike, anatomies, mean_size
from reports.measures.over_starts import aggregate
from reports.measures.values import measured_of
from reports.measures.written import NOTHING, number
from reports.page.drawing.axes import significant
from reports.page.drawing.charts import (
    Block,
    Chart,
    Part,
    Section,
    Table,
    about,
    axis,
    label,
    line,
)
from reports.page.drawing.kinds import Limit, across
from reports.page.listed import below, filled, tabled
from reports.page.looks import Look, looks, named
from reports.page.markup import Head, Html, Of, Row, tag
from reports.words.said import capital

_CLAIM = (
    "What kept each deployment from serving more at a load. Users: no request waited, each one's own time "
    "counts; arrival rate: as many ended as came; slots, KV cache: requests waited for these; compute: "
    "processor or device busy all the time; the client: bench itself did not keep up."
)
_HOW = (
    "By the servers' metrics, asked once a second, and the client's own record, in the windows that count. "
    f"Waited: in more than {100 * MOST:.0f} % of the samples. Full: {100 * KV_FULL_SHARE:.0f} % of the KV "
    f"cache or more, or no room for a long request. Busy: {100 * BUSY_SHARE:.0f} % of what there is. The "
    "first that holds is given: client, KV cache, slots, compute, arrival rate, users. A device that runs "
    "kernels all the time may have room in each, so it counts as full with all slots taken only."
)
# What limits the server, or bench itself, is coloured; the others are what was asked for.
_TONES = {"client": "bad", "kv_cache": "warn", "slots": "warn", "compute": "", "unclear": "none"}
_LIMITS = {"client", "kv_cache", "slots", "compute"}
_Found = Sequence[tuple[Group, Bound]]


def bounds(run: Run) -> Section:
    """Return what bounded each load, with the evidence. Nothing where no cell counts."""
    found = [(group, bound) for group in run.groups if (bound := bound_of(run, group))]
    scenarios = list(dict.fromkeys(group.scenario for group, _ in found))
    parts: list[Part] = []
    for scenario in scenarios:
        own = [(group, bound) for group, bound in found if group.scenario == scenario]
        evidence = Block("Evidence", [_evidence(run, own)], is_folded=True)
        parts += [Block(scenario, [_words(run, own), evidence])] if len(scenarios) > 1 else []
        parts += [] if len(scenarios) > 1 else [_words(run, own), evidence]
    return Section(_title(found) if found else "", _CLAIM, parts, _HOW)


def _title(found: _Found) -> str:
    """Return what bounded the heaviest load of the only scenario and family; else what the section is."""
    if len({(group.scenario, group.family) for group, _ in found}) > 1:
        return "What bounded each load"
    top = max(group.level for group, _ in found)
    last = [(group, bound) for group, bound in found if group.level == top]
    counts = Counter(bound.words for _, bound in last if bound.kind in _LIMITS).most_common()
    at = last[0][0].load
    if not counts:
        are_clear = all(bound.kind != "unclear" for _, bound in last)
        return f"No server was at its limit at {at}" if are_clear else "What bounded each load"
    said = ", ".join(f"{words} for {count}" for words, count in counts)
    return f"The limit at {at} is {said} of {len(last)}"


def _words(run: Run, found: _Found) -> Table:
    """Return a row per deployment, a column per load."""
    loads = [load for _, _, load in sorted({(g.family, g.level, g.load) for g, _ in found})]
    by_place = {(group.deployment, group.load): bound for group, bound in found}
    rows = [
        Row([named(looks(run)[name]), *(_word(by_place.get((name, load))) for load in loads)], Of(name))
        for name in dict.fromkeys(group.deployment for group, _ in found)
    ]
    heads = (Head(load, Of(load=load)) for load in loads)
    return Table("What bounded each load", ["deployment", *heads], rows, "plain loads bounds")


def _word(bound: Bound | None) -> Html | str:
    if bound is None:
        return NOTHING
    word = tag("span", bound.words, title=bound.sentence, class_=_TONES.get(bound.kind, "quiet"))
    return below(word, f"{bound.starts} of {bound.of} starts" if bound.starts < bound.of else "")


def _evidence(run: Run, found: _Found) -> Table:
    return tabled(
        "Evidence",
        {
            "deployment": lambda pair: named(looks(run)[pair[0].deployment]),
            "load": lambda pair: pair[0].load,
            "bound": lambda pair: pair[1].words,
            "evidence": lambda pair: tag("span", _sentence(pair[1]), class_="why"),
        },
        found,
        lambda pair: Of(pair[0].deployment, pair[0].load),
        "plain loads bounds",
    )


def _sentence(bound: Bound) -> str:
    agreement = f" ({bound.agreement})" if bound.agreement else ""
    return f"{capital(bound.sentence)}{agreement}."


# --- decode ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decode:
    """A group's decode: requests in flight on average, TPOT p50, the size of the weights, and what the
    memory of its device gives at most, where that is known."""

    group: Group
    in_flight: float
    tpot_s: float
    weights_bytes: float
    roof_gb_per_s: float | None

    @property
    def read_gb_per_s(self) -> float:
        """Return the least bandwidth that its device gave.

        A step gives a request one token at most, and reads all weights of a dense model once for the whole
        batch. Source: the roofline's slope, Williams, Waterman and Patterson 2009.
        """
        return self.weights_bytes / self.tpot_s / 1e9


def _decoded(run: Run) -> Iterator[_Decode]:
    starts = {name: alike(each)[0] for name, each in anatomies(run).items()}
    for group in run.groups:
        weights = mean_size(starts.get(group.deployment, ()), WEIGHTS) if group.deployment in starts else 0.0
        found = [measured_of(run)[cell.number].steadiness for cell in group.counted]
        known = [each.in_flight.mean for each in found if each]
        tpot_s = aggregate(run, group, "tpot_s.p50").mean
        if weights and tpot_s and known:
            roof = read_roof(run, run.starts_of(group.deployment)[0])
            yield _Decode(group, sum(known) / len(known), tpot_s, weights, roof and roof / 1e9)


def decode(run: Run) -> Section:
    """Return the bytes of weights that decode read each second, by requests in flight."""
    found = sorted(_decoded(run), key=lambda each: each.in_flight)
    by_label = {name: [e for e in found if e.group.deployment == name] for name in run.deployments}
    roofs = sorted({each.roof_gb_per_s for each in found if each.roof_gb_per_s})
    most = max((e.read_gb_per_s / e.roof_gb_per_s for e in found if e.roof_gb_per_s), default=0.0)
    title = f"Decode reads up to {100 * most:.0f} % of what the memory can give" if 0 < most <= 1 else ""
    chart = Chart(
        "decode",
        "Weights read by decode: their size / TPOT p50",
        [_trace(looks(run)[name], own) for name, own in by_label.items() if own],
        {
            "xaxis": axis("requests in flight, mean"),
            "yaxis": axis("GB/s", rangemode="tozero"),
            **across([Limit(roof, f"memory: {roof:,.0f} GB/s") for roof in roofs]),
        },
        *filled(
            {
                "deployment": lambda each: each.group.deployment,
                "load": lambda each: each.group.load,
                "in flight": lambda each: number(each.in_flight),
                "TPOT p50 ms": lambda each: number(1e3 * each.tpot_s, 2),
                "weights GB": lambda each: number(each.weights_bytes / 1e9, 2),
                "read GB/s": lambda each: number(each.read_gb_per_s),
                "memory gives GB/s": lambda each: number(each.roof_gb_per_s),
            },
            found,
            lambda each: Of(each.group.deployment, each.group.load),
        ),
        "Level while few are in flight: bandwidth bounds it, and smaller weights are faster. Falling: "
        "compute, the KV cache or the queue takes over.",
        names_ends=True,
        is_wide=True,
        finding=title,
    )
    claim = (
        "A decode step reads all weights once for all requests in flight, so this is the least bandwidth "
        "that the device gave; of a mixture of experts it is the most. Dashed: what its memory can give, "
        "as measured when the run began (of a card: by NVML's clock and bus)."
    )
    return Section("Decode against bandwidth", claim, [chart] if found else [])


def _trace(look: Look, found: Sequence[_Decode]) -> dict[str, Any]:
    trace = line(
        look,
        [significant(each.in_flight) for each in found],
        [significant(each.read_gb_per_s) for each in found],
        customdata=[label(each.group.load) for each in found],
        hovertemplate="%{fullData.name}<br>%{customdata}: %{y:.3~g} GB/s<extra></extra>",
    )
    return about(trace, Of(look.label), points=[Of(load=each.group.load) for each in found])
