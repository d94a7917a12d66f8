"""Adds answers about quality to a run: answers and texts of a made-up model of 64 tokens.

Each deployment's logits are the model's plus its own noise. So the result is known: with noise of standard
deviation s the KL divergence is about s^2 / 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving_bench.harness.contracts import Asked, Fact, QualityRecord, Token, Way, quoted
from serving_bench.harness.contracts.sentences import read
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import QUALITY_FILE
from serving_bench.harness.store.quality_table import write_quality

PROMPTS, TEXTS, ANSWER_TOKENS, TEXT_TOKENS, IN_FLIGHT = 10, 12, 16, 60, 4
VOCABULARY = [f" word{number}" for number in range(64)]
BITS = {"fp16": 16.0, "bf16": 16.0, "gguf-q8_0": 8.5, "gguf-q4_k_m": 4.9, "gguf-q4_0": 4.5}
SHA256 = "5e" * 32


@dataclass(frozen=True)
class Voice:
    """How a deployment answers.

    `noise`: standard deviation of its logits from the model's. `k`: number of tokens that it names at a
    place. `ways`: how it can be asked. `changes`: applied to each of its rows.
    """

    noise: float = 0.0
    k: int = 20
    ways: Sequence[Way] = ("prompt", "chat", "again", "load", "text")
    missing: Mapping[Any, str] | None = None
    sha256: str = SHA256
    changes: Any = lambda row: row


@cache
def _logprobs(noise: float, context: tuple[int, ...]) -> np.ndarray:
    plain = np.random.default_rng(context).normal(0, 3.0, len(VOCABULARY))
    own = np.random.default_rng((*context, round(1e6 * noise))).normal(0, 1, len(VOCABULARY))
    logits = plain + noise * own
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def _token(logprobs: np.ndarray, chosen: int, names: Sequence[str], k: int) -> Token:
    likeliest = np.argsort(-logprobs)[:k]
    return Token(names[chosen], float(logprobs[chosen]), {names[at]: float(logprobs[at]) for at in likeliest})


def answer(voice: Voice, way: Way, item: int) -> Asked:
    """Return the greedy answer to a prompt."""
    return Asked(way, item, _greedy(voice.noise, voice.k, item), "length", 20 + item)


@cache
def _greedy(noise: float, k: int, item: int) -> tuple[Token, ...]:
    context, tokens = (1, item), []
    for _ in range(ANSWER_TOKENS):
        logprobs = _logprobs(noise, context)
        chosen = int(logprobs.argmax())
        tokens.append(_token(logprobs, chosen, VOCABULARY, k))
        context = (*context, chosen)
    return tuple(tokens)


@cache
def text(noise: float, k: int, item: int) -> Asked:
    """Return a given text as the model without noise might write it. Its tokens are ids."""
    rng, names, tokens = np.random.default_rng((2, item)), list(map(str, range(len(VOCABULARY)))), []
    for at in range(1, TEXT_TOKENS):
        given = int(rng.choice(len(VOCABULARY), p=np.exp(_logprobs(0.0, (2, item, at)))))
        tokens.append(_token(_logprobs(noise, (2, item, at)), given, names, k))
    return Asked("text", item, (Token("1"), *tokens))


def rows_of(voice: Voice) -> list[Asked]:
    items: dict[Way, int] = {"chat": PROMPTS, "again": 2, "load": PROMPTS}
    rows = [
        Asked("prompt", item, tuple(Token(str(each)) for each in range(20 + item)))
        for item in range(PROMPTS)
        if "prompt" in voice.ways
    ]
    rows += [answer(voice, way, item) for way, n in items.items() for item in range(n) if way in voice.ways]
    rows += [text(voice.noise, voice.k, item) for item in range(TEXTS) if "text" in voice.ways]
    return list(map(voice.changes, rows))


def ask(folder: Path, voice: Voice) -> None:
    """Write the answers of a start into its folder."""
    path = folder / "start.json"
    start = msgspec.json.decode(path.read_bytes(), type=store.StartRecord, dec_hook=read)
    bits = BITS.get(start.deployment.quantization)
    missing = {
        way: why if isinstance(why, Fact) else quoted(why) for way, why in (voice.missing or {}).items()
    }
    record = QualityRecord(voice.sha256, voice.k, 6.5, IN_FLIGHT, bits, missing)
    store.write_record(path, replace(start, quality=record))
    write_quality(folder / QUALITY_FILE, rows_of(voice))


def with_quality(path: Path, voices: Mapping[str, Voice]) -> Path:
    """Write answers for the first start of each of these deployments (by label) of a stored run."""
    for label, voice in voices.items():
        start = next(each for each in store.read_starts(path) if each.deployment.label == label)
        ask(path / "starts" / start.name, voice)
    return path
