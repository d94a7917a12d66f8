"""Every scenario against llama.cpp's server with the default model (`make test-scenarios`)."""

import json
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from bench_command import BENCH, Place, made
from llama_cpp_serving import MODEL, QUANTIZATION, serving
from waiting import patient

from serving_bench.engines.llama_cpp.engine import ENGINE
from serving_bench.engines.model.weights import adapted
from serving_bench.harness.contracts import Adapter, Weights
from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.store import store
from serving_bench.scenarios import SCENARIOS, agent_loop, structured_output

pytestmark = pytest.mark.scenarios

# The last would give every server adapters.
APART = ("burst", "file", "trace", "long_context", "offline_batch", "lora_mix")
TOGETHER = [name for name in SCENARIOS if name not in APART]
PLAIN = ("quantization=gguf-q8_0", "repeats=1", "quality=off", "guard=off", "load.timeout=300s")
SHORT = ("load.concurrency=2", "load.warmup=0.5s", "load.duration=5s", "load.min_requests=2")
LIMIT_S = 900.0
Rows = dict[str, list[dict[str, Any]]]


def played(place: Place, *words: str) -> Rows:
    """The requests of each scenario of a run, in the order of sending."""
    done = subprocess.run(
        [BENCH, "run", *PLAIN, *words, "--output", "run", "--quiet"], cwd=place.path,
        env=place.environment(BENCH_CACHE_DIR=str(cache_dir())), capture_output=True, text=True,
        timeout=patient(LIMIT_S),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: Rows = {}
    for number, cell in place.cells().items():
        rows = store.read_requests(store.cell_dir(place.run_dir, number)).to_pylist()
        found.setdefault(cell["scenario"]["name"], []).extend(rows)
    return found


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    place = made(tmp_path_factory.mktemp("scenarios") / "here")
    return played(place, f"scenario={','.join(TOGETHER)}", *SHORT)


@pytest.mark.parametrize("name", TOGETHER)
def test_a_scenario_is_answered(together: Rows, name: str) -> None:
    seen = {row["outcome"] for row in together[name]}
    assert seen <= {"ok", "left"}, [row["error"] for row in together[name] if row["error"]]
    assert "ok" in seen


def test_a_schema_is_kept_where_the_server_is_held_to_it(together: Rows) -> None:
    schemas = {
        form.name: form.schema for form in structured_output.forms(structured_output.SCENARIO.options())
    }
    whole = [row for row in together["structured_output"] if row["finish_reason"] == "stop"]
    assert whole
    for row in whole:
        assert json.loads(row["output_text"]).keys() == set(schemas[row["form"]]["required"])


def test_each_step_of_an_agent_calls_a_tool_by_grammar(together: Rows) -> None:
    """SmolLM2's own chat template leaves tools out, so that bench gives llama.cpp another."""
    steps = together["agent_loop"]
    assert {row["form"] for row in steps} == {agent_loop.FORM.name}
    whole = [row for row in steps if row["finish_reason"] == "tool_calls"]
    assert whole
    for row in whole:
        [call] = json.loads(row["calls"])
        [tool] = [tool for tool in agent_loop.FORM.tools if tool.name == call["name"]]
        assert list(json.loads(call["arguments"])) == tool.parameters["required"]
    assert max(row["turn"] for row in steps) >= 1
    first, second = (next(row for row in steps if row["turn"] == turn) for turn in (0, 1))
    assert second["input_tokens"] > first["input_tokens"] + 40


def test_a_shared_prefix_is_read_once(together: Rows) -> None:
    first, *later = [row for row in together["shared_prefix"] if row["outcome"] == "ok"]
    assert first["cached_tokens"] < 200
    assert median(row["cached_tokens"] for row in later[1:]) > 800


def test_depths_to_4096_tokens(tmp_path: Path) -> None:
    words = ("scenario=long_context", "scenario.least_tokens=1024", "scenario.most_tokens=4096")
    more = ("engine.context_length=8192", "load.concurrency=1", "load.conversations=3", "load.min_requests=3")
    [rows] = played(made(tmp_path / "here"), *words, *more, "load.warmup=0s").values()
    assert [row["outcome"] for row in rows[:3]] == ["ok"] * 3
    for row, depth in zip(rows[:3], (1024, 2048, 4096), strict=True):
        assert row["input_tokens"] == pytest.approx(depth, rel=0.1)


def test_a_file_and_a_trace_are_answered(tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"prompt": "What is bread made of?", "max_tokens": 8}\n')
    own = ("scenario=file", f"scenario.path={chats}", "load.conversations=3", "load.min_requests=3")
    [rows] = played(made(tmp_path / "file"), *own, "load.concurrency=1", "load.warmup=0s").values()
    assert [row["outcome"] for row in rows[:3]] == ["ok"] * 3
    trace = tmp_path / "trace.jsonl"
    line = '{{"timestamp": {}, "input_length": {}, "output_length": 8, "hash_ids": [1]}}\n'
    trace.write_text(line.format(0, 300) + line.format(500, 400))
    own = ("scenario=trace", f"scenario.path={trace}")
    [first, second] = next(iter(played(made(tmp_path / "trace"), *own).values()))
    assert (first["outcome"], second["outcome"]) == ("ok", "ok")
    assert (second["scheduled_ns"] - first["scheduled_ns"]) / 1e6 == pytest.approx(500, abs=1)
    assert second["output_tokens"] == 8


def test_a_burst_and_a_batch_are_answered(tmp_path: Path) -> None:
    burst = ("scenario=burst", "scenario.quiet=2s", "scenario.burst=6", "scenario.after=4s")
    [rows] = played(made(tmp_path / "burst"), *burst).values()
    assert [row["outcome"] for row in rows] == ["ok"] * 12
    batch = ("scenario=offline_batch", "load.arrival=batch", "load.conversations=8")
    [rows] = played(made(tmp_path / "batch"), *batch).values()
    assert [row["outcome"] for row in rows] == ["ok"] * 8


def test_requests_for_three_adapters_are_answered(tmp_path: Path) -> None:
    place = made(tmp_path / "here")
    words = ("scenario=lora_mix", "scenario.adapters=3", "scenario.zipf=0", "load.conversations=9")
    lengths = ("scenario.input_tokens=32", "scenario.output_tokens=8", "llama_cpp.threads=1")
    more = ("load.concurrency=2", "load.warmup=0s", "load.min_requests=9")
    [rows] = played(place, *words, *lengths, *more).values()
    assert [row["outcome"] for row in rows] == ["ok"] * len(rows)
    assert {row["group"] for row in rows} == {0, 1, 2}
    [log] = place.run_dir.glob("starts/*/server.log")
    assert log.read_text(errors="replace").count("loading lora adapter") == 3


@pytest.mark.parametrize("program", ["xllamacpp", "llama-server"])
def test_each_adapter_changes_the_answer_and_none_does_unless_asked_for(program: str, tmp_path: Path) -> None:
    of = Weights(MODEL, QUANTIZATION, "gguf")
    adapters = tuple(adapted(Adapter(f"random-{number}"), of, cache_dir()) for number in range(3))
    asked = [{}, *(ENGINE.adapter_fields(each.name, place) for place, each in enumerate(adapters)), {}]
    with serving(program, tmp_path, adapters=adapters) as live:
        said = [live.answer("Tell me a story about a lighthouse.", 24, **fields).text for fields in asked]
    assert said[0] == said[4]
    assert len(set(said)) == 4, said
