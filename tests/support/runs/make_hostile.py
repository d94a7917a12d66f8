"""Writes a run in which every text from outside tries to break out of its place on the page."""

from dataclasses import replace
from pathlib import Path

from make_run import (
    GIB,
    HOSTILE,
    S,
    deployment,
    failed_row,
    host_samples,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import Load, Skip, quoted
from serving_bench.harness.store import store
from serving_bench.harness.store.store import Phase

# Reverses the text after it; ends a string in C; begins a colour on a terminal.
TURN, NULL, ESCAPE = "\u202e", "\x00", "\x1b[31m"
# Fills the clipboard, sets the title, clears the screen twice, rings, goes back, begins a line of its own.
MOVES = "\x1b]52;c;ZXZpbA==\x07\x1b]0;evil\x1b\\\x1b[2J\x9b2J\x07\b\b\rwinner: r\nwinner: evil is 9x faster\n"
LONG = "w" * 400
NASTY = (
    f"{HOSTILE} '\"`${{1}} {TURN}desrever\u2066 {NULL}{ESCAPE}{MOVES} </title></style>--><b>bold</b> {LONG}"
)
# A hostile text that can be a file's name: no null, no slash.
NAME = f"<img src=x onerror=document.title='pwned'> {TURN}&\"' #%2e?"
# Another one.
STRANGE_NAME = f"x{MOVES}"


def hostile_run(path: Path) -> Path:
    """Write a run of two deployments with such texts, with two starts of two loads and failed requests."""
    found = [replace(deployment(e, "fp16"), label=f"{e} {NASTY}") for e in ("llama_cpp", "vllm")]
    found[1] = replace(found[1], model=f"m {NASTY}", options={"template": NASTY})
    found[0] = replace(found[0], model=f"m {NASTY}")
    plan = plan_of(found, [Load(concurrency=1), Load(concurrency=4)], 2, (Skip(NASTY, quoted(NASTY)),))
    starts = []
    for start in plan.starts:
        cells = tuple(
            replace(cell, scenario=replace(cell.scenario, label=NASTY, options={"path": NASTY, "turns": 2}))
            for cell in start.cells
        )
        starts.append(replace(start, cells=cells))
    plan = replace(plan, starts=tuple(starts))
    environment = {"machine": {"cpu_model": NASTY}, NASTY: {NASTY: NASTY}}
    record = run_record(
        plan, environment=environment, argv=("bench", "run", NASTY), settings={"scenario.path": (NASTY,)},
        status="interrupted", run_id=NASTY, stopped_because=quoted(NASTY),
    )  # fmt: skip
    store.write_record(path / "run.json", record)
    for start in plan.starts:
        _write_start(path, start)
    return path


def _write_start(path: Path, start) -> None:
    spawned_ns = (1000 + 100 * start.index) * S
    phases = (Phase("spawned", spawned_ns), Phase(NASTY, spawned_ns + S), Phase("ready", spawned_ns + 3 * S))
    record = start_record(
        start, spawned_ns, weights={"note": NASTY}, phases=phases, argv=(NASTY,), environment={"NOTE": NASTY},
        resolved={"chat_template": NASTY, NASTY: NASTY}, version=NASTY, unmatched={"kv_cache_tokens": NASTY},
    )  # fmt: skip
    write_start(path, record, host_samples(spawned_ns, GIB))
    (path / "starts" / start.name / "server.log").write_text(NASTY, encoding="utf-8")
    for position, cell in enumerate(start.cells):
        made = summary(spawned_ns + (5 + 15 * position) * S)
        if start.index == 3 and position:
            write_cell(path, cell, start, [], None, status="failed", error=NASTY)
            continue
        rows = [row(k, made.started_ns + k * S // 4, output_text=NASTY) for k in range(40)]
        rows.append(failed_row(900, made.window_start_ns + S, error=NASTY))
        write_cell(path, cell, start, rows, made, validity="suspect", reasons=(quoted(NASTY),))
