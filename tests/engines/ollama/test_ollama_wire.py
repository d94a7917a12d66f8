"""Ollama's HTTP: what a real 0.33.0-rc2 answered (tests/data/ollama), sent again over a real socket, and
whole runs against a program that speaks in its shapes (tests/support/servers/ollama_server.py)."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from bench_command import bench, made, quick, told
from ollama_server import Server, bound
from places import TESTS
from served import served

from engines.model.weights import find
from engines.ollama.engine import ENGINE, Options
from harness.contracts import Asked, AttachSpec, HttpCall, Turn, Weights
from harness.errors import UserError
from harness.install.install import cache_dir
from harness.load.answer import openai
from harness.load.answer.chat import Decoded, classify, decode
from harness.quality.chat import greedy
from harness.servers import probe

CHAT = "/v1/chat/completions"
QUANTIZATION = "gguf-q4_0"
T = TypeVar("T")


@dataclass(frozen=True)
class Ollama:
    port: int
    state: Server

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def post(self, raw: bytes) -> tuple[int, bytes, str | None]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("POST", CHAT, raw, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers["content-type"]

    def chat(self, capture: str) -> tuple[Decoded, tuple[str, str | None]]:
        """What bench makes of a captured answer to the request that bench sends."""
        self.state.replays["again"] = capture
        turn = Turn((), 32)
        fields = ENGINE.request_fields(turn, Options(), "matched")
        body = openai.API.request("gemma3-270m", turn, (), fields)
        body["messages"] = [{"role": "user", "content": "again"}]
        status, answer, kind = self.post(json.dumps(body).encode())
        decoded = decode(answer, [1], [len(answer)])
        return decoded, classify(status, answer, decoded, kind)

    def greedy(self, capture: str) -> Asked:
        """What bench reads of a captured answer when it asks for quality."""
        self.state.replays["again"] = capture

        def ask(call: HttpCall, kind: type[T]) -> T:
            return msgspec.json.decode(self.post(msgspec.json.encode(call.body))[1], type=kind)

        body = {"model": "gemma3-270m", "messages": [{"role": "user", "content": "again"}]}
        return greedy(ask, CHAT, "chat", 0, body, 5)


@contextmanager
def serving(state: Server | None = None) -> Iterator[Ollama]:
    state = state or Server()
    with served(bound(state)) as port:
        yield Ollama(port, state)


@pytest.fixture(scope="module")
def ollama() -> Iterator[Ollama]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program `ollama` as a user would have it on PATH."""
    path = tmp_path_factory.mktemp("bin") / "ollama"
    script = TESTS / "support" / "servers" / "ollama_server.py"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    path.chmod(0o755)
    return path


def weights() -> Path:
    found = find(Weights("smollm2-135m", QUANTIZATION, "gguf"), cache_dir())
    if found is None:
        pytest.skip(f"no weights here (run `bench prepare quantization={QUANTIZATION}`)")
    return found.path


def asked(*changes: str) -> list[str]:
    keys = quick(*changes) if "engine=" in changes[0] else quick("engine=ollama", *changes)
    return [key for key in keys if not key.startswith("reference.")]


def test_a_stream_is_read_with_its_usage(ollama: Ollama) -> None:
    decoded, outcome = ollama.chat("chat-stream")
    assert outcome == ("ok", None)
    assert decoded.text.startswith("The model is a 10-bit integer.\n")
    assert (decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens) == (15, 32, None)
    assert (decoded.finish_reason, decoded.saw_done) == ("length", True)
    # One chunk with text for each token, the first of which bears the role as well.
    assert len(decoded.chunk_ns) == 32


def test_a_prompt_that_was_cut_looks_like_any_other(ollama: Ollama) -> None:
    # 9,000 words were sent, and the context was 4,096.
    decoded, outcome = ollama.chat("chat-too-long-stream")
    assert (outcome, decoded.input_tokens) == (("ok", None), 2051)


def test_a_stream_that_breaks_off_is_no_answer(ollama: Ollama) -> None:
    # So an error looks, which Ollama leaves out of a stream: neither a reason nor an end.
    decoded, (outcome, _) = ollama.chat("abort2")
    assert (decoded.text, decoded.finish_reason, decoded.saw_done) == ("Write a very long story", None, False)
    assert outcome == "protocol_error"


def test_neutral_sampling_parameters_change_nothing(ollama: Ollama) -> None:
    assert ollama.chat("chat-stream")[0].text.startswith(ollama.greedy("chat-sampling-neutral").answer)


def test_the_likeliest_tokens_are_read(ollama: Ollama) -> None:
    told = ollama.greedy("chat-logprobs")
    assert (told.answer, told.prompt_tokens, told.finish_reason) == ("The model is a 1", 15, "length")
    first, *rest = told.tokens
    assert (first.name, first.logprob) == ("The", pytest.approx(-3.7196, abs=1e-4))
    assert list(first.top) == ["The", "(", "One", "A", "1"]
    assert len(rest) == 5


@pytest.mark.parametrize(
    ("raw", "status", "said"),
    [
        (b'{"model": "gemma3-270m", "messages', 400, "unexpected EOF"),
        (b'{"model":"gemma3-270m","max_tokens":"x"}', 400, "cannot unmarshal string into Go struct field"),
        (b'{"model":"gemma3-270m","messages":[]}', 400, "[] is too short - 'messages'"),
        (b'{"model":"no","messages":[{"role":"user","content":"x"}]}', 404, "model 'no' not found"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(ollama: Ollama, raw: bytes, status: int, said: str) -> None:
    answered, body, kind = ollama.post(raw)
    assert answered == status
    outcome, error = classify(answered, body, decode(body, [1], [len(body)]), kind)
    assert outcome == "http_error"
    assert said in str(error)


def test_a_model_is_found_by_its_name_without_a_tag(ollama: Ollama) -> None:
    for name in ("gemma3-270m", "gemma3-270m:latest"):
        assert probe.probe_attached(AttachSpec(ollama.base_url, name), None, timeout_s=20) is None


def test_a_model_that_it_does_not_have_is_one_line(ollama: Ollama) -> None:
    with pytest.raises(UserError) as caught:
        probe.probe_attached(AttachSpec(ollama.base_url, "llama3"), None, timeout_s=20)
    assert str(caught.value) == (
        f"model=llama3: {ollama.base_url} does not serve it; it serves gemma3-270m:latest"
    )


@pytest.mark.live
def test_a_whole_run_starts_it_and_makes_its_model(tmp_path: Path, program: Path) -> None:
    place, file = made(tmp_path / "place"), weights()
    weights_keys = (f"model={file}", f"quantization={QUANTIZATION}")
    keys = asked(f"ollama.program={program}", *weights_keys, "load.concurrency=2")
    done = bench(place, "run", *keys, "--output", place.run_dir, ANSWER_TOKENS="9")
    assert done.returncode == 0, done.stderr
    [start] = place.starts()
    assert start["resolved"] == {
        "concurrent_sequences": 2,
        "attention_backend": "flash attention auto",
        "engine_version": "0.33.0-rc2+fb307609",
        "context_length": 4096,
        "weights_type": "Q8_0",
        "model_bytes": 326201507,
        "model_gpu_bytes": 0,
    }
    assert {"weights_begin", "weights_loaded", "engine_ready"} <= start["stages"].keys()
    [cell] = place.cells().values()
    assert cell["status"] == "completed"
    assert "ollama" in place.report()
    # What the program keeps is in bench's cache, and it is gone.
    assert (place.cache / "compiled" / "ollama" / ".ollama").is_dir()
    place.wait_until_empty()


@pytest.mark.live
def test_a_model_that_cannot_be_made_ends_the_start(tmp_path: Path, program: Path) -> None:
    place, file = made(tmp_path / "place"), weights()
    broken = tmp_path / "ollama"
    broken.write_text(f'#!/bin/sh\n[ "$1" = create ] && exec {program} make; exec {program} "$@"\n')
    broken.chmod(0o755)
    keys = asked(f"ollama.program={broken}", f"model={file}", f"quantization={QUANTIZATION}")
    done = bench(place, "run", *keys, "--output", place.run_dir)
    assert done.returncode == 1
    said = " ".join((done.stderr + done.stdout).split())
    assert 'unknown command "make" for "ollama"' in said
    assert "bench knows those of Ollama 0.33" in said
    place.wait_until_empty()


def test_a_run_measures_a_running_one_and_tells_that_it_cut_prompts(tmp_path: Path) -> None:
    with serving(Server(context_length=64, answer_tokens=20)) as running:
        place = made(tmp_path / "place")
        keys = asked("model=gemma3-270m", f"engine.base_url={running.base_url}")
        done = bench(place, "run", *keys, "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    [start] = place.starts()
    assert start["version"] == "0.33.0-rc2+fb307609"
    assert start["resolved"]["context_length"] == 64
    [cell] = place.cells().values()
    assert cell["status"] == "completed"
    assert "The server counts fewer input tokens than words were sent: ollama at 1 user:" in place.report()


def test_a_run_tells_that_a_running_one_does_not_heed_the_length_that_it_is_told(tmp_path: Path) -> None:
    with serving(Server(answer_tokens=9)) as running:
        place = made(tmp_path / "place")
        keys = asked("engine=openai", "model=gemma3-270m", f"engine.base_url={running.base_url}")
        done = bench(place, "run", *keys, "openai.ignore_eos=true", "--output", place.run_dir)
        sent = running.state.bodies[-1]
    assert done.returncode == 0, done.stderr
    assert sent["ignore_eos"] is True
    assert sent["min_tokens"] == sent["max_tokens"] > 9 + 1
    told_so = "these ended of themselves: openai at 1 user: "
    assert told_so in place.report()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("ollama.program=/no/ollama",), "ollama.program=/no/ollama: no file that can be executed"),
        (("ollama.program=llama",), "ollama.program=llama: no such program; give ollama, or the path of"),
    ],
)
def test_a_wrong_program_is_one_line(tmp_path: Path, keys: tuple[str, ...], said: str) -> None:
    place = made(tmp_path / "place")
    done = told(place, "plan", *asked("model=smollm2-135m", f"quantization={QUANTIZATION}", *keys))
    assert done.returncode == 2
    assert said in done.stderr
    assert "\n" not in done.stderr.strip()


def test_without_a_program_the_plan_leaves_it_out_and_says_why(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    keys = asked("engine=ollama,llama_cpp", "model=smollm2-135m", f"quantization={QUANTIZATION}")
    done = told(place, "plan", *keys, PATH="/nowhere")
    said = " ".join(done.stdout.split())
    assert "no program ollama on PATH, and bench does not install it" in said
    assert done.returncode == 0
