"""Measures the cost of the live panel: `python benchmarks/live.py [REPORT.json]`.

The load process pays for each request that ends (a tuple in a ring) and once a second for its progress
report, here with a full ring. bench pays for drawing the panel. Nothing is paid per chunk. Prints
microseconds of processor time, the median of REPEATS, and writes them as JSON if a file is named.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from random import Random
from statistics import median

import msgspec
from rich.console import Console

from serving_bench.harness.cli.panel import Outlook, View, panel
from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    Load,
    PlannedCell,
    PlannedStart,
    RequestRow,
    ScenarioChoice,
)
from serving_bench.harness.load.client.clock import LagHistogram
from serving_bench.harness.load.pulse import KEPT, Progress, Recent, together

REPEATS = 51
S, MS = 1_000_000_000, 1_000_000
LOAD = Load(concurrency=256, warmup_s=5.0, duration_s=30.0)


def ended(number: int, rng: Random) -> RequestRow:
    """Return a request of 100 chunks."""
    sent_ns = number * 2 * MS
    chunks = tuple(sent_ns + rng.randrange(20, 90) * MS + at * 10 * MS for at in range(100))
    return RequestRow(
        request_id="1", user=0, conversation=0, turn=0, outcome="ok", error=None, http_status=200,
        scheduled_ns=sent_ns, sent_ns=sent_ns, first_content_ns=chunks[0], last_content_ns=chunks[-1],
        end_ns=chunks[-1], chunk_ns=chunks, input_tokens=1, output_tokens=100, cached_tokens=None,
        token_source="server", max_tokens=100, finish_reason="length", output_text="",
    )  # fmt: skip


def cpu_us(work: Callable[[], object], times: int = 1) -> float:
    """Return the processor time of one call in microseconds, the median of REPEATS averages over `times`."""
    took = []
    for _ in range(REPEATS):
        began_ns = time.process_time_ns()
        for _ in range(times):
            work()
        took.append((time.process_time_ns() - began_ns) / 1e3 / times)
    return median(took)


def measured() -> dict[str, float]:
    """Return microseconds of processor time per request, per second, and per drawing."""
    rng = Random(1)
    rows = [ended(number, rng) for number in range(2 * KEPT)]
    now_ns = max(row.end_ns for row in rows)
    recent, lag = Recent(LOAD), LagHistogram()
    for row in rows:
        recent.add(row)
        lag.add(rng.randrange(1000, 2_000_000))

    def said() -> Progress:
        late_s = lag.summary_s()
        stretch = recent.stretch(0, now_ns)
        return together(
            [Progress(30.0, 1024, 3, 256, "window", {"timeout": 3}, None, late_s and late_s[1], stretch)]
        )

    console = Console(file=StringIO(), force_terminal=True, width=120)
    progress = said()
    assert progress.recent
    assert progress.recent.requests == KEPT - 1
    found = {
        "second_us": cpu_us(lambda: msgspec.json.encode(said())),
        "draw_us": cpu_us(lambda: console.print(panel(_view(progress), Outlook([], 0.0), 20.0))),
    }
    per_call_us = cpu_us(lambda: None, 10_000)
    return {"request_us": cpu_us(lambda: recent.add(rows[-1]), 10_000) - per_call_us, **found}


def _view(progress: Progress) -> View:
    scenario = ScenarioChoice("chat_multi_turn", {}, "chat_multi_turn")
    deployment = Deployment("reference", "-", "-", EngineTerms(), None, "reference")
    cell = PlannedCell(1, scenario, LOAD, 0, 1)
    start = PlannedStart(1, deployment, 0, (cell,))
    server = "200 running, 56 waiting; memory 20.0 GiB (on the device, its own)"
    return View(0.0, total=1, start=start, cell=cell, progress=progress, server=server)


def main(argv: list[str]) -> int:
    found = measured()
    print(f"a request that ended: {found['request_us']:.2f} us")
    print(f"once a second, in the load process ({KEPT} requests kept): {found['second_us']:.0f} us")
    print(f"drawing the panel once, in bench: {found['draw_us']:.0f} us")
    if argv[1:]:
        Path(argv[1]).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
