"""The client: bench's own error, what requests were in tokens, how well it kept up, and steady windows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from harness.contracts import LoadSummary, SelfTest, SelfTestStep
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.measures.over_starts import aggregate
from reports.measures.selftest import Reached, known_steps, ms, nearest_step, reached, ttft_error_s
from reports.measures.selftest import named as step_name
from reports.measures.values import measured_of, values_of
from reports.measures.written import NOTHING, number, plural, shown
from reports.page.cells import mean_cell
from reports.page.drawing.charts import Block, Part
from reports.page.listed import Columns, fold, tabled
from reports.page.looks import Look, looks, named
from reports.page.markup import Html, Of, join, note, paragraph, tag
from reports.stats.steadiness import (
    DRIFT_ERRORS,
    DRIFT_SHARE,
    GROWTH,
    PARTS,
    REQUESTS_NEEDED,
    Series,
    Steadiness,
)

_WIDTH, _HEIGHT = 104, 26


def _about(group: Group) -> Of:
    return Of(group.deployment, group.load)


def _of(cell: Cell) -> Of:
    return Of(cell.label, cell.load_label, start=cell.planned.repeat + 1)


# --- bench's own error -----------------------------------------------------------------------------


def own_error_part(run: Run) -> Html:
    """Return each load beside the nearest one that the self-test of this machine measured."""
    title, selftest = "bench's own error", run.selftest
    if selftest is None:
        said = "not measured on this machine: run `bench selftest`, and later runs quote it here"
        return fold("own-error", title, said)
    every = "Every load of the self-test"
    ladder = Block(every, [tabled(every, _LADDER, selftest.steps, look="plain")], is_folded=True)
    found = [(group, load) for group in run.groups if (load := _most(run, group))]
    steps = known_steps(selftest)
    if not found or not steps:
        return fold("own-error", title, "at no load of this run", paragraph(_origin(selftest)), ladder)
    worst = max((nearest_step(selftest, load) for _, load in found), key=lambda step: ttft_error_s(step)[1])
    table = tabled(
        "Client beside the self-test",
        {
            "deployment": lambda pair: named(looks(run)[pair[0].deployment]),
            "load": lambda pair: pair[0].load,
            "streams of a process": lambda pair: number(pair[1].streams),
            "chunks/s of each": lambda pair: number(pair[1].chunks_per_s),
            "nearest load tested": lambda pair: step_name(nearest_step(selftest, pair[1])),
            "bench's TTFT error p50 / p99 ms": lambda pair: _pair(
                nearest_step(selftest, pair[1]).ttft_error_s
            ),
            "TTFT p50 ms": lambda pair: mean_cell(run, pair[0], "ttft_s.p50"),
        },
        found,
        lambda pair: _about(pair[0]),
        "plain client",
    )
    median_s, p99_s = ttft_error_s(worst)
    claim = f"TTFT p50 {ms(median_s)} ms, p99 {ms(p99_s)} ms at the worst of the nearest loads tested"
    return fold("own-error", title, claim, paragraph(_origin(selftest)), table, ladder)


def _most(run: Run, group: Group) -> Reached | None:
    """Return the load of the start that streamed most."""
    loads = [load for cell in group.counted if (load := reached(run, cell))]
    return max(loads, key=lambda load: load.total_per_s, default=None)


def _origin(selftest: SelfTest) -> str:
    """Say where the figures come from, and how far they reach."""
    reach = "at no load tested was the p99 error of TTFT under 1 ms"
    if selftest.largest:
        streams, chunks_per_s = selftest.largest
        reach = (
            f"the p99 error of TTFT stays under 1 ms up to {streams:,} streams x {chunks_per_s:,.0f} chunks/s"
        )
    stopped = f" {selftest.stopped}" if selftest.stopped else ""
    return (
        "What bench reports minus what a server with known send times did, paired per request, on this "
        f"machine ({selftest.created_at[:16].replace('T', ' ')}, bench {selftest.bench_version}, "
        f"{selftest.program} server, {selftest.stamp_source} stamps): {reach}.{stopped}"
    )


def _pair(median_and_p99_s: tuple[float, float] | None) -> str:
    return " / ".join(map(ms, median_and_p99_s)) if median_and_p99_s else NOTHING


_LADDER: Columns[SelfTestStep] = {
    "streams": lambda step: f"{step.streams:,}",
    "chunks/s of each": lambda step: f"{step.chunks_per_s:,.0f}",
    "requests": lambda step: f"{step.requests:,}",
    "failed": lambda step: f"{step.failed:,}",
    "reached chunks/s": lambda step: f"{step.reached_chunks_per_s:,.0f}",
    "TTFT error p50 / p99 ms": lambda step: _pair(step.ttft_error_s),
    "ITL error p50 / p99 ms": lambda step: _pair(step.itl_error_s),
    "E2E error p50 / p99 ms": lambda step: _pair(step.e2e_error_s),
    "server late p50 / p99 ms": lambda step: _pair(step.server_late_s),
    "server kept up": lambda step: "yes" if step.server_kept_up else "no",
    "CPU µs per chunk": lambda step: number(_scaled(step.cpu_s_per_chunk, 1e6)),
}


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


# --- how it kept up --------------------------------------------------------------------------------


def client_part(run: Run) -> Html | None:
    """Return a row per deployment and load. None where no cell was measured."""
    groups = [group for group in run.groups if any(cell.summary for cell in group.counted)]
    if not groups:
        return None
    lags_s = [s.loop_lag_s[1] for group in groups for s in _summaries(group) if s.loop_lag_s]
    cores = [cores for group in groups for cell in group.counted if (cores := cell.client_cores) is not None]
    claim = f"used {number(max(cores, default=None), 2)} of a core at most, its loop late by "
    claim += f"{number(_scaled(max(lags_s, default=None), 1e3), 2)} ms (p99, worst start)"
    said = note(
        "Tokens are means per ok request, as the server counts them. Send lag: how late a request left. Over "
        "several starts tokens and the send lag's p50 are means, re-sent and lost are sums; the rest is the "
        "worst start's.",
        "Tokens per chunk: where above 1, the gaps of ITL are between chunks of so many tokens. Loop lag: "
        "lateness of a 10 ms timer in the load process. Stamp lag: from the kernel's receive stamp to our "
        "reading of it. Clock: uncertainty of mapping the stamps onto the one time axis. GC and CPU: of "
        "the load processes together. Re-sent: requests whose kept-alive connection had been closed. "
        "Lost: requests that a load process died with.",
    )
    parts: list[Part] = [said]
    for scenario in dict.fromkeys(group.scenario for group in groups):
        own = [group for group in groups if group.scenario == scenario]
        parts.append(tabled(f"Client, {scenario}", _columns(run), own, _about, "plain client"))
    return fold("client", "The client", claim, *parts)


def _columns(run: Run) -> Columns[Group]:
    return {
        "deployment": lambda group: named(looks(run)[group.deployment]),
        "load": lambda group: group.load,
        "input tokens": lambda group: mean_cell(run, group, "input_tokens"),
        "output tokens": lambda group: mean_cell(run, group, "output_tokens"),
        "cached tokens": lambda group: mean_cell(run, group, "cached_tokens"),
        "tokens per chunk": lambda group: mean_cell(run, group, "tokens_per_chunk"),
        "send lag p50 / max ms": partial(_send_lag, run),
        "loop / stamp lag p99 ms": lambda group: " / ".join(
            _worst((1e3 * lag[1] for s in _summaries(group) if (lag := getattr(s, name))), 2)
            for name in ("loop_lag_s", "stamp_lag_s")
        ),
        "stamps": lambda group: ", ".join(dict.fromkeys(s.stamp_source for s in _summaries(group))),
        "clock ± µs": lambda group: _worst(
            (ns / 1e3 for s in _summaries(group) if (ns := s.clock_uncertainty_ns) is not None), 2
        ),
        "GC ms": lambda group: _worst((1e3 * s.gc_pause_s for s in _summaries(group)), 2),
        "CPU % of a core": lambda group: _worst(
            (100 * cores for cell in group.counted if (cores := cell.client_cores) is not None), 0
        ),
        "requests re-sent / lost": partial(_resent_and_lost, run),
    }


def _summaries(group: Group) -> list[LoadSummary]:
    return [cell.summary for cell in group.counted if cell.summary]


def _worst(values: Iterable[float], digits: int) -> str:
    return number(max(values, default=None), digits)


def _send_lag(run: Run, group: Group) -> Html:
    lags = [run.observations(cell.number, "send_lag_s") for cell in group.counted]
    found = aggregate(run, group, "send_lag_s.p50")
    worst = _worst((1e3 * float(lag.max()) for lag in lags if len(lag)), 2)
    p99s = [values_of(run)[cell.number]["send_lag_s.p99"].value for cell in group.counted]
    late = _worst((1e3 * value for value in p99s if value is not None), 2)
    title = f"{found.why or f'p50: n = {found.n:,}'}; p99 of the worst start: {late} ms"
    return tag("span", f"{shown('send_lag_s.p50', found.mean)} / {worst}", title=title)


def _resent_and_lost(run: Run, group: Group) -> Html:
    """Count those of the windows of all the group's cells."""
    sent = [run.window_requests(cell.number) for cell in group.cells if cell.record]
    resent = sum(int(frame["is_resent"].fillna(False).sum()) for frame in sent)
    lost = sum(int((frame["outcome"] == "lost").sum()) for frame in sent)
    return join([f"{resent:,} / ", tag("span", f"{lost:,}", class_="bad" if lost else "")])


# --- steadiness ------------------------------------------------------------------------------------


def steadiness_part(run: Run) -> Html | None:
    """Return requests in flight and throughput over each window. None where no cell has a window."""
    windows = [
        (cell, found)
        for group in run.groups
        for cell in group.cells
        if cell.number in measured_of(run) and (found := measured_of(run)[cell.number].steadiness)
    ]
    if not windows:
        return None
    counts = Counter(_verdict(*each)[0] for each in windows)
    claim = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    said = note(
        f"Each window in {PARTS} equal parts, drawn from zero; beside it the means of its first and last "
        "third. It is a check: the window was fixed before the run.",
        "Drift: of the output, last third against first. Not steady: output or requests in flight drift "
        f"by more than {100 * DRIFT_SHARE:.0f} % and by more than {DRIFT_ERRORS:.0f} standard errors, "
        f"from {REQUESTS_NEEDED} requests up. The queue grew: in open loop requests in flight rise by "
        f"{100 * (GROWTH - 1):.0f} % or more, part by part.",
    )
    columns: Columns[tuple[Cell, Steadiness]] = {
        "deployment": lambda pair: named(looks(run)[pair[0].label]),
        "load": lambda pair: pair[0].load_label,
        "window": lambda pair: tag("span", _verdict(*pair)[0], class_=_verdict(*pair)[1]),
        "start": lambda pair: str(pair[0].planned.repeat + 1),
        "requests in flight": lambda pair: _spark(pair[1].in_flight, looks(run)[pair[0].label], "in flight"),
        "first, last third": lambda pair: _thirds(pair[1].in_flight, ""),
        "output": lambda pair: _spark(pair[1].throughput, looks(run)[pair[0].label], pair[1].unit),
        "first, last third of it": lambda pair: _thirds(pair[1].throughput, pair[1].unit),
        "drift": lambda pair: f"{round(100 * pair[1].throughput.drift) or 0:+d} %",
        "requests": lambda pair: f"{pair[1].requests:,}",
    }
    table = tabled("Steadiness", columns, windows, lambda pair: _of(pair[0]), "plain client")
    return fold("steadiness", f"Steadiness of {plural(len(windows), 'window')}", claim, said, table)


def _thirds(series: Series, unit: str) -> str:
    first, _, last = series.thirds
    return f"{number(first)}, {number(last)} {unit}".rstrip()


def _verdict(cell: Cell, found: Steadiness) -> tuple[str, str]:
    """Return it in words, and the class that colours them."""
    if cell.load.kind == "open" and found.is_growing:
        return "queue grew", "bad"
    if cell.load.kind == "trace":
        return "as its trace", ""
    if not found.is_judged:
        return "few requests", ""
    return ("not steady", "warn") if found.drifts else ("steady", "")


def _spark(series: Series, look: Look, what: str) -> Html:
    """Draw steps over the window, from zero to its highest part."""
    top = float(series.parts.max()) or 1.0
    heights = _HEIGHT - 2 - (_HEIGHT - 4) * np.clip(series.parts, 0, None) / top
    xs = np.linspace(0, _WIDTH, PARTS + 1)
    steps: Sequence[tuple[float, float, float]] = list(zip(xs, xs[1:], heights, strict=False))
    points = " ".join(f"{left:.0f},{y:.1f} {right:.0f},{y:.1f}" for left, right, y in steps)
    said = f"{what} over the window, {number(float(series.parts.min()))} to {number(top)}"
    return Html(
        f'<svg class="spark" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{said}"><title>{said}</title><line x1="0" x2="{_WIDTH}" y1="{_HEIGHT - 1}" '
        f'y2="{_HEIGHT - 1}"/><polyline points="{points}" style="stroke:var({look.colour})"/></svg>'
    )
