"""Trust: what checks found, and what a reader needs to believe the numbers or to measure them again.

The checks are open; each other part is a line that says what it comes to, and opens.
"""

import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from harness.contracts import LoadSummary, masked, masked_argv
from reports.checks.examine import SIGN, examine, findings_of
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.samples import start_title
from reports.measures.selftest import Tested, ms, tested
from reports.measures.values import measured_of
from reports.measures.written import NOTHING, number, plural, several
from reports.page.cells import became, mean_cell
from reports.page.declared import Columns, fold, of_cells, tabled
from reports.page.drawing.charts import Section
from reports.page.grounds import fairness_part, machine_part, method_part, servers_part
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, details, join, macro, paragraph, tag
from reports.stats.steadiness import GROWTH, PARTS, Series
from reports.words.described import command

# Heading, and what it means, of findings that mark a number and of all others.
_KINDS = {
    True: (
        "Numbers that bear a mark",
        f"The values of these cells are marked {SIGN} wherever they are shown.",
    ),
    False: ("To know", "Reasons to look twice, worst first; no number is marked for them."),
}
_RESETS = {
    "reset": "emptied, and checked",
    "unchecked": "emptied, not checked",
    "failed": "not emptied",
    "none": "left as it was",
}
_CLIENT = (
    "Tokens are means per ok request, as the server counts them; where tokens per chunk are above 1, gaps "
    "of ITL are between several tokens. Send lag: how late a request left. Loop lag: lateness of a 10 ms "
    "timer in the load process. Stamp lag: from the kernel's receive stamp to our reading of it. Of lags and "
    "CPU the worst start's is shown. Re-sent: requests whose kept-alive connection had been closed. Lost: "
    "requests that a load process died with."
)
_STEADINESS = (
    f"Each window in {PARTS} equal parts, drawn from zero. Whether speed drifts is tested over all starts "
    "and told among the reasons to distrust. A queue grew: in open loop requests in flight rise by "
    f"{100 * (GROWTH - 1):.0f} % or more, part by part."
)
# Of the drawing of a window, in px.
_WIDTH, _HEIGHT = 104, 26


def checks(run: Run) -> Section:
    """Return what checks found, worst first, and what they did not find."""
    found, clean = findings_of(run), [what for what, seen in examine(run).items() if not seen]
    title = f"{plural(len(found), 'reason')} to distrust, {plural(len(clean), 'check')} found nothing"
    total = len(run.planned_cells)
    items: dict[bool, list[Html]] = {marks: [] for marks in _KINDS}
    for each in found:
        cells = several([f"{cell:03d}" for cell in each.cells])
        where = f"Cells {cells} of {total}." if 0 < len(each.cells) < total else ""
        items[each.marks].append(macro("reason", each, each.text, where))
    return Section(
        title, parts=[macro("checks", [(*_KINDS[marks], own) for marks, own in items.items()], clean)]
    )


def grounds(run: Run) -> Section:
    """Return what the numbers rest on: each part is a line that says what it comes to, and opens."""
    parts = (
        fairness_part(run),
        _client_part(run),
        _steadiness_part(run),
        _failures_part(run),
        _cells_part(run),
        _starts_part(run),
        _skipped_part(run),
        machine_part(run),
        servers_part(run),
        method_part(),
    )
    return Section("What the numbers rest on", parts=[part for part in parts if part])


def rerun(run: Run) -> Section:
    """Return the command that asks for the same settings, quoted for a shell."""
    given = tag("code", shlex.join(masked_argv(run.record.argv))) if run.record.argv else "not recorded"
    note = "Given as: ", given, ". The same settings and seed give each deployment the same conversations."
    return Section("Run it again", parts=[tag("pre", tag("code", command(run))), paragraph(join(note))])


# --- the client ------------------------------------------------------------------------------------


def _client_part(run: Run) -> Html:
    """Return how the client kept up, beside bench's own error at the nearest load of the self-test."""
    groups = [group for group in run.groups if any(cell.summary for cell in group.counted)]
    nearest = {group.key: found for group in groups if (found := _nearest(run, group))}
    claim, origin = "not measured on this machine: run `bench selftest`, and later runs quote it here", ""
    if known := run.selftest:
        claim, reach = "at no load of this run", "at no load tested was the p99 error of TTFT under 1 ms"
        if nearest:
            median_s, p99_s = max((each.error_s for each in nearest.values()), key=lambda error_s: error_s[1])
            claim = f"TTFT p50 {ms(median_s)} ms, p99 {ms(p99_s)} ms at the worst of the nearest loads tested"
        if known.largest:
            streams, rate = known.largest
            reach = f"the p99 error of TTFT stays under 1 ms up to {streams:,} streams x {rate:,.0f} chunks/s"
        origin = (
            "What bench reports minus what a server with known send times did, paired per request, on this "
            f"machine ({known.created_at[:10]}, bench {known.bench_version}): {reach}. "
            f"{'The machine was busy then. ' * known.is_of_busy_machine}{known.stopped or ''}"
        )
    has_scenarios = len({group.scenario for group in run.groups}) > 1
    columns: Columns[Group] = {
        "deployment": lambda group: named(looks(run)[group.deployment]),
        "scenario": lambda group: group.scenario if has_scenarios else "",
        "load": lambda group: group.load,
        "nearest load tested": lambda group: nearest[group.key].at if group.key in nearest else NOTHING,
        "own TTFT error p50 / p99 ms": lambda group: (
            " / ".join(map(ms, nearest[group.key].error_s)) if group.key in nearest else NOTHING
        ),
        "input tokens": partial(mean_cell, run, name="input_tokens"),
        "output tokens": partial(mean_cell, run, name="output_tokens"),
        "cached tokens": partial(mean_cell, run, name="cached_tokens"),
        "tokens per chunk": partial(mean_cell, run, name="tokens_per_chunk"),
        "send lag p50 ms": partial(mean_cell, run, name="send_lag_s.p50"),
        "loop lag p99 ms": partial(_worst, lambda load: load.loop_lag_s and 1e3 * load.loop_lag_s[1]),
        "stamp lag p99 ms": partial(_worst, lambda load: load.stamp_lag_s and 1e3 * load.stamp_lag_s[1]),
        "CPU % of a core": partial(_worst, lambda load: load.load_s and 100 * load.cpu_s / load.load_s),
        "re-sent / lost": partial(_resent_and_lost, run),
    }
    table = tabled("Client", columns, groups, lambda each: Of(each.deployment, each.load), "plain client")
    return fold("own-error", "bench's own error", claim, origin, _CLIENT if groups else "", table)


def _nearest(run: Run, group: Group) -> Tested | None:
    """Return what the self-test says of the start that streamed most."""
    found = [each for cell in group.counted if (each := tested(run, cell))]
    return max(found, key=lambda each: each.streams * each.chunks_per_s, default=None)


def _worst(show: Callable[[LoadSummary], float | None], group: Group) -> str:
    found = [show(cell.summary) for cell in group.counted if cell.summary]
    return number(max((value for value in found if value is not None), default=None))


def _resent_and_lost(run: Run, group: Group) -> str:
    sent = [run.window_requests(cell.number) for cell in group.cells if cell.record]
    resent = sum(int(frame["is_resent"].fillna(False).sum()) for frame in sent)
    lost = sum(int((frame["outcome"] == "lost").sum()) for frame in sent)
    return f"{resent:,} / {lost:,}"


def _steadiness_part(run: Run) -> Html | None:
    found = {number: seen for number, each in measured_of(run).items() if (seen := each.steadiness)}
    windows = [cell for group in run.groups for cell in group.cells if cell.number in found]
    columns: Columns[Cell] = {
        "requests in flight": lambda cell: _spark(run, cell, found[cell.number].in_flight, "in flight"),
        "queue": lambda cell: "grew" if found[cell.number].is_growing else "",
        "output": lambda cell: _spark(run, cell, found[cell.number].throughput, found[cell.number].unit),
        "drift of output": lambda cell: f"{round(100 * found[cell.number].throughput.drift) or 0:+d} %",
        "requests": lambda cell: f"{found[cell.number].requests:,}",
    }
    title = f"Steadiness of {plural(len(windows), 'window')}"
    grew = sum(found[cell.number].is_growing for cell in windows)
    claim = f"the queue grew in {grew}" if grew else "no queue grew"
    table = of_cells("Steadiness", windows, columns, "plain client")
    return fold("steadiness", title, claim, _STEADINESS, table) if windows else None


def _spark(run: Run, cell: Cell, series: Series, what: str) -> Html:
    """Draw steps over the window, from zero to its highest part."""
    top = float(series.parts.max()) or 1.0
    y = (_HEIGHT - 2 - (_HEIGHT - 4) * np.clip(series.parts, 0, None) / top).round(1)
    x = np.linspace(0, _WIDTH, PARTS + 1).round()
    points = " ".join(f"{at:g},{height:g}" for at, height in zip(x.repeat(2)[1:-1], y.repeat(2), strict=True))
    said = f"{what} over the window, {number(float(series.parts.min()))} to {number(top)}"
    return macro("spark", _WIDTH, _HEIGHT, points, looks(run)[cell.label].colour, said)


# --- what failed, and in which order it was measured -----------------------------------------------


def _failures_part(run: Run) -> Html:
    of = {cell.number: Of(cell.label, cell.load_label) for cell in run.planned_cells}
    failed = run.requests[run.requests["outcome"] != "ok"]
    kinds: list[tuple[Any, pd.DataFrame]] = list(
        failed.groupby([failed["cell"].map(of), "outcome"], sort=False)
    )
    columns: Columns[tuple[Any, pd.DataFrame]] = {
        "deployment": lambda kind: kind[0][0].deployment,
        "load": lambda kind: kind[0][0].load,
        "kind": lambda kind: kind[0][1],
        "in the window": lambda kind: f"{int(kind[1]['in_window'].fillna(False).sum()):,}",
        "in all": lambda kind: f"{len(kind[1]):,}",
        "most frequent message": lambda kind: _most_frequent(kind[1]["error"]),
    }
    claim = f"{plural(len(failed), 'request')}, left out of every latency" if kinds else "no request failed"
    return fold(
        "errors", "Failures", claim, tabled("Failures", columns, kinds, lambda kind: kind[0][0], "words")
    )


def _most_frequent(messages: pd.Series) -> Html | str:
    counts = messages.value_counts()
    return tag("code", masked(str(counts.index[0]))[:300]) if len(counts) else NOTHING


def _cells_part(run: Run) -> Html | None:
    records = [cell.record for cell in run.planned_cells if cell.record]
    modes = dict.fromkeys(record.guard_mode for record in records if record.guard_mode)
    told = [cell for cell in run.planned_cells if became(cell) != "valid" or _guard_saw(cell) or _left(cell)]
    columns: Columns[Cell] = {
        "status": became,
        "reason": lambda cell: cell.reason or NOTHING,
        "what the guard saw": _guard_saw,
        "prefix cache before it": _left,
    }
    claim = f"{len(told) or 'none'} of {len(run.planned_cells)} failed or in doubt"
    looked = f"Guard: {' and '.join(modes)}." if modes else "Nobody looked whether the machine was fit."
    return (
        fold("cells", "Cells", claim, looked, of_cells("Cells", told, columns, "words")) if records else None
    )


def _guard_saw(cell: Cell) -> str:
    return "; ".join(f"{each.text} ({each.when})" for each in cell.record.guard) if cell.record else ""


def _left(cell: Cell) -> str:
    """Return why the prefix cache may not have been empty before a cell."""
    reset = cell.record.cache_reset if cell.record else None
    return f"{_RESETS[reset.how]}: {reset.note or NOTHING}" if reset and reset.how != "reset" else ""


def _starts_part(run: Run) -> Html | None:
    ordered = sorted(run.start_records, key=lambda record: record.spawned_ns or 0)
    if not ordered:
        return None
    zero_ns = ordered[0].spawned_ns or 0
    table = tabled(
        "Order of the starts",
        {
            "start": lambda record: record.name,
            "deployment": lambda record: named(looks(run)[record.deployment.label]),
            "repeat": lambda record: start_title(run, record),
            "began, minutes": lambda record: number(((record.spawned_ns or zero_ns) - zero_ns) / 60e9, 1),
            "status": lambda record: record.status,
            "error": lambda record: record.error or "",
        },
        ordered,
        lambda record: Of(record.deployment.label, start=record.repeat + 1),
        "words",
    )
    logs = [
        details(f"End of the log of {each.name}", tag("pre", each.log_tail))
        for each in ordered
        if each.log_tail and (each.error or each.status == "failed")
    ]
    how = "interleaved" if len({record.repeat for record in ordered}) > 1 else "one after the other"
    claim = f"{plural(len(ordered), 'start')}, {how}"
    return fold("order", "Starts in their order", claim, table, *logs)


def _skipped_part(run: Run) -> Html | None:
    skips = run.record.plan.skips
    columns = {"what": lambda skip: skip.what, "why": lambda skip: skip.reason}
    table = tabled("Not run", columns, skips, look="words")
    return fold("skipped", "Not run", plural(len(skips), "combination"), table) if skips else None
