"""Serves pages of facts with odd values, and measures runs at such servers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from begun_run import Silent
from fake_http import Answer, Request, chat, fake_http, page
from make_run import S, row, summary, write_cell
from places import TESTS

from serving_bench.harness.cli.commands.planning import planned
from serving_bench.harness.run.start import bring_up, hear_out, new_record, wait_ready
from serving_bench.harness.run.watch import Site
from serving_bench.harness.sampling import environment
from serving_bench.harness.sampling.guard import Guard
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store

DATA = TESTS / "data"
# What each engine's servers say, with all of their pages in one.
PAGES: dict[str, dict[str, Any]] = {
    "llama_cpp": json.loads((DATA / "llama_cpp/llama-server-11434.0.0.props.json").read_text()),
    "ollama": {
        "version": "0.33.0",
        "models": [
            {"context_length": 4096, "size": 9, "size_vram": 0, "details": {"quantization_level": "Q8_0"}}
        ],
    },
    "openai": {
        "owned_by": "tabbyAPI",
        "id": "m",
        "parameters": {
            "max_seq_len": 4096, "max_batch_size": 4, "cache_size": 8192, "cache_mode": "Q8",
            "prompt_template": "chatml",
        },
    },
    "reference": {"context_length": 4096, "slots": 2},
    "sglang": json.loads((DATA / "sglang/server_info_cpu.json").read_text()),
    "tgi": {"version": "3.3.6-dev0", "sha": "db9", "docker_label": "sha-db9", "max_total_tokens": 2048},
    "transformers": json.loads((DATA / "transformers/info.json").read_text()),
    "vllm": {"version": "0.32.0", "data": [{"id": "m", "max_model_len": 2048}]},
}  # fmt: skip
ODD = (
    {"a": 1}, [1, "x"], "odd", 1.5, True, None, 2**70, float("nan"), "\ud800", [], -1, 1e308, "x" * 9999,
    "\x1b]52;c;x\a\u202e<script>", {"deep": [[[{}]]]},
)  # fmt: skip


def varied(page: Any, odd: Iterator[Any]) -> Iterator[Any]:
    """Yield copies of the page, each with one of its values replaced by an odd one."""
    yield next(odd)
    steps = page.items() if isinstance(page, dict) else enumerate(page) if isinstance(page, list) else ()
    for step, inner in steps:
        for other in varied(inner, odd):
            copy = page.copy()
            copy[step] = other
            yield copy


def all_odd(page: Any, turn: int) -> Any:
    """Return the page with an odd value in each place. Over all turns each value comes to each place."""
    if isinstance(page, dict):
        return {key: all_odd(each, turn + at) for at, (key, each) in enumerate(page.items())}
    if isinstance(page, list):
        return [all_odd(each, turn + at) for at, each in enumerate(page)]
    return ODD[turn % len(ODD)]


def odd(facts: Any) -> Callable[[Request], Answer]:
    """Answer a chat, and every other question with these facts."""
    answer = chat("one two", prompt_tokens=7, completion_tokens=2)
    return lambda request: answer if request.method == "POST" else page(facts)


def odd_run(path: Path, engine: str, pages: list[Any]) -> Path:
    """Write a run of an attached server, one start with each of the pages.

    bench's own code reads the pages and writes the records; only the requests are made up.
    """
    with fake_http(odd(None)) as server:
        words = [f"engine={engine}", f"engine.base_url={server.base_url}"]
        words += ["model=m", "load.concurrency=1", "device=cpu"]
        settings = config.settings(overrides.parse(words))
        plan = planned(settings)
        site = Site(path, path / "cache", (), Guard("off", 0, Silent()), Silent())
        record = store.RunRecord(
            store.SCHEMA_VERSION, "odd", "2026-01-02T03:04:05+00:00", ("bench",), settings.given, plan,
            environment.facts(), "completed", "2026-01-02T03:14:05+00:00",
        )  # fmt: skip
        store.write_record(path / "run.json", record)
        first = plan.starts[0]
        for index in range(max(len(pages), len(plan.starts))):
            server.reply = odd(pages[min(index, len(pages) - 1)])
            start = replace(first, index=first.index + index)
            kept = new_record(start, site)
            with bring_up(start, site, kept) as up:
                wait_ready(up, site)
                hear_out(up)
            kept.update(status="completed")
    for start in plan.starts:
        for cell in start.cells:
            measured = summary((1000 + 20 * cell.number) * S)
            rows = [row(k, measured.window_start_ns + k * S // 2) for k in range(16)]
            write_cell(path, cell, start, rows, measured)
    return path
