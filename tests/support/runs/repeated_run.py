"""Writes results directories of several repeats whose verdicts can be worked out by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from make_run import (
    GIB,
    MS,
    S,
    deployment,
    host_samples,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import (
    Deployment,
    Fact,
    Load,
    Plan,
    PlannedCell,
    PlannedStart,
    RequestRow,
)
from serving_bench.harness.store import store

LOADS = (Load(concurrency=1), Load(concurrency=4))
# How much slower each repeat is than the first, the same for all deployments.
BLOCKS = (1.0, 1.1, 0.95, 1.05, 0.9)


@dataclass(frozen=True)
class Made:
    """A deployment and its latencies and memory, as factors.

    `per_repeat`: a further factor of the latencies for each repeat. `text`: the answer to a conversation and
    turn. `changes`: changes of the Nth row.
    """

    deployment: Deployment
    slow: float = 1.0
    memory: float = 1.0
    per_repeat: Sequence[float] = (1.0,) * 5
    text: Callable[[int, int], str] = lambda conversation, turn: f"answer {conversation} {turn}"
    changes: Callable[[int], Mapping[str, Any]] = lambda number: {}


def repeated_run(
    path: Path,
    made: Sequence[Made],
    loads: Sequence[Load] = LOADS,
    repeats: int = 5,
    requests: int = 60,
    cell_changes: Callable[[PlannedCell, PlannedStart], Mapping[str, Any]] = lambda cell, start: {},
    start_changes: Callable[[PlannedStart], Mapping[str, Any]] = lambda start: {},
    plan: Plan | None = None,
    **run_changes: Any,
) -> Path:
    """Write a run in which each repeat starts every deployment once.

    All times of a start are multiplied by `slow`, the block's factor and the repeat's. A request's first
    chunk comes after 100 ms, nine more follow 20 ms apart, and the next request is sent 300 ms after the
    last. There are at most `requests`, none after the window. `plan`: a plan of these deployments.
    """
    plan = plan or plan_of([each.deployment for each in made], loads, repeats)
    store.write_record(path / "run.json", run_record(plan, **run_changes))
    by_label = {each.deployment.label: each for each in made}
    for start in plan.starts:
        each = by_label[start.deployment.label]
        spawned_ns = (1000 + 200 * start.index) * S
        record = start_record(start, spawned_ns)
        write_start(
            path, replace(record, **start_changes(start)), host_samples(spawned_ns, int(each.memory * GIB))
        )
        slow = each.slow * BLOCKS[start.repeat % 5] * each.per_repeat[start.repeat % 5]
        for position, cell in enumerate(start.cells):
            load_summary = summary(spawned_ns + (5 + 15 * position) * S)
            changes = cell_changes(cell, start)
            rows = [] if changes.get("status") == "failed" else _rows(each, load_summary, requests, slow)
            write_cell(path, cell, start, rows, load_summary, **changes)
    return path


def _rows(made: Made, load_summary: Any, count: int, slow: float) -> list[RequestRow]:
    rows = []
    for k in range(count):
        sent_ns = load_summary.window_start_ns + k * int(300 * MS * slow)
        if sent_ns >= load_summary.window_end_ns:
            break
        first_ns = sent_ns + int(100 * MS * slow)
        chunks = tuple(first_ns + j * int(20 * MS * slow) for j in range(10))
        text = made.text(k // 2, k % 2)
        changes = {"chunk_ns": chunks, "end_ns": chunks[-1] + MS, "output_text": text, **made.changes(k)}
        rows.append(row(k, sent_ns, **changes))
    return rows


def sentences(whys: Mapping[str, Fact]) -> dict[str, str]:
    """Return the sentence of each reason."""
    return {label: str(why) for label, why in whys.items()}


def three(noise: float = 0.01) -> list[Made]:
    """Return a baseline, a deployment 1.25 times as fast with half the memory, and one equal to the baseline.

    `noise`: how much a repeat may be slower or faster.
    """
    up, down = (1 + noise, 1.0, 1 - noise, 1.0, 1 + noise), (1.0, 1 + noise, 1.0, 1 - noise, 1.0)
    return [
        Made(deployment("llama_cpp", "fp16")),
        Made(deployment("llama_cpp", "gguf-q8_0"), 0.8, 0.5, up),
        Made(deployment("vllm", "fp16"), 1.0, 1.0, down),
    ]
