"""The client: bench's own error, how it kept up, what requests were in tokens; and steady windows."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from harness.contracts import LoadSummary, SelfTest
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.measures.selftest import Tested, ms, tested
from reports.measures.values import measured_of
from reports.measures.written import NOTHING, number, plural
from reports.page.cells import mean_cell
from reports.page.listed import Columns, fold, of_cells, tabled
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, macro
from reports.stats.steadiness import (
    DRIFT_ERRORS,
    DRIFT_SHARE,
    GROWTH,
    PARTS,
    REQUESTS_NEEDED,
    Series,
    Steadiness,
)

_HOW = (
    "Tokens are means per ok request, as the server counts them; where tokens per chunk are above 1, gaps "
    "of ITL are between chunks of so many. Send lag: how late a request left. Loop lag: lateness of a 10 ms "
    "timer in the load process. Stamp lag: from the kernel's receive stamp to our reading of it. Of lags and "
    "CPU the worst start's is shown. Re-sent: requests whose kept-alive connection had been closed. Lost: "
    "requests that a load process died with."
)
# Columns that are a metric's mean over starts, and those that are the worst start's.
_MEANS = {
    "input tokens": "input_tokens",
    "output tokens": "output_tokens",
    "cached tokens": "cached_tokens",
    "tokens per chunk": "tokens_per_chunk",
    "send lag p50 ms": "send_lag_s.p50",
}
_WORST: Mapping[str, Callable[[LoadSummary], float | None]] = {
    "loop lag p99 ms": lambda found: found.loop_lag_s and 1e3 * found.loop_lag_s[1],
    "stamp lag p99 ms": lambda found: found.stamp_lag_s and 1e3 * found.stamp_lag_s[1],
    "CPU % of a core": lambda found: found.load_s and 100 * found.cpu_s / found.load_s,
}
# Of the drawing of a window, in px.
_WIDTH, _HEIGHT = 104, 26


def client_part(run: Run) -> Html:
    """Return how the client kept up at each load, and bench's own error as this machine's self-test found it
    at the nearest one."""
    groups = [group for group in run.groups if any(cell.summary for cell in group.counted)]
    nearest = {group.key: found for group in groups if (found := _nearest(run, group))}
    claim = "at no load of this run"
    if run.selftest is None:
        claim = "not measured on this machine: run `bench selftest`, and later runs quote it here"
    elif nearest:
        median_s, p99_s = max((found.error_s for found in nearest.values()), key=lambda error_s: error_s[1])
        claim = f"TTFT p50 {ms(median_s)} ms, p99 {ms(p99_s)} ms at the worst of the nearest loads tested"
    columns = _columns(run, nearest)
    table = tabled("Client", columns, groups, lambda each: Of(each.deployment, each.load), "plain client")
    return fold("own-error", "bench's own error", claim, _origin(run.selftest), _HOW if groups else "", table)


def _nearest(run: Run, group: Group) -> Tested | None:
    """Return what the self-test says of the start that streamed most."""
    found = [each for cell in group.counted if (each := tested(run, cell))]
    return max(found, key=lambda each: each.streams * each.chunks_per_s, default=None)


def _origin(selftest: SelfTest | None) -> str:
    """Say where the figures come from, and how far they reach."""
    if selftest is None:
        return ""
    reach = "at no load tested was the p99 error of TTFT under 1 ms"
    if selftest.largest:
        streams, rate = selftest.largest
        reach = f"the p99 error of TTFT stays under 1 ms up to {streams:,} streams x {rate:,.0f} chunks/s"
    made = f"{selftest.created_at[:10]}, bench {selftest.bench_version}"
    return (
        "What bench reports minus what a server with known send times did, paired per request, on this "
        f"machine ({made}): {reach}. {selftest.stopped or ''}"
    )


def _columns(run: Run, nearest: Mapping[tuple[str, str, str], Tested]) -> Columns[Group]:
    names = {key: each.at for key, each in nearest.items()}
    errors = {key: " / ".join(map(ms, each.error_s)) for key, each in nearest.items()}
    has_scenarios = len({group.scenario for group in run.groups}) > 1
    return {
        "deployment": lambda group: named(looks(run)[group.deployment]),
        "scenario": lambda group: group.scenario if has_scenarios else "",
        "load": lambda group: group.load,
        "nearest load tested": lambda group: names.get(group.key, NOTHING),
        "own TTFT error p50 / p99 ms": lambda group: errors.get(group.key, NOTHING),
        **{title: partial(mean_cell, run, name=name) for title, name in _MEANS.items()},
        **{title: partial(_worst, show) for title, show in _WORST.items()},
        "re-sent / lost": partial(_resent_and_lost, run),
    }


def _worst(show: Callable[[LoadSummary], float | None], group: Group) -> str:
    found = [show(cell.summary) for cell in group.counted if cell.summary]
    return number(max((value for value in found if value is not None), default=None))


def _resent_and_lost(run: Run, group: Group) -> str:
    """Count requests of the windows of all the group's cells."""
    sent = [run.window_requests(cell.number) for cell in group.cells if cell.record]
    resent = sum(int(frame["is_resent"].fillna(False).sum()) for frame in sent)
    lost = sum(int((frame["outcome"] == "lost").sum()) for frame in sent)
    return f"{resent:,} / {lost:,}"


# --- steadiness ------------------------------------------------------------------------------------


def steadiness_part(run: Run) -> Html | None:
    """Return requests in flight and throughput over each window. None where no cell has a window."""
    measured = measured_of(run)
    windows = [
        (cell, found)
        for group in run.groups
        for cell in group.cells
        if cell.number in measured and (found := measured[cell.number].steadiness)
    ]
    if not windows:
        return None
    counts = Counter(_verdict(*each) for each in windows).most_common()
    claim = ", ".join(f"{count} {word}" for word, count in counts)
    said = (
        f"Each window in {PARTS} equal parts, drawn from zero; beside it the means of its first and last "
        "third. It is a check: the window was fixed before the run. "
        f"Not steady: output or requests in flight drift by more than {100 * DRIFT_SHARE:.0f} % and "
        f"{DRIFT_ERRORS:.0f} standard errors, from {REQUESTS_NEEDED} requests up. The queue grew: in open "
        f"loop requests in flight rise by {100 * (GROWTH - 1):.0f} % or more, part by part."
    )
    columns: Columns[tuple[Cell, Steadiness]] = {
        "window": lambda pair: _verdict(*pair),
        "requests in flight": lambda pair: _spark(run, pair[0], pair[1].in_flight, "in flight"),
        "first, last third": lambda pair: _thirds(pair[1].in_flight, ""),
        "output": lambda pair: _spark(run, pair[0], pair[1].throughput, pair[1].unit),
        "first, last third of it": lambda pair: _thirds(pair[1].throughput, pair[1].unit),
        "drift": lambda pair: f"{round(100 * pair[1].throughput.drift) or 0:+d} %",
        "requests": lambda pair: f"{pair[1].requests:,}",
    }
    title = f"Steadiness of {plural(len(windows), 'window')}"
    return fold("steadiness", title, claim, said, of_cells("Steadiness", windows, columns, "plain client"))


def _verdict(cell: Cell, found: Steadiness) -> str:
    if cell.load.kind == "open" and found.is_growing:
        return "queue grew"
    if cell.load.kind == "trace" or not found.is_judged:
        return "as its trace" if cell.load.kind == "trace" else "few requests"
    return "not steady" if found.is_drifting else "steady"


def _thirds(series: Series, unit: str) -> str:
    first, _, last = series.thirds
    return f"{number(first)}, {number(last)} {unit}".rstrip()


def _spark(run: Run, cell: Cell, series: Series, what: str) -> Html:
    """Draw steps over the window, from zero to its highest part."""
    top = float(series.parts.max()) or 1.0
    y = (_HEIGHT - 2 - (_HEIGHT - 4) * np.clip(series.parts, 0, None) / top).round(1)
    x = np.linspace(0, _WIDTH, PARTS + 1).round()
    points = " ".join(f"{at:g},{height:g}" for at, height in zip(x.repeat(2)[1:-1], y.repeat(2), strict=True))
    said = f"{what} over the window, {number(float(series.parts.min()))} to {number(top)}"
    return macro("spark", _WIDTH, _HEIGHT, points, looks(run)[cell.label].colour, said)
