"""Writes runs of two deployments with given answers to the items of tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from make_quality import Voice, with_quality
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Item
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import TASKS_FILE
from serving_bench.harness.store.quality_table import write_items
from serving_bench.reports import Run, open_run

FP16, Q4 = (deployment("llama_cpp", name) for name in ("fp16", "gguf-q4_0"))
MUTE = Voice(k=0, ways=())


def answers(scores: str, task: str = "bench-basics", prompt: str = "a") -> list[Item]:
    """Return an item for each letter: `r` is right, `w` wrong, `h` half right, `-` has no score."""
    known = {"r": 1.0, "w": 0.0, "h": 0.5}
    return [Item(task, str(number), known.get(each), each, prompt) for number, each in enumerate(scores)]


def answered(path: Path, items: Mapping[str, list[Item]], voice: Voice = MUTE, **given: Any) -> Run:
    """Write a run, of one repeat unless given, in which the deployment with 4 bits is faster, and open it."""
    repeated_run(path, [Made(Q4), Made(FP16, 1.5)], **{"repeats": 1, "requests": 3, **given})
    with_quality(path, dict.fromkeys((Q4.label, FP16.label), voice))
    for record in store.read_starts(path)[:2]:
        write_items(path / "starts" / record.name / TASKS_FILE, items.get(record.deployment.label, []))
    return open_run(path)
