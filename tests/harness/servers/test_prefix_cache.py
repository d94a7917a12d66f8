"""A server's prefix cache is empty before each cell, by the server's own count; or the run says why not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_command import Place, bench, side_by_side
from gguf_bytes import gguf_of_type
from held_ports import held_port
from make_run import S, one_cell_run, row
from places import TESTS
from shell_script import python_program
from toy_engine import Options, Toy
from waiting import wait_until

from serving_bench.engines import ENGINES
from serving_bench.engines.llama_cpp.engine import ENGINE as LLAMA_CPP
from serving_bench.harness.contracts import (
    AttachSpec,
    CacheReset,
    Deployment,
    EngineTerms,
    HttpCall,
    NativeSpec,
    Reason,
)
from serving_bench.harness.describe.ideal import BY_CHARACTERS, BY_COUNT
from serving_bench.harness.servers import prefix_cache, probe
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import findings_of

CACHING = TESTS / "support/servers/caching_server.py"
ERASE = HttpCall("POST", "/slots/0?action=erase")
TOY = Toy(resets=[ERASE], metrics=LLAMA_CPP.metrics)
TERMS = EngineTerms(context_length=4096)
TOKENS = prefix_cache.PROMPT_WORDS


@contextmanager
def caching(mode: str = "") -> Iterator[NativeSpec]:
    """A running server, as a plan would start it."""
    with held_port() as port:
        argv = [sys.executable, str(CACHING), "--port", str(port)]
        with subprocess.Popen(argv, env={**os.environ, "CACHING_SERVER": mode}) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                wait_until(lambda: probe.request("GET", f"{url}/health", timeout_s=1).status)
                yield NativeSpec(tuple(argv), f"{url}/v1", "tiny", "/health")
            finally:
                process.kill()


def reset(spec: Any, toy: Toy = TOY, terms: EngineTerms = TERMS, *, is_proven: bool = False) -> CacheReset:
    deployment = Deployment("toy", "tiny", "fp16", terms, Options(), "toy")
    return prefix_cache.reset(toy, deployment, spec, is_proven=is_proven)


def test_the_prompt_is_read_anew_after_a_reset() -> None:
    with caching() as spec:
        assert reset(spec) == CacheReset("reset", TOKENS, 0)
        assert reset(spec) == CacheReset("reset", TOKENS, 0), "though it was cached by the first"


def test_a_reset_that_was_proven_is_shown_again_by_one_prompt() -> None:
    with caching() as spec:
        assert reset(spec, is_proven=True) == CacheReset("reset", TOKENS, 0)
        assert reset(spec, is_proven=True) == CacheReset("reset", TOKENS, 0), (
            "though it was cached by the first"
        )
    with caching("lies") as spec:
        reset(spec, is_proven=True)
        assert reset(spec, is_proven=True).how == "failed", "what is there from the first is found"


def test_a_refused_call_is_said_with_its_answer() -> None:
    with caching("refuses") as spec:
        assert reset(spec) == CacheReset(
            "failed", note='POST /slots/0?action=erase answered 501: {"id_slot": 0}'
        )


def test_a_server_that_says_ok_and_keeps_its_cache_is_found_out() -> None:
    with caching("lies") as spec:
        found = reset(spec)
    assert (found.how, found.note) == ("failed", "the prompt was still cached after the reset")
    assert found.cached_tokens == TOKENS - 16, "the last token's block is always read"


def test_a_server_that_is_still_busy_is_asked_again() -> None:
    with caching("busy") as spec:
        assert reset(spec) == CacheReset("reset", TOKENS, 0)


def test_without_a_count_nothing_is_claimed() -> None:
    with caching("silent") as spec:
        found = reset(spec)
    assert (found.how, found.cached_tokens) == ("unchecked", None)
    assert found.note is not None
    assert found.note.startswith("the server does not say")


def test_a_count_of_nothing_before_and_after_proves_nothing() -> None:
    with caching("forgets") as spec:
        found = reset(spec)
    assert (found.how, found.cached_tokens) == ("unchecked", 0)
    assert found.note is not None
    assert found.note.startswith("the server found nothing of the prompt cached before")


def test_a_short_context_gets_a_short_prompt() -> None:
    with caching() as spec:
        assert reset(spec, terms=EngineTerms(context_length=128)) == CacheReset("reset", 64, 0)
    assert len(prefix_cache.text(None).split()) == TOKENS


def test_servers_without_a_cache_or_of_others_are_left_alone() -> None:
    with caching() as spec:
        attached = reset(AttachSpec(spec.base_url, "tiny"))
        off = reset(spec, terms=replace(TERMS, prefix_cache=False))
        cannot = reset(spec, Toy())
        page = probe.request("GET", f"{probe.root_of(spec.base_url)}/metrics", timeout_s=5).text
    assert attached == CacheReset("none", note="the server is not bench's own, and may serve others")
    assert off == CacheReset("none", note="there is no prefix cache (engine.prefix_cache=false)")
    assert cannot == CacheReset("none", note="toys remember nothing")
    assert "llamacpp:prompt_tokens_total 0\n" in page, "nothing was sent"


def test_a_server_that_is_gone_fails_the_reset_only() -> None:
    with held_port() as port:
        spec = NativeSpec((), f"http://127.0.0.1:{port}/v1", "tiny", "/health")
        assert reset(spec) == CacheReset("failed", note="POST /v1/chat/completions got connection refused")


# Whole runs: two cells of a start, with the same prompts in both.
QUICK = (
    "repeats=1", "load.concurrency=1,2", "load.warmup=0s", "load.duration=500ms", "device=cpu", "guard=off",
    "scenario=file", "scenario.path=chats.jsonl", "--output", "run", "--quiet",
)  # fmt: skip


def measured(place: Place, *words: str) -> Place:
    lines = [{"prompt": " ".join(f"{k}-{j}" for j in range(200)), "max_tokens": 2} for k in range(3)]
    (place.path / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = bench(place, "run", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    return place


def own_server(place: Place) -> Place:
    """`bench run` starts it as the user's own llama-server."""
    program = python_program(place.path / "llama-server", CACHING)
    (place.path / "tiny.gguf").write_bytes(gguf_of_type(1))
    words = "engine=llama_cpp", f"llama_cpp.program={program}", "model=tiny.gguf", "quantization=fp16"
    return measured(place, *words)


def attached_to(place: Place) -> Place:
    with caching() as spec:
        return measured(place, "engine=openai", f"engine.base_url={spec.base_url}", "model=tiny")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Place]]]:
    stories = {"resetting": own_server, "attached": attached_to}
    with side_by_side(tmp_path_factory.mktemp("runs"), stories) as begun:
        yield begun


def sent_in(place: Place, cell: store.CellRecord) -> list[dict[str, Any]]:
    return store.read_requests(store.cell_dir(place.run_dir, cell.number)).to_pylist()


def not_reset(place: Place) -> list[Any]:
    return [found for found in findings_of(open_run(place.run_dir)) if found.check == "cache_not_reset"]


def test_the_same_prompts_are_new_to_each_cell_of_a_start(runs) -> None:
    place = runs["resetting"].result()
    cells = store.read_cells(place.run_dir)
    assert [cell.cache_reset for cell in cells] == [CacheReset("reset", TOKENS, 0)] * 2
    for cell in cells:
        first, *others = sent = sent_in(place, cell)
        assert (first["input_tokens"], first["cached_tokens"]) == (200, 0)
        assert first["ideal_cached_tokens"] == 0, "the ideal cache is emptied with the server's"
        # Three prompts come again and again. Each is new once, and later all of it is known.
        assert {each["ideal_cached_tokens"] for each in others} == {0, 200}
        assert [each["ideal_cached_tokens"] for each in sent].count(0) == 3
        # A new prompt has nothing to count. For the others this server does not tell how it would count.
        assert cell.ideal_by == {BY_COUNT: 3, BY_CHARACTERS: len(sent) - 3}
    assert not not_reset(place)


def test_a_cell_that_finds_an_earlier_cells_prompts_is_named(runs) -> None:
    place = runs["attached"].result()
    first, second = store.read_cells(place.run_dir)
    assert (first.status, second.status) == ("completed", "completed")
    why = "the server is not bench's own, and may serve others"
    assert second.cache_reset == CacheReset("none", note=why)
    (finding,) = not_reset(place)
    assert finding.cells == (second.number,), "the first cell of the start met no prompt of another"
    assert sent_in(place, first)[0]["ideal_cached_tokens"] == 0
    assert sent_in(place, second)[0]["ideal_cached_tokens"] == 200
    assert f"192 of 200 tokens ({why})" in finding.text


def first_found(path: Path, cached: int | None, tokens: int, reset: CacheReset | None = None) -> list[Any]:
    """The findings for two requests: the first has `cached` tokens cached, and the second nearly all."""
    first = row(0, 102 * S, input_tokens=tokens, cached_tokens=cached)
    second = row(1, 103 * S, input_tokens=tokens, cached_tokens=tokens - 1)
    # A table is in the order of sending, whatever came back first.
    one_cell_run(path / "run", [second, first], cache_reset=reset)
    return not_reset(Place(path))


def test_only_the_first_request_of_a_cell_tells(tmp_path: Path) -> None:
    failed = CacheReset("failed", note="POST /flush_cache answered 400")
    (finding,) = first_found(tmp_path / "warm", 400, 500, failed)
    assert "400 of 500 tokens (POST /flush_cache answered 400)" in finding.text
    for name, cached, tokens in (("new", 0, 500), ("template", 60, 100), ("some", 90, 500)):
        assert not first_found(tmp_path / name, cached, tokens, failed), name


def test_a_reset_that_failed_is_a_reason_where_the_first_request_does_not_say(tmp_path: Path) -> None:
    failed = CacheReset("failed", note="POST /flush_cache answered 400")
    (finding,) = first_found(tmp_path / "failed", None, 500, failed)
    assert finding.marks
    assert "could not be emptied (POST /flush_cache answered 400)" in finding.text
    for name, reset in (("cannot", CacheReset("none", note="it keeps nothing")), ("unasked", None)):
        assert not first_found(tmp_path / name, None, 500, reset)


def test_a_reset_that_nobody_could_check_marks_nothing(tmp_path: Path) -> None:
    unseen = CacheReset("unchecked", note="the server does not say how many tokens of a prompt were cached")
    assert not first_found(tmp_path / "unseen", None, 500, unseen)


@pytest.mark.parametrize("name", ["ollama", "openai", "reference", "tgi", "transformers"])
def test_an_engine_without_a_way_says_why(name: str) -> None:
    engine = ENGINES[name]
    terms, options = EngineTerms(context_length=4096, prefix_cache=True), engine.options()
    refused = engine.reset_cache(Deployment(name, "tiny", "bf16", terms, options, name))
    assert isinstance(refused, Reason)
    assert str(refused)
