"""Why: what bounded each load, what decode reads each second, and what servers and their machine told."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from harness.contracts import ServerTerm
from reports.checks.bounds import BUSY_SHARE, KV_FULL_SHARE, MOST, Bound, bound_of
from reports.data.cells import Group
from reports.data.run import Run
from reports.data.samples import (
    device_samples,
    foreign_share,
    growth,
    mean_gauge,
    never_told,
    pooled,
    read_roof,
    server_cores,
    throttled,
)
from reports.measures.anatomy import WEIGHTS, alike, anatomies, mean_parts
from reports.measures.metrics import mean
from reports.measures.over_starts import aggregate
from reports.measures.values import measured_of
from reports.measures.written import NOTHING, number, several
from reports.page.drawing.axes import significant
from reports.page.drawing.charts import Block, Chart, Part, Section, Table, about, axis, label, line
from reports.page.drawing.kinds import Limit, across
from reports.page.listed import Columns, Shown, below, filled, listed
from reports.page.looks import Look, looks, named
from reports.page.markup import Head, Of, paragraph, tag
from reports.words.verdict_words import capital

_CLAIM = (
    "What kept each deployment from serving more at a load. Users: no request waited, each one's own time "
    "counts; arrival rate: as many ended as came; slots, KV cache: requests waited for these; compute: "
    "processor or device busy all the time; the client: bench itself did not keep up."
)
_HOW = (
    "By the servers' metrics, asked once a second, and the client's own record, in the windows that count. "
    f"Waited: in more than {100 * MOST:.0f} % of the samples. Full: {100 * KV_FULL_SHARE:.0f} % of the KV "
    f"cache or more, or no room for a long request. Busy: {100 * BUSY_SHARE:.0f} % of what there is (a "
    "device: with all slots taken only). The first that holds is given, from the client to the users."
)
_BOUNDS = "What bounded each load"
# What limits the server, or bench itself, is coloured; the others are what was asked for.
_TONES = {"client": "bad", "kv_cache": "warn", "slots": "warn", "compute": "", "unclear": "none"}
_LIMITS = {"client", "kv_cache", "slots", "compute"}
_TOLD = (
    "Means in the windows over starts, and the highest sample. By each server's own page of metrics, asked "
    "once a second: requests, KV cache, prompt tokens found in the cache, preemptions, time "
    "from arrival to the start of work. By the system: cores that the server kept busy, the share of the "
    "processor that neither it nor the client used, samples in which a device's clocks were held down."
)
_TERMS: dict[ServerTerm, str] = {
    "running": "running requests",
    "waiting": "waiting requests",
    "kv_cache_usage_share": "KV cache %",
    "prefix_hit_tokens": "prefix hits %",
    "preemptions": "preemptions",
    "queue_s": "queue ms",
}
_SCALES: dict[ServerTerm, float] = {"kv_cache_usage_share": 100, "prefix_hit_tokens": 100, "queue_s": 1000}
_PER: dict[ServerTerm, ServerTerm] = {
    "prefix_hit_tokens": "prefix_query_tokens",
    "queue_s": "queued_requests",
}
_OF_DEVICE = {
    "device %": ("utilization_pct", "mean"),
    "hottest °C": ("temperature_c", "max"),
    "SM clock MHz": ("sm_clock_mhz", "mean"),
}
_Found = Sequence[tuple[Group, Bound]]
# A group, and its devices' samples.
_Told = tuple[Group, pd.DataFrame]


def bounds(run: Run) -> Section:
    """Return what bounded each load, with the evidence. Nothing where no cell counts."""
    found = [(group, bound) for group in run.groups if (bound := bound_of(run, group))]
    if not found:
        return Section(_BOUNDS)
    by_key = {group.key: bound for group, bound in found}
    has_several = len({group.scenario for group, _ in found}) > 1
    loads = [load for _, _, load in sorted({(g.family, g.level, g.load) for g, _ in found})]
    words: Columns[tuple[str, str]] = {
        "deployment": lambda row: named(looks(run)[row[0]]),
        "scenario": lambda row: row[1] if has_several else "",
        **{Head(load, Of(load=load)): partial(_word, by_key, load) for load in loads},
    }
    evidence: Columns[tuple[Group, Bound]] = {
        "deployment": lambda pair: named(looks(run)[pair[0].deployment]),
        "scenario": lambda pair: pair[0].scenario if has_several else "",
        "load": lambda pair: pair[0].load,
        "bound": lambda pair: pair[1].words,
        "evidence": lambda pair: tag("span", _sentence(pair[1]), class_="why"),
    }
    rows = list(dict.fromkeys((group.deployment, group.scenario) for group, _ in found))
    of_pair = filled(evidence, found, lambda pair: Of(pair[0].deployment, pair[0].load))
    parts: list[Part] = [
        Table(_BOUNDS, *filled(words, rows, lambda row: Of(row[0])), "plain loads bounds"),
        Block("Evidence", [Table("Evidence", *of_pair, "plain loads bounds")], is_folded=True),
    ]
    return Section(_title(found), _CLAIM, parts, _HOW)


def _title(found: _Found) -> str:
    """Return what bounded the heaviest load of the only scenario and family; else what the section is."""
    top = max(group.level for group, _ in found)
    last = [(group, bound) for group, bound in found if group.level == top]
    limits = Counter(bound.words for _, bound in last if bound.kind in _LIMITS).most_common()
    is_clear = limits or all(bound.kind != "unclear" for _, bound in last)
    if len({(group.scenario, group.family) for group, _ in found}) > 1 or not is_clear:
        return _BOUNDS
    said = ", ".join(f"{words} for {count}" for words, count in limits)
    at = last[0][0].load
    return f"The limit at {at} is {said} of {len(last)}" if said else f"No server was at its limit at {at}"


def _word(by_key: Mapping[tuple[str, str, str], Bound], load: str, row: tuple[str, str]) -> Shown:
    bound = by_key.get((*row, load))
    if bound is None:
        return NOTHING
    word = tag("span", bound.words, title=bound.sentence, class_=_TONES.get(bound.kind, "quiet"))
    return below(word, f"{bound.starts} of {bound.of} starts" if bound.starts < bound.of else "")


def _sentence(bound: Bound) -> str:
    return f"{capital(bound.sentence)}{f' ({bound.agreement})' if bound.agreement else ''}."


# --- decode ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decode:
    """A load's decode: requests in flight on average, TPOT p50, the size of the weights, what is read of them
    each second, and what the memory of the device gives at most (None: not known)."""

    group: Group
    in_flight: float
    tpot_s: float
    weights_gb: float
    read_gb_per_s: float
    roof_gb_per_s: float | None


def _decoded(run: Run) -> Iterator[_Decode]:
    """Yield the decode of each load. What is read is the least bandwidth that the device gave.

    A step gives a request one token at most, and reads all weights of a dense model once for the whole
    batch. Source: the roofline's slope, Williams, Waterman and Patterson 2009.
    """
    parts = {name: mean_parts(alike(each)) for name, each in anatomies(run).items()}
    sizes_gb = {name: own[WEIGHTS].size_bytes / 1e9 for name, own in parts.items() if WEIGHTS in own}
    for group in run.groups:
        weights_gb, tpot_s = sizes_gb.get(group.deployment), aggregate(run, group, "tpot_s.p50").mean
        found = [measured_of(run)[cell.number].steadiness for cell in group.counted]
        known = [each.in_flight.mean for each in found if each]
        if weights_gb and tpot_s and known:
            roof = read_roof(run, run.starts_of(group.deployment)[0])
            in_flight, roof_gb = sum(known) / len(known), roof and roof / 1e9
            yield _Decode(group, in_flight, tpot_s, weights_gb, weights_gb / tpot_s, roof_gb)


def decode(run: Run) -> Section:
    """Return the bytes of weights that decode read each second, by requests in flight."""
    found = sorted(_decoded(run), key=lambda each: each.in_flight)
    by_label = {name: [e for e in found if e.group.deployment == name] for name in run.deployments}
    roofs = sorted({each.roof_gb_per_s for each in found if each.roof_gb_per_s})
    most = max((e.read_gb_per_s / e.roof_gb_per_s for e in found if e.roof_gb_per_s), default=0.0)
    title = f"Decode reads up to {100 * most:.0f} % of what the memory can give" if 0 < most <= 1 else None
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
                "TPOT p50 ms": lambda each: number(each.tpot_s, 2, 1e3),
                "weights GB": lambda each: number(each.weights_gb, 2),
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


# --- what was told ---------------------------------------------------------------------------------


def told(run: Run) -> Section:
    """Return what servers and their machine told in the windows, by load, and what servers did not tell."""
    rows = [(group, device_samples(run, group.counted)) for group in run.groups if group.counted]
    columns: Columns[_Told] = {
        "deployment": lambda row: row[0].deployment,
        "load": lambda row: row[0].load,
        **{title: partial(_term, run, term) for term, title in _TERMS.items()},
        "cores used": lambda row: number(mean([server_cores(run, c) for c in row[0].counted])),
        "others' CPU %": lambda row: number(mean([foreign_share(run, c) for c in row[0].counted]), 0, 100),
        **{title: partial(_of_device, *of) for title, of in _OF_DEVICE.items()},
        "throttled %": lambda row: _throttled(row[1]),
        "samples": lambda row: below(
            f"{sum(len(run.window_samples(run.server, cell)) for cell in row[0].counted):,}",
            f"of devices {len(row[1]):,}" if len(row[1]) else "",
        ),
        "starts": lambda row: str(len(row[0].counted)),
    }
    table = listed("By load", "", columns, rows, lambda row: Of(row[0].deployment, row[0].load))
    said = [*filter(None, (_untold(run, name) for name in run.deployments))] if run.server is not None else []
    note = [paragraph(f"Not told: {'; '.join(said)}.")] if said else []
    return Section("What servers and their machine told", _TOLD, [*table, *note] if rows else [])


def _term(run: Run, term: ServerTerm, row: _Told) -> Shown:
    """Return what grew, what grew per request or token, or a gauge's mean and peak."""
    scale = _SCALES.get(term, 1.0)
    if term == "preemptions":
        return number(mean([growth(run, cell, term) for cell in row[0].counted]), 0)
    if term in _PER:
        return number(pooled(run, row[0], term, _PER[term]), scale=scale)
    found = mean_gauge(run, row[0], term)
    return below(number(found[0] * scale), f"peak {number(found[1] * scale)}") if found else NOTHING


def _of_device(column: str, how: str, row: _Told) -> str:
    known = row[1].get(column, pd.Series(dtype=float)).dropna()
    return number(float(known.agg(how)), 0) if len(known) else NOTHING


def _throttled(samples: pd.DataFrame) -> Shown:
    found = throttled(samples)
    return below(number(found[0], 0, 100), *found[1]) if found else NOTHING


def _untold(run: Run, name: str) -> str:
    """Return which of a deployment's metrics were never told, and why its page was not read."""
    records = run.starts_of(name)
    missing = [_TERMS[term] for term in never_told(run, [r.name for r in records]) if term in _TERMS]
    unread = [why for record in records if (why := record.memory_notes.get("server samples"))]
    what = "all" if len(missing) == len(_TERMS) else ", ".join(missing) or "nothing at times"
    why = f" ({several(unread, '; ')})" if unread else ""
    return f"{name}: {what}{why}" if missing or unread else ""
