"""What a request was, in tokens, and how well the client kept up: a row per deployment and load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.contracts import LoadSummary
from reports.charts import Section
from reports.frames import Group, Run
from reports.looks import looks, named
from reports.markup import NOTHING, Html, aggregate_cell, join, number, paragraph, shown, table, tag

_TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
_COLUMNS = (
    "deployment",
    "load",
    "input tokens",
    "output tokens",
    "cached tokens",
    "send lag p50 / max ms",
    "loop lag p99 ms",
    "stamp lag p99 ms",
    "stamps",
    "clock ± µs",
    "GC ms",
    "CPU % of a core",
    "samples missed",
)
_NOTE = (
    "Tokens: means per ok request, as the server counts them. Send lag: how late a request left. Loop lag: "
    "lateness of a 10 ms timer in the load process. Stamp lag: from the kernel's receive stamp to our "
    "reading of it. Clock: uncertainty of mapping the stamps onto the one time axis. GC and CPU: of the load "
    "process. Samples missed: of the starts' memory and processor. Over several starts, tokens and the send "
    "lag's p50 are means; the rest is the worst start's."
)


def section(run: Run) -> Section | None:
    """None where no cell was measured."""
    groups = [group for group in run.groups if any(cell.summary for cell in group.counted)]
    if not groups:
        return None
    parts: list[Html] = [paragraph(_NOTE)]
    for scenario in dict.fromkeys(group.scenario for group in groups):
        rows = [_row(run, group) for group in groups if group.scenario == scenario]
        parts += [tag("h3", scenario), table(_COLUMNS, rows, "plain client")]
    return Section("Client and tokens", join(parts))


def _row(run: Run, group: Group) -> list[Html | str]:
    summaries = [cell.summary for cell in group.counted if cell.summary]
    cores = [cell.client_cores for cell in group.counted if cell.client_cores is not None]
    return [
        named(looks(run)[group.deployment]),
        group.load,
        *(aggregate_cell(name, run.aggregate(group, name)) for name in _TOKENS),
        _send_lag(run, group),
        _worst((s.loop_lag_s[1] * 1e3 for s in summaries if s.loop_lag_s), 2),
        _worst((s.stamp_lag_s[1] * 1e3 for s in summaries if s.stamp_lag_s), 2),
        _stamps(summaries),
        _worst((s.clock_uncertainty_ns / 1e3 for s in summaries if s.clock_uncertainty_ns is not None), 2),
        _worst((s.gc_pause_s * 1e3 for s in summaries), 2),
        _worst((100 * share for share in cores), 0),
        _missed(run, group),
    ]


def _send_lag(run: Run, group: Group) -> Html:
    lags = [run.observations(cell.number, "send_lag_s") for cell in group.counted]
    found = run.aggregate(group, "send_lag_s.p50")
    worst = _worst((float(lag.max()) * 1e3 for lag in lags if len(lag)), 2)
    title = found.why or f"p50: n = {found.n:,}"
    return tag("span", f"{shown('send_lag_s.p50', found.mean)} / {worst}", title=title)


def _stamps(summaries: Sequence[LoadSummary]) -> str:
    return ", ".join(dict.fromkeys(summary.stamp_source for summary in summaries))


def _worst(values: Iterable[float], digits: int) -> str:
    return number(max(values, default=None), digits)


def _missed(run: Run, group: Group) -> str:
    """Of the starts that the group's cells were measured on."""
    records = [record for cell in group.counted if (record := run.start_of(cell))]
    samplers = {record.name: record.sampler for record in records}.values()

    def total(ending: str) -> int:
        return sum(int(v or 0) for sampler in samplers for key, v in sampler.items() if key.endswith(ending))

    return f"{total('_missed'):,} of {total('_missed') + total('_samples'):,}" if any(samplers) else NOTHING
