"""What a request was, in tokens, and how well the client kept up: a row per deployment and load, and one per
load process where a load had several."""

from collections.abc import Iterable, Sequence

from harness.contracts import LoadSummary, WorkerSummary
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.measures.metrics import Value
from reports.measures.over_starts import aggregate
from reports.measures.values import values_of
from reports.measures.written import NOTHING, number, shown
from reports.page.cells import aggregate_cell
from reports.page.charts import Section
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, Row, join, long_table, note, table, tag
from reports.page.sections.own_error import own_error

_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "tokens_per_chunk")
_COLUMNS = (
    "deployment",
    "load",
    "input tokens",
    "output tokens",
    "cached tokens",
    "tokens per chunk",
    "send lag p50 / max ms",
    "loop / stamp lag p99 ms",
    "stamps",
    "clock ± µs",
    "GC ms",
    "CPU % of a core",
    "requests re-sent / lost",
    "samples missed",
)
_WORKER_COLUMNS = (
    "deployment",
    "load",
    "start",
    "worker",
    "pid",
    "requests",
    "loop lag p99 ms",
    "stamp lag p99 ms",
    "stamps",
    "GC ms",
    "CPU % of a core",
)
_SAMPLERS = ("host", "device")
_NOTE = note(
    "Tokens: means per ok request, as the server counts them, or load.tokenizer where it does not. Send lag: "
    "how late a request left.",
    "Tokens per chunk: where above 1, the gaps of ITL are between chunks of so many tokens. Loop lag: "
    "lateness of a 10 ms timer in the load process. Stamp lag: from the "
    "kernel's receive stamp to our reading of it. Clock: uncertainty of mapping the stamps onto the one "
    "time axis. GC and CPU: of the load processes together. Re-sent: requests whose kept-alive connection"
    " had been closed, and that were sent once more. Lost: requests that a load process died with. "
    "Samples missed: of the starts' memory and processor, due each 100 ms, with the p99 of the time from one "
    "to the next. Over several starts, tokens and the send lag's "
    "p50 are means; re-sent and lost are sums; the rest is the worst start's.",
)


def section(run: Run) -> Section | None:
    """None where no cell was measured."""
    groups = [group for group in run.groups if any(cell.summary for cell in group.counted)]
    if not groups:
        return None
    parts: list[Html] = [_NOTE]
    for scenario in dict.fromkeys(group.scenario for group in groups):
        rows = [_row(run, group) for group in groups if group.scenario == scenario]
        parts += [tag("h3", scenario), long_table(_COLUMNS, rows, "plain client", f"Client, {scenario}")]
    parts += [*_workers(run), *own_error(run)]
    return Section("Client and tokens", join(parts))


def _row(run: Run, group: Group) -> Row:
    summaries = [cell.summary for cell in group.counted if cell.summary]
    cores = [cell.client_cores for cell in group.counted if cell.client_cores is not None]
    row: list[Html | str] = [
        named(looks(run)[group.deployment]),
        group.load,
        *(aggregate_cell(name, aggregate(run, group, name)) for name in _TOKENS),
        _send_lag(run, group),
        f"{_worst((s.loop_lag_s[1] * 1e3 for s in summaries if s.loop_lag_s), 2)} / "
        f"{_worst((s.stamp_lag_s[1] * 1e3 for s in summaries if s.stamp_lag_s), 2)}",
        _stamps(summaries),
        _worst((s.clock_uncertainty_ns / 1e3 for s in summaries if s.clock_uncertainty_ns is not None), 2),
        _worst((s.gc_pause_s * 1e3 for s in summaries), 2),
        _worst((100 * share for share in cores), 0),
        _resent_and_lost(run, group),
        _sampler(run, group),
    ]
    return Row(row, Of(group.deployment, group.load))


def _send_lag(run: Run, group: Group) -> Html:
    lags = [run.observations(cell.number, "send_lag_s") for cell in group.counted]
    found = aggregate(run, group, "send_lag_s.p50")
    worst = _worst((float(lag.max()) * 1e3 for lag in lags if len(lag)), 2)
    late = _worst((1e3 * v.value for v in _p99s(run, group) if v.value is not None), 2)
    title = f"{found.why or f'p50: n = {found.n:,}'}; p99 of the worst start: {late} ms"
    return tag("span", f"{shown('send_lag_s.p50', found.mean)} / {worst}", title=title)


def _p99s(run: Run, group: Group) -> list[Value]:
    return [values_of(run)[cell.number]["send_lag_s.p99"] for cell in group.counted]


def _resent_and_lost(run: Run, group: Group) -> Html:
    """Of the windows of all the group's cells that have requests."""
    sent = [run.window_requests(cell.number) for cell in group.cells if cell.record]
    resent = sum(int(frame["is_resent"].fillna(False).sum()) for frame in sent)
    lost = sum(int((frame["outcome"] == "lost").sum()) for frame in sent)
    return join([f"{resent:,} / ", tag("span", f"{lost:,}", class_="bad" if lost else "")])


def _workers(run: Run) -> list[Html]:
    """Return a row per load process, if a cell had several."""
    rows = [
        _worker_row(run, cell, worker)
        for group in run.groups
        for cell in group.cells
        if cell.summary and len(cell.summary.workers) > 1
        for worker in cell.summary.workers
    ]
    if not rows:
        return []
    return [tag("h3", "Load processes"), table(_WORKER_COLUMNS, rows, "plain client", "Load processes")]


def _worker_row(run: Run, cell: Cell, worker: WorkerSummary) -> Row:
    row: list[Html | str] = [
        named(looks(run)[cell.label]),
        cell.load_label,
        str(cell.planned.repeat + 1),
        str(worker.number),
        str(worker.pid),
        f"{worker.requests:,}",
        number(worker.loop_lag_s[1] * 1e3 if worker.loop_lag_s else None, 2),
        number(worker.stamp_lag_s[1] * 1e3 if worker.stamp_lag_s else None, 2),
        worker.stamp_source,
        number(worker.gc_pause_s * 1e3, 2),
        number(100 * worker.cpu_s / cell.load_s if cell.load_s else None, 0),
    ]
    return Row(row, Of(cell.label, cell.load_label, start=cell.planned.repeat + 1))


def _stamps(summaries: Sequence[LoadSummary]) -> str:
    return ", ".join(dict.fromkeys(summary.stamp_source for summary in summaries))


def _worst(values: Iterable[float], digits: int) -> str:
    return number(max(values, default=None), digits)


def _sampler(run: Run, group: Group) -> Html | str:
    """Samples missed, and the longest interval p99 of a sampler, of the starts that the group's cells were
    measured on."""
    records = [record for cell in group.counted if (record := run.start_of(cell))]
    samplers = {record.name: record.sampler for record in records}.values()

    def values(ending: str) -> list[float]:
        names = [f"{name}_{ending}" for name in _SAMPLERS]
        return [float(v) for each in samplers for key in names if isinstance(v := each.get(key), int | float)]

    taken, missed = sum(values("samples")), sum(values("missed"))
    if not taken + missed:
        return NOTHING
    p99_ms = _worst((1e3 * p99_s for p99_s in values("interval_p99_s")), 0)
    main = tag("span", f"{missed:,.0f} of {taken + missed:,.0f}")
    return join([main, tag("span", f"p99 {p99_ms} ms", class_="range")])
