"""Why: what bounded each load, what decode reads each second, and what servers and their machine told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from harness.contracts import ServerTerm
from reports.checks.bounds import BUSY_SHARE, KV_FULL_SHARE, MOST, Bound, bound_of
from reports.data.cells import Group, grouped
from reports.data.run import Run
from reports.data.samples import (
    device_samples,
    foreign_share,
    growth,
    mean_gauge,
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
from reports.page.drawing.charts import Chart, Section, about, axis, line, significant
from reports.page.drawing.kinds import Limit, across
from reports.page.listed import Columns, Shown, below, filled, listed
from reports.page.looks import Look, looks
from reports.page.markup import Of, escaped, join, paragraph, tag
from reports.page.sections.by_load import load_table, of_group
from reports.words.verdict_words import capital

_CLAIM = (
    "What kept each deployment from serving more at a load. Users: no request waited, each one's own time "
    "counts; arrival rate: as many ended as came; slots, KV cache: requests waited for these; compute: "
    "processor or device busy all the time; the client: bench itself did not keep up."
)
_HOW = (
    "By the servers' metrics, asked once a second, and the client's own record, in the windows that count. "
    f"Waited: in more than {100 * MOST:.0f} % of the samples. Full: {100 * KV_FULL_SHARE:.0f} % of the KV "
    f"cache or more, or no room for a long request. Busy: {100 * BUSY_SHARE:.0f} % of what there is. The "
    "first that holds is given, from the client to the users."
)
_BOUNDS = "What bounded each load"
# What limits the server, or bench itself, is coloured; the others are what was asked for.
_TONES = {"client": "bad", "kv_cache": "warn", "slots": "warn", "compute": "", "unclear": "none"}
_DECODE = (
    "A decode step reads all weights once for all requests in flight, so this is the least bandwidth that "
    "the device gave; of a mixture of experts it is the most. Dashed: what its memory can give, as measured "
    "when the run began (of a card: by NVML's clock and bus)."
)
_TOLD = (
    "Means in the windows over starts, and the highest sample. By each server's page of metrics, asked "
    "once a second: requests, KV cache, preemptions, time until work begins. By the system: "
    "cores that the server kept busy, what neither it nor the client used, how often clocks were held down."
)
# By the term of a server's metrics: its column, what it is multiplied by, and what it is counted per.
_TERMS: Mapping[ServerTerm, tuple[str, float, ServerTerm | None]] = {
    "running": ("running requests", 1, None),
    "waiting": ("waiting requests", 1, None),
    "kv_cache_usage_share": ("KV cache %", 100, None),
    "prefix_hit_tokens": ("prefix hits %", 100, "prefix_query_tokens"),
    "preemptions": ("preemptions", 1, None),
    "queue_s": ("queue ms", 1000, "queued_requests"),
}
_OF_DEVICE = {
    "device %": ("utilization_pct", "mean"),
    "hottest °C": ("temperature_c", "max"),
    "SM clock MHz": ("sm_clock_mhz", "mean"),
}
# A group, and its devices' samples.
_Told = tuple[Group, pd.DataFrame]


def bounds(run: Run) -> Section:
    """Return what bounded each load, with its evidence. Nothing where no cell counts."""
    found = [(group, bound) for group in run.groups if (bound := bound_of(run, group))]
    if not found:
        return Section(_BOUNDS)
    by_scenario = grouped(found, lambda pair: pair[0].scenario)
    tables = []
    for scenario, own in by_scenario.items():
        cells = {(group.deployment, group.load): _word(bound) for group, bound in own}
        title = f"{_BOUNDS}{f', {scenario}' if len(by_scenario) > 1 else ''}"
        tables.append(load_table(run, title, cells))
    return Section(_title(found), _CLAIM, tables, _HOW)


def _title(found: Sequence[tuple[Group, Bound]]) -> str:
    heaviest = max(group.level for group, _ in found)
    last = [(group, bound) for group, bound in found if group.level == heaviest]
    if len({(group.scenario, group.family) for group, _ in found}) > 1:
        return _BOUNDS
    counts = Counter(bound.words for _, bound in last).most_common()
    said = ", ".join(f"{words} ({count} of {len(last)})" for words, count in counts)
    return f"What bounded {last[0][0].load}: {said}"


def _word(bound: Bound) -> Shown:
    word = tag("span", bound.words, class_=_TONES.get(bound.kind, "quiet"))
    said = tag("span", f"{capital(bound.sentence)}.", class_="range why-none")
    return join([below(word, bound.agreement), said])


# --- decode ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decode:
    """A load's decode: requests in flight on average, TPOT p50, the size of the weights, and what the memory
    of the device gives at most (None: not known)."""

    group: Group
    in_flight: float
    tpot_s: float
    weights_gb: float
    roof_gb_per_s: float | None

    @property
    def read_gb_per_s(self) -> float:
        """Return what is read of the weights each second: the least bandwidth that the device gave.

        A step gives a request one token at most, and reads all weights of a dense model once for the whole
        batch. Source: the roofline's slope, Williams, Waterman and Patterson 2009.
        """
        return self.weights_gb / self.tpot_s


def _decoded(run: Run, group: Group) -> _Decode | None:
    """Return the decode of a load; None where its weights, TPOT or requests in flight are not known."""
    starts = anatomies(run).get(group.deployment, [])
    weights = mean_parts(alike(starts)).get(WEIGHTS) if starts else None
    tpot_s = aggregate(run, group, "tpot_s.p50").mean
    steady = [measured_of(run)[cell.number].steadiness for cell in group.counted]
    in_flight = mean([each.in_flight.mean for each in steady if each])
    if not weights or not tpot_s or in_flight is None:
        return None
    roof = read_roof(run, run.starts_of(group.deployment)[0])
    return _Decode(group, in_flight, tpot_s, weights.size_bytes / 1e9, roof and roof / 1e9)


def decode(run: Run) -> Section:
    """Return the bytes of weights that decode read each second, by requests in flight."""
    known = [each for group in run.groups if (each := _decoded(run, group))]
    found = sorted(known, key=lambda each: each.in_flight)
    by_label = {name: [e for e in found if e.group.deployment == name] for name in run.deployments}
    roofs = sorted({each.roof_gb_per_s for each in found if each.roof_gb_per_s})
    most = max((e.read_gb_per_s / e.roof_gb_per_s for e in found if e.roof_gb_per_s), default=0.0)
    columns: Columns[_Decode] = {
        "deployment": lambda each: each.group.deployment,
        "load": lambda each: each.group.load,
        "in flight": lambda each: number(each.in_flight),
        "TPOT p50 ms": lambda each: number(each.tpot_s, 2, 1e3),
        "weights GB": lambda each: number(each.weights_gb, 2),
        "read GB/s": lambda each: number(each.read_gb_per_s),
        "memory gives GB/s": lambda each: number(each.roof_gb_per_s),
    }
    chart = Chart(
        "decode",
        "Weights read by decode: their size / TPOT p50",
        [_trace(looks(run)[name], own) for name, own in by_label.items() if own],
        {
            "xaxis": axis("requests in flight, mean"),
            "yaxis": axis("GB/s", rangemode="tozero"),
            **across([Limit(roof, f"memory: {roof:,.0f} GB/s") for roof in roofs]),
        },
        *filled(columns, found, lambda each: of_group(each.group)),
        "Level while few are in flight: bandwidth bounds it, and smaller weights are faster. Falling: "
        "compute, the KV cache or the queue takes over.",
        names_ends=True,
        is_wide=True,
        finding=f"Decode reads up to {100 * most:.0f} % of what the memory can give"
        if 0 < most <= 1
        else None,
    )
    return Section("Decode against bandwidth", _DECODE, [chart] if found else [])


def _trace(look: Look, found: Sequence[_Decode]) -> dict[str, Any]:
    trace = line(
        look,
        [significant(each.in_flight) for each in found],
        [significant(each.read_gb_per_s) for each in found],
        customdata=[escaped(each.group.load) for each in found],
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
        **{title: partial(_term, run, term) for term, (title, _, _) in _TERMS.items()},
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
    table = listed("By load", "", columns, rows, lambda row: of_group(row[0]))
    unread = {name: _unread(run, name) for name in run.deployments if run.server is not None}
    said = "; ".join(f"{name} ({why})" for name, why in unread.items() if why)
    note = [paragraph(f"Not read: {said}.")] if said else []
    return Section("What servers and their machine told", _TOLD, [*table, *note] if rows else [])


def _term(run: Run, term: ServerTerm, row: _Told) -> Shown:
    _, scale, per = _TERMS[term]
    if term == "preemptions":
        return number(mean([growth(run, cell, term) for cell in row[0].counted]), 0)
    if per:
        return number(pooled(run, row[0], term, per), scale=scale)
    found = mean_gauge(run, row[0], term)
    return below(number(found[0] * scale), f"peak {number(found[1] * scale)}") if found else NOTHING


def _of_device(column: str, how: str, row: _Told) -> str:
    known = row[1].get(column, pd.Series(dtype=float)).dropna()
    return number(float(known.agg(how)), 0) if len(known) else NOTHING


def _throttled(samples: pd.DataFrame) -> Shown:
    found = throttled(samples)
    return below(number(found[0], 0, 100), *found[1]) if found else NOTHING


def _unread(run: Run, name: str) -> str:
    notes = (record.memory_notes.get("server samples") for record in run.starts_of(name))
    return several([why for why in notes if why], "; ")
