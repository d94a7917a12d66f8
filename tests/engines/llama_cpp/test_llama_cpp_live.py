"""The default program of llama.cpp on the real default model, and the conversions that it serves."""

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_cpp_serving import MATCHED, MODEL, Live, environment, serving, started, weights
from waiting import wait_until
from weights_steps import Workshop

from serving_bench.engines.llama_cpp.engine import ENGINE
from serving_bench.engines.model.weights import find, prepare
from serving_bench.harness.contracts import METRICS_PATH, Weights, WeightsFile
from serving_bench.harness.errors import MissingError
from serving_bench.harness.sampling.sampling import Sampling
from serving_bench.harness.servers.scrape import PageReader

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving("xllamacpp", tmp_path_factory.mktemp("server")) as live:
        yield live


def cache_with(source: WeightsFile, folder: Path) -> Path:
    """A cache that holds the source alone."""
    models = folder / "weights" / MODEL
    models.mkdir(parents=True)
    for path in (source.path, source.path.with_name(source.path.name + ".json")):
        (models / path.name).symlink_to(path)
    return folder


def test_its_counters_are_what_its_answers_say(server: Live) -> None:
    with Sampling(PageReader(server.spec.base_url, METRICS_PATH, ENGINE.metrics), hz=1.0) as sampler:
        sampler.mark()
        answers = [server.answer(f"A counted question, {part}", 24) for part in ("one", "two")]
        sampler.mark()
    assert (sampler.notes, sampler.error) == ({}, None)
    rows = sorted(sampler.rows(), key=lambda row: row.t_ns)
    assert all(getattr(row, term) is not None for row in rows for term in ENGINE.metrics)
    told = [(row.prompt_tokens, row.generated_tokens, row.prefix_hit_tokens) for row in (rows[0], rows[-1])]
    cached = sum(answer.cached_tokens for answer in answers)
    prompts = sum(answer.input_tokens for answer in answers)
    assert [after - before for before, after in zip(*told, strict=True)] == [prompts, 48, cached]
    assert max(row.running for row in rows) <= MATCHED.concurrent_sequences


@pytest.mark.alone
def test_sigterm_ends_it_while_the_model_loads(tmp_path: Path) -> None:
    with started("xllamacpp", tmp_path) as live:
        wait_until(lambda: b"loading model '" in live.log.read_bytes())
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=2) in (0, -signal.SIGTERM)
        assert b"listening on" not in live.log.read_bytes()


def test_damaged_file_ends_it_with_a_line_that_has_a_remedy(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    with weights().path.open("rb") as whole:
        damaged.write_bytes(whole.read(50_000_000))
    with started("xllamacpp", tmp_path, gguf=damaged) as live:
        assert live.process.wait(timeout=30) == 1
    damaged.unlink()
    log = live.log.read_text()
    assert [hint for hint in ENGINE.hints if re.search(hint.pattern, log)]
    # llama.cpp writes its log from a thread of its own, now and then after our last word.
    assert any("llama.cpp did not start" in line for line in log.splitlines()[-3:])


@pytest.mark.parametrize(("quantization", "said"), [("fp16", "F16"), ("gguf-q8_0", "Q8_0")])
def test_prepared_conversion_serves(tmp_path: Path, quantization: str, said: str) -> None:
    assert_serves(weights(quantization), tmp_path, said)


@pytest.mark.long
@pytest.mark.parametrize(("quantization", "said"), [("bf16", "BF16"), ("gguf-q8_0", "Q8_0")])
def test_new_conversion_serves(tmp_path: Path, quantization: str, said: str) -> None:
    cache, folder = cache_with(weights("gguf-q4_1"), tmp_path), environment("xllamacpp").folder
    wanted = Weights(MODEL, quantization, "gguf")
    made = prepare(wanted, cache, Workshop(lambda spec: folder))
    assert_serves(made, tmp_path, said)
    made.path.unlink()  # half a gigabyte


def assert_serves(made: WeightsFile, folder: Path, said: str) -> None:
    assert "made from the Q4_1 file" in str(made.notes[0])
    assert made.size_bytes == made.path.stat().st_size
    with serving("xllamacpp", folder, gguf=made.path) as live:
        assert live.answer("The capital of France is", 8).output_tokens == 8
        assert live.facts()["/props"]["model_ftype"] == said
        assert ENGINE.said(live.log.read_text(), live.facts()).terms["chat_template"] == "the file's"


def test_interrupted_conversion_is_not_taken_for_finished(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if "60 of" in line:
            raise KeyboardInterrupt

    cache, folder = cache_with(weights("gguf-q4_1"), tmp_path), environment("xllamacpp").folder
    wanted = Weights(MODEL, "gguf-q8_0", "gguf")
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted, cache, Workshop(lambda spec: folder, interrupt))
    assert find(wanted, cache) is None
    assert not list((cache / "weights" / MODEL).glob("*.part"))


def test_conversion_without_the_gguf_package_says_so(tmp_path: Path) -> None:
    cache = cache_with(weights("gguf-q4_1"), tmp_path)
    wanted = Weights(MODEL, "fp16", "gguf")
    # bench's own interpreter has no gguf package
    with pytest.raises(MissingError, match=r"could not be made[\s\S]*No module named"):
        prepare(wanted, cache, Workshop(lambda spec: Path(sys.prefix)))
