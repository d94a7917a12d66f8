"""The divergence that bench measures through the server, against that of llama.cpp's own llama-perplexity."""

import itertools
import math
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from asking import asker
from llama_cpp_serving import MATCHED, MODEL, environment, serving, weights
from places import ROOT

from serving_bench.engines.llama_cpp.engine import ENGINE
from serving_bench.harness.contracts import Ask, HttpCall, Token
from serving_bench.reports.stats.fidelity import kl_nats

pytestmark = pytest.mark.engines
TEXT = ROOT / "engines" / "model" / "calibration" / "general.txt"
WINDOW = 512
# Of each window its second half is scored, as llama-perplexity does.
FIRST = WINDOW // 2
PLACES = WINDOW - 1 - FIRST
CHUNKS = 3
KINDS = ("fp16", "gguf-q4_0")
MOST = 20
# A server that keeps one window in its cache.
TERMS = replace(MATCHED, context_length=2 * WINDOW, concurrent_sequences=1, kv_cache_tokens=2 * WINDOW)


@dataclass(frozen=True)
class Saved:
    """What llama-perplexity saved: the tokens of each window, and log-probabilities of its second half.

    `rows` (chunks x places x vocabulary): in place `p` those of the token after token FIRST + p.
    """

    tokens: np.ndarray
    rows: np.ndarray

    def own(self, chunk: int, place: int) -> float:
        return float(self.rows[chunk, place, self.tokens[chunk, FIRST + 1 + place]])

    def likeliest(self, chunk: int, place: int) -> Mapping[str, float]:
        row = self.rows[chunk, place]
        return {str(token): float(row[token]) for token in np.argsort(row)[-MOST:]}


def saved(gguf: Path, folder: Path) -> Saved:
    """Have llama-perplexity save all logits, from which the perplexity follows that it prints."""
    program = environment("llama-server").python.with_name("llama-perplexity")
    path = folder / f"{gguf.stem}.logits"
    words = [program, "-m", gguf, "-f", TEXT, "-c", WINDOW, "-b", WINDOW, "-t", 1, "--chunks", CHUNKS]
    argv = [*map(str, words), "--kl-divergence-base", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    printed = re.search(r"Final estimate: PPL = ([\d.]+)", done.stdout + done.stderr)
    assert printed
    found = read(path)
    own = [found.own(chunk, place) for chunk in range(CHUNKS) for place in range(PLACES)]
    # The file keeps what is within 16 nats of the likeliest; what is rarer looks a little likelier in it.
    assert math.exp(-np.mean(own)) == pytest.approx(float(printed[1]), rel=0.005)
    return found


def read(path: Path) -> Saved:
    """Read its file of logits. Source: llama.cpp, tools/perplexity/perplexity.cpp (process_logits)."""
    content = path.read_bytes()
    assert content[:8] == b"_logits_"
    window, vocabulary, chunks = np.frombuffer(content, np.int32, 3, 8)
    assert (window, chunks) == (WINDOW, CHUNKS)
    tokens = np.frombuffer(content, np.int32, window * chunks, 20).reshape(chunks, window)
    # A row: a scale and a lowest value as float32, then a whole number for each token.
    width = 2 * ((vocabulary + 1) // 2) + 4
    packed = np.frombuffer(content, np.uint16, offset=20 + tokens.nbytes).reshape(chunks, -1, width)
    assert packed.shape[1] == PLACES
    scale, lowest = np.moveaxis(np.ascontiguousarray(packed[..., :4]).view(np.float32), -1, 0)
    return Saved(tokens, packed[..., 4 : 4 + vocabulary] * scale[..., None] + lowest[..., None])


def texts_of(ask: Ask, tokens: np.ndarray) -> dict[int, str]:
    """The windows that come back from their text, which a window that ends in a word does not."""
    found = {}
    for chunk, ids in enumerate(tokens.tolist()):
        text = ask(HttpCall("POST", "/detokenize", {"tokens": ids}), dict[str, str])["content"]
        again = ask(
            HttpCall("POST", "/tokenize", {"content": text, "add_special": True}), dict[str, list[int]]
        )
        if again["tokens"] == ids:
            found[chunk] = text
    return found


def given(kind: str, folder: Path, tokens: np.ndarray) -> dict[int, list[Token]]:
    """What bench reads of each window through the server."""
    assert ENGINE.given_text
    folder.mkdir()
    with serving("llama-server", folder, TERMS, gguf=weights(kind).path) as live:
        ask = asker(live.spec.base_url)
        return {
            chunk: list(ENGINE.given_text(ask, MODEL, text, MOST))
            for chunk, text in texts_of(ask, tokens).items()
        }


def test_divergence_is_that_of_llama_perplexity_coarsened(tmp_path: Path) -> None:
    base, other = (saved(weights(kind).path, tmp_path) for kind in KINDS)
    assert (base.tokens == other.tokens).all()
    ours = [given(kind, tmp_path / kind, base.tokens) for kind in KINDS]
    assert len(ours[0]) >= 2
    measured, expected, whole, told, own = [], [], [], [], []
    for chunk, place in itertools.product(ours[0], range(PLACES)):
        p, q = (said[chunk][FIRST + 1 + place] for said in ours)
        assert p.name == q.name == str(base.tokens[chunk, FIRST + 1 + place])
        measured.append(kl_nats(p.top, q.top, MOST))
        expected.append(kl_nats(base.likeliest(chunk, place), other.likeliest(chunk, place), MOST))
        if p.logprob is not None:
            told.append(p.logprob)
            own.append(base.own(chunk, place))
        logs, others = base.rows[chunk, place], other.rows[chunk, place]
        whole.append(float(np.sum(np.exp(logs) * (logs - others))))
    print(
        f"{len(measured)} places: {np.mean(measured):.4f}, of llama-perplexity {np.mean(expected):.4f}",
        end="",
    )
    print(f" with {MOST} tokens and {np.mean(whole):.4f} with all; {len(told)} tokens told themselves")
    assert np.mean(measured) == pytest.approx(np.mean(expected), rel=0.02)
    # Of each token itself too, whether it is one of the likeliest or not; it cannot tell of some rare ones.
    assert len(told) > 0.98 * len(measured)
    assert np.mean(told) == pytest.approx(np.mean(own), rel=0.01)
    # Few tokens and a bucket for the others tell less.
    assert np.mean(measured) < np.mean(whole)
