"""Ollama's HTTP: what a real 0.33.0-rc2 answered (tests/data/ollama), sent again over a real socket to the
client of loads and to whole runs, and tests/support/servers/ollama_server.py, which speaks in its shapes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import CHAT, asker, streamed
from begun_run import Silent
from bench_command import bench, made, quick, told
from captured import Replay, replaying
from fake_http import fake_http
from ollama_server import DATA, PAGES, Server
from places import TESTS
from shell_script import python_program, shell_script

from serving_bench.engines.model.weights import find
from serving_bench.engines.ollama.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    Asked,
    AttachSpec,
    Deployment,
    EngineTerms,
    NativeSpec,
    Place,
    Weights,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.load.answer.chat import Decoded
from serving_bench.harness.quality.chat import greedy
from serving_bench.harness.servers import probe

QUANTIZATION = "gguf-q4_0"


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying(Replay(DATA, {**PAGES, "/api/ps": "ps"})) as server:
        yield server


def heard(replay: Replay, capture: str) -> tuple[Decoded, tuple[str, str | None]]:
    replay.answers[CHAT] = capture
    return streamed(ENGINE, replay.base_url)


def asked_greedily(replay: Replay, capture: str) -> Asked:
    """What bench reads of a captured answer when it asks for quality."""
    replay.answers[CHAT] = capture
    body = {"model": "gemma3-270m", "messages": [{"role": "user", "content": "again"}]}
    return greedy(asker(replay.base_url), CHAT, "chat", 0, body, 5)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program `ollama` as a user would have it on PATH."""
    script = TESTS / "support" / "servers" / "ollama_server.py"
    return python_program(tmp_path_factory.mktemp("bin") / "ollama", script)


def weights() -> Path:
    found = find(Weights("smollm2-135m", QUANTIZATION, "gguf"), cache_dir())
    if found is None:
        pytest.skip(f"no weights here (run `bench prepare quantization={QUANTIZATION}`)")
    return found.path


def asked(*changes: str) -> list[str]:
    return quick(*changes) if "engine=" in changes[0] else quick("engine=ollama", *changes)


def test_a_stream_is_read_with_its_usage(replay: Replay) -> None:
    decoded, outcome = heard(replay, "chat-stream")
    assert outcome == ("ok", None)
    assert decoded.text.startswith("The model is a 10-bit integer.\n")
    assert (decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens) == (15, 32, None)
    assert (decoded.finish_reason, decoded.saw_done) == ("length", True)
    # One chunk with text for each token, the first of which bears the role as well.
    assert len(decoded.chunk_ns) == 32


def test_a_longer_stream_is_read_whole(replay: Replay) -> None:
    decoded, outcome = heard(replay, "chat-eos-stream")
    assert (outcome, decoded.input_tokens, len(decoded.chunk_ns)) == (("ok", None), 15, 64)


def test_prompts_are_counted_though_lengths_are_not_heeded(replay: Replay) -> None:
    replay.answers[CHAT] = "chat-ignore-eos"
    counted = probe.count_prompt_tokens(replay.base_url, "gemma3-270m", timeout_s=20, key=None)
    assert set(counted.values()) == {15}


@pytest.mark.parametrize(("engine", "version"), [("ollama", ""), ("openai", "Ollama's API ")])
def test_a_run_tells_of_a_running_one_what_it_is_and_that_it_cut_prompts(
    tmp_path: Path, replay: Replay, engine: str, version: str
) -> None:
    # 9,000 words were sent when this was captured, and the context was 4,096.
    replay.answers[CHAT] = "chat-too-long-stream"
    place = made(tmp_path / "place")
    words = ("scenario.system_words=9000", "scenario.output_tokens=8")
    keys = asked(f"engine={engine}", "model=gemma3-270m", f"engine.base_url={replay.base_url}", *words)
    done = bench(place, "run", *keys, "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    [start], [cell] = place.starts(), place.cells().values()
    assert (start["version"], cell["status"]) == (f"{version}0.33.0-rc2+fb307609", "completed")
    assert (start["resolved"]["context_length"], start["resolved"]["weights_type"]) == (4096, "Q8_0")
    report = place.report()
    assert f"The server counted fewer input tokens than words were sent: {engine} at 1 user:" in report


def test_a_stream_that_breaks_off_is_no_answer(replay: Replay) -> None:
    # So an error looks, which Ollama leaves out of a stream: neither a reason nor an end.
    decoded, (outcome, _) = heard(replay, "abort2")
    assert (decoded.text, decoded.finish_reason, decoded.saw_done) == ("Write a very long story", None, False)
    assert outcome == "protocol_error"


def test_neutral_sampling_parameters_change_nothing(replay: Replay) -> None:
    assert heard(replay, "chat-stream")[0].text.startswith(
        asked_greedily(replay, "chat-sampling-neutral").answer
    )


def test_the_likeliest_tokens_are_read(replay: Replay) -> None:
    told = asked_greedily(replay, "chat-logprobs")
    assert (told.answer, told.prompt_tokens, told.finish_reason) == ("The model is a 1", 15, "length")
    first, *rest = told.tokens
    assert (first.name, first.logprob) == ("The", pytest.approx(-3.7196, abs=1e-4))
    assert list(first.top) == ["The", "(", "One", "A", "1"]
    assert len(rest) == 5


@pytest.mark.parametrize(
    ("capture", "said"),
    [
        ("chat-bad-json", "HTTP 400: unexpected EOF"),
        ("chat-wrong-type", "HTTP 400: json: cannot unmarshal string into Go struct field"),
        ("chat-no-messages", "HTTP 400: [] is too short - 'messages'"),
        ("chat-unknown-model", "HTTP 404: model 'nosuch' not found"),
        ("chat-unknown-model-stream", "HTTP 404: model 'nosuch' not found"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(replay: Replay, capture: str, said: str) -> None:
    _, (outcome, error) = heard(replay, capture)
    assert outcome == "http_error"
    assert str(error).startswith(said)


def test_a_model_is_found_by_its_name_without_a_tag(replay: Replay) -> None:
    replay.answers[CHAT] = "chat-stream"
    for name in ("gemma3-270m", "gemma3-270m:latest"):
        assert probe.probe_attached(AttachSpec(replay.base_url, name), None, Silent(), timeout_s=20) is None


def test_a_model_that_it_does_not_have_is_one_line(replay: Replay) -> None:
    with pytest.raises(UserError) as caught:
        probe.probe_attached(AttachSpec(replay.base_url, "llama3"), None, Silent(), timeout_s=20)
    assert str(caught.value) == (
        f"model=llama3: {replay.base_url} does not serve it; it serves gemma3-270m:latest"
    )


@pytest.mark.live
def test_a_whole_run_starts_it_and_makes_its_model_once(tmp_path: Path, program: Path) -> None:
    place, file = made(tmp_path / "place"), weights()
    weights_keys = (f"model={file}", f"quantization={QUANTIZATION}")
    keys = asked(f"ollama.program={program}", *weights_keys, "load.concurrency=2", "repeats=2")
    done = bench(place, "run", *keys, "--output", place.run_dir, ANSWER_TOKENS="9")
    assert done.returncode == 0, done.stderr
    start, _ = place.starts()
    told = {
        "concurrent_sequences": 2, "kv_cache_tokens": 8192, "kv_cache_type": "fp16",
        "attention_backend": "flash", "engine_version": "0.33.0-rc2+fb307609", "context_length": 4096,
        "weights_type": "Q8_0", "model_bytes": 326201507, "model_gpu_bytes": 0,
    }  # fmt: skip
    assert {name: start["resolved"][name] for name in told} == told
    assert start["memory_said"]["kv_cache"] == 90 << 20
    assert {"weights_begin", "weights_loaded", "engine_ready"} <= start["stages"].keys()
    assert [cell["status"] for cell in place.cells().values()] == ["completed", "completed"]
    assert "ollama" in place.report()
    logs = [path.read_text() for path in sorted(place.run_dir.glob("starts/*/server.log"))]
    assert [log.count('POST "/api/create"') for log in logs] == [1, 0]
    # What the program keeps is in bench's cache, and it is gone.
    assert (place.cache / "compiled" / "ollama" / ".ollama").is_dir()
    place.wait_until_empty()


def test_no_model_is_made_in_another_ollama_that_has_the_port(tmp_path: Path, program: Path) -> None:
    another = Server()
    before = another.models.copy()
    with fake_http(another.reply) as server:
        (tmp_path / "some.gguf").write_bytes(b"GGUF")
        place = Place(None, tmp_path / "some.gguf", "127.0.0.1", server.port, tmp_path)
        terms, options = EngineTerms(launcher="native"), Options(str(program))
        spec = ENGINE.launch(Deployment("ollama", "m", QUANTIZATION, terms, options, "label"), place)
        assert isinstance(spec, NativeSpec)
        done = subprocess.run(spec.argv, env=spec.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"Error: address already in use: 127.0.0.1:{server.port}\n")
    assert another.models == before


@pytest.mark.live
def test_a_model_that_cannot_be_made_ends_the_start(tmp_path: Path, program: Path) -> None:
    place, file = made(tmp_path / "place"), weights()
    fails = f'[ "$1" = create ] && exec {program} make; exec {program} "$@"'
    broken = shell_script(tmp_path / "ollama", fails)
    keys = asked(f"ollama.program={broken}", f"model={file}", f"quantization={QUANTIZATION}")
    done = bench(place, "run", *keys, "--output", place.run_dir)
    assert done.returncode == 1
    said = " ".join((done.stderr + done.stdout).split())
    assert 'unknown command "make" for "ollama"' in said
    assert "bench was written for Ollama 0.33" in said
    place.wait_until_empty()


def test_a_run_tells_that_a_running_one_does_not_heed_the_length_that_it_is_told(tmp_path: Path) -> None:
    running = Server(answer_tokens=9)
    with fake_http(running.reply) as server:
        place = made(tmp_path / "place")
        keys = asked("engine=openai", "model=gemma3-270m", f"engine.base_url={server.base_url}")
        done = bench(place, "run", *keys, "openai.ignore_eos=true", "--output", place.run_dir)
        sent = running.bodies[-1]
    assert done.returncode == 0, done.stderr
    assert sent["ignore_eos"] is True
    assert sent["min_tokens"] == sent["max_tokens"] > 9 + 1
    told_so = "these answers ended before it, which looks faster: openai at 1 user: "
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
    assert "no program ollama on PATH, and bench does not install it" in " ".join(done.stdout.split())
    assert done.returncode == 0
