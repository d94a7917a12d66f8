"""All three programs of llama_cpp, as `bench install` makes them, on the real default model."""

import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from llama_cpp_serving import (
    ANSWER_S,
    CHAT,
    MATCHED,
    MODEL,
    QUANTIZATION,
    Live,
    environment,
    serving,
    weights,
)
from places import ROOT

from serving_bench.engines.llama_cpp.engine import ENGINE, Options
from serving_bench.harness.contracts import METRICS_PATH, Deployment
from serving_bench.harness.servers import prefix_cache
from serving_bench.harness.servers.scrape import terms_on

# The first is the default engine; the others are compiled.
PROGRAMS = (
    pytest.param("xllamacpp", marks=pytest.mark.live),
    pytest.param("llama-server", marks=pytest.mark.engines),
    pytest.param("llama-cpp-python", marks=pytest.mark.engines),
)


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(request.param, tmp_path_factory.mktemp("server")) as live:
        yield live


@pytest.mark.parametrize("max_tokens", [1, 7, 64])
def test_answer_has_exactly_the_tokens_asked_for(server: Live, max_tokens: int) -> None:
    answer = server.answer("Once upon a time", max_tokens)
    assert answer.output_tokens == max_tokens
    assert answer.finish_reason == "length"


def test_prompt_has_the_tokens_of_the_template_in_the_file(server: Live) -> None:
    # What it puts around a single message (30, with its own system prompt: tests/data/weights), and 4 words.
    assert server.answer("Once upon a time", 1).input_tokens == 34


def test_two_requests_at_once_do_not_cut_each_other(server: Live) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda text: server.answer(text, 48), ["One day", "One night"]))
    assert [(answer.output_tokens, answer.finish_reason) for answer in answers] == [(48, "length")] * 2


def test_repeated_prompt_comes_from_the_cache(server: Live) -> None:
    first = server.answer("A quite particular question about cached prompts", 4)
    again = server.answer("A quite particular question about cached prompts", 4)
    assert again.input_tokens is not None
    assert again.input_tokens == first.input_tokens
    assert again.cached_tokens is not None
    assert again.input_tokens // 2 < again.cached_tokens < again.input_tokens


def test_its_prefix_cache_is_emptied_and_counts_that_it_was(server: Live) -> None:
    text = "A long and quite particular question about prompts that are forgotten again " * 8
    server.answer(text, 4)
    assert (server.answer(text, 4).cached_tokens or 0) > 50
    options = Options(program=server.program)
    found = prefix_cache.reset(
        ENGINE, Deployment("llama_cpp", MODEL, QUANTIZATION, MATCHED, options, "label"), server.spec
    )
    assert (found.how, found.note) == ("reset", None)
    # llama-cpp-python still has what its template puts before every prompt.
    kept = 24 if server.program == "llama-cpp-python" else 0
    assert found.cached_tokens == kept
    # In the other slot, or in the one that has read bench's own prompt since.
    assert (server.answer(text, 4).cached_tokens or 0) <= 24


def test_program_says_what_it_really_uses(server: Live) -> None:
    resolved = ENGINE.said(server.log.read_text(), server.facts()).terms
    slots = 1 if server.program == "llama-cpp-python" else 2
    expected = {
        "context_length": 512,
        "concurrent_sequences": slots,
        "kv_cache_tokens": 512 * slots,
        "kv_cache_bytes": 2 * 192 * 2 * 30 * 512 * slots,  # K and V of 192 halves, 30 layers
        "kv_cache_type": "fp16",
        "attention_backend": "plain" if server.program == "llama-cpp-python" else "flash",
        "weights_type": "Q4_0",
        "threads": 1,
        "chat_template": "the file's",
    }
    if server.program == "xllamacpp":
        expected["engine_version"] = environment("xllamacpp").versions["xllamacpp"]
    assert {term: resolved.get(term) for term in expected} == expected


@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_slots_share_a_kv_cache_of_another_size(program: str, tmp_path: Path) -> None:
    terms = replace(MATCHED, kv_cache_tokens=768, speculation="ngram", speculative_tokens=8, seed=7)
    with serving(program, tmp_path, terms) as live:
        resolved = ENGINE.said(live.log.read_text(), live.facts()).terms
        assert live.answer("Once upon a time", 16).output_tokens == 16
    told = ("context_length", "concurrent_sequences", "kv_cache_tokens", "speculative_tokens", "seed")
    assert [resolved.get(term) for term in told] == [512, 2, 768, 8, 7]


@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_nearly_all_that_a_model_drafts_for_itself_is_accepted(program: str, tmp_path: Path) -> None:
    """A step of several tokens rounds otherwise than one of one token, so some are not."""
    drafted = f"draft:{MODEL}@{QUANTIZATION}"
    terms = replace(MATCHED, kv_cache_type="q8_0", speculation=drafted, speculative_tokens=5)
    with serving(program, tmp_path, terms, draft=weights()) as live:
        assert live.answer("Once upon a time", 48).output_tokens == 48
        with live.response("GET", METRICS_PATH) as page:
            found, missing = terms_on(page.read().decode(), ENGINE.metrics)
        told = ENGINE.said(live.log.read_text(), live.facts())
    assert not missing
    assert found["drafted_tokens"] > 0
    assert found["accepted_tokens"] > 0.8 * found["drafted_tokens"]
    assert found["draft_steps"] < 48 / 2
    # K and V of 192 numbers in 30 layers, of both; the log rounds.
    kept_bytes = 2 * (2 * 192 * 34 // 32 * 30 * 512 * 2)
    assert told.terms["kv_cache_bytes"] == pytest.approx(kept_bytes, rel=1e-3)
    assert (told.terms["kv_cache_type"], told.terms["speculative_tokens"]) == ("q8_0", 5)
    assert told.memory["weights"] == pytest.approx(2 * weights().size_bytes, rel=0.05)


@pytest.mark.parametrize("program", PROGRAMS)
def test_prefix_cache_off_evaluates_each_prompt_anew(program: str, tmp_path: Path) -> None:
    with serving(program, tmp_path, replace(MATCHED, prefix_cache=False)) as live:
        live.answer("The same words", 4)
        assert live.answer("The same words", 4).cached_tokens == 0


@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_token_that_ends_an_answer_is_held_back(program: str, tmp_path: Path) -> None:
    with serving(program, tmp_path) as live:
        wants_to_end = {"logit_bias": {"2": 1000}}  # <|im_end|>
        assert live.answer("Hello", 16, **wants_to_end).output_tokens == 16
        with live.response("POST", CHAT, live.body("Hello", 16, **wants_to_end, ignore_eos=False)) as left:
            assert b'"finish_reason":"stop"' in left.read()


# llama-cpp-python takes a logit_bias beside min_tokens for neither, so its own parts are looked at.
HELD_BACK = """
import sys
sys.path.insert(0, sys.argv[1])
import llama_cpp, numpy as np
from llama_cpp_python_server import HoldBackEnds, ending_tokens
HoldBackEnds.ends = ending_tokens(llama_cpp.Llama(sys.argv[2], vocab_only=True, verbose=False))
hold = HoldBackEnds(2, 1)
for call in range(3):
    scores = hold(np.array([2]), np.zeros(262144, np.single))
    print([int(token) for token in np.flatnonzero(np.isinf(scores))])
"""


@pytest.mark.engines
def test_llama_cpp_python_holds_back_every_token_that_ends_an_answer() -> None:
    python = environment("llama-cpp-python").python
    inside = ROOT / "engines" / "inside"
    said = subprocess.run(
        [str(python), "-P", "-c", HELD_BACK, str(inside), str(weights("gguf-q4_k_m", "gemma3-270m").path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=ANSWER_S,
    )
    # <eos>, <end_of_turn> and </s>; the third token is free again.
    assert said.stdout.splitlines() == ["[1, 106, 212]", "[1, 106, 212]", "[]"]


@pytest.mark.parametrize("program", PROGRAMS[::2])
def test_sigterm_ends_it_in_the_middle_of_an_answer(program: str, tmp_path: Path) -> None:
    with serving(program, tmp_path) as live, live.response("POST", CHAT, live.body("Hello", 400)) as response:
        response.readline()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=live.spec.stop_grace_s) in (0, -signal.SIGTERM)


@pytest.mark.engines
def test_sigterm_ends_llama_server_once_its_clients_are_gone(tmp_path: Path) -> None:
    with serving("llama-server", tmp_path) as live:
        with live.response("POST", CHAT, live.body("Hello", 400)) as response:
            response.readline()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=live.spec.stop_grace_s) == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_too_little_memory_has_a_remedy(program: str, tmp_path: Path) -> None:
    # Keys and values take 184 GB.
    terms = replace(MATCHED, context_length=4_000_000, concurrent_sequences=1, kv_cache_tokens=4_000_000)
    in_four_gib = ("sh", "-c", 'ulimit -v 4194304; exec "$@"', "sh")
    with (
        pytest.raises(AssertionError, match="context"),
        serving(program, tmp_path, terms, prefix=in_four_gib),
    ):
        pass
    log = (tmp_path / "server.log").read_text()
    remedies = [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, log)]
    assert len(remedies) == 1
    assert remedies[0].startswith("Memory ran out")
