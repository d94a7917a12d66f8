"""bench's own error as its self-test measured it: quoted beside each load, and the ladder of loads."""

from collections.abc import Sequence

from harness.contracts import SelfTest, SelfTestStep
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.selftest import known_steps, ms, nearest_step, reached, ttft_error_s
from reports.measures.selftest import named as step_name
from reports.measures.written import NOTHING, number
from reports.page.cells import mean_cell
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, Row, details, long_table, paragraph, table, tag

_COLUMNS = (
    "deployment", "load", "streams of a process", "chunks/s of each", "nearest load tested",
    "bench's TTFT error p50 / p99 ms", "TTFT p50 ms",
)  # fmt: skip
_LADDER = (
    "streams", "chunks/s of each", "requests", "failed", "reached chunks/s", "TTFT error p50 / p99 ms",
    "ITL error p50 / p99 ms", "E2E error p50 / p99 ms", "server late p50 / p99 ms", "server kept up",
    "CPU µs per chunk",
)  # fmt: skip


def own_error(run: Run) -> list[Html]:
    """Each cell beside the nearest load of the self-test, or that there was none."""
    title = tag("h3", "bench's own error")
    selftest = run.selftest
    if selftest is None:
        said = "Not measured on this machine: run `bench selftest`, and later runs quote it here."
        return [title, paragraph(said)]
    every = "Every load of the self-test"
    ladder = details(every, table(_LADDER, map(_step_row, selftest.steps), "plain", every))
    rows = [row for group in run.groups if (row := _group_row(run, selftest, group))]
    cells = [long_table(_COLUMNS, rows, "plain client", "Client beside the self-test")] if rows else []
    return [title, paragraph(_origin(selftest)), *cells, ladder]


def _origin(selftest: SelfTest) -> str:
    """Where the figures come from, and how far they reach."""
    reach = "at no load tested was the p99 error of TTFT under 1 ms"
    if selftest.largest:
        streams, chunks_per_s = selftest.largest
        load = f"{streams:,} streams x {chunks_per_s:,.0f} chunks/s"
        reach = f"the p99 error of TTFT stays under 1 ms up to {load}"
    stopped = f" {selftest.stopped}" if selftest.stopped else ""
    return (
        "What bench reports minus what a server with known send times did, paired per request (TTFT and E2E: "
        "bench's from its sending of the request, the server's from that request's arrival), on this "
        f"machine ({selftest.created_at[:16].replace('T', ' ')}, bench {selftest.bench_version}, "
        f"{selftest.program} server, {selftest.stamp_source} stamps): {reach}.{stopped} "
        "Beside each load stands the nearest one tested; over several starts, of the one that streamed most."
    )


def _group_row(run: Run, selftest: SelfTest, group: Group) -> Row | None:
    """Of the start that streamed most."""
    loads = [load for cell in group.counted if (load := reached(run, cell))]
    if not loads or not known_steps(selftest):
        return None
    load = max(loads, key=lambda load: load.total_per_s)
    step = nearest_step(selftest, load)
    row: list[Html | str] = [
        named(looks(run)[group.deployment]),
        group.load,
        number(load.streams),
        number(load.chunks_per_s),
        step_name(step),
        _pair(ttft_error_s(step)),
        mean_cell(run, group, "ttft_s.p50"),
    ]
    return Row(row, Of(group.deployment, group.load))


def _step_row(step: SelfTestStep) -> Sequence[Html | str]:
    cpu_s = step.cpu_s_per_chunk
    return [
        f"{step.streams:,}",
        f"{step.chunks_per_s:,.0f}",
        f"{step.requests:,}",
        f"{step.failed:,}",
        f"{step.reached_chunks_per_s:,.0f}",
        _pair(step.ttft_error_s),
        _pair(step.itl_error_s),
        _pair(step.e2e_error_s),
        _pair(step.server_late_s),
        "yes" if step.server_kept_up else "no",
        number(None if cpu_s is None else cpu_s * 1e6),
    ]


def _pair(median_and_p99_s: tuple[float, float] | None) -> str:
    return " / ".join(map(ms, median_and_p99_s)) if median_and_p99_s else NOTHING
