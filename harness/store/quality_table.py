"""Store the answers of a start to the questions about its quality.

quality.parquet has a row per prompt or text, tasks.parquet a row per item of a task.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from serving_bench.engines import QUANTIZATIONS, value_bytes
from serving_bench.harness.contracts import Asked, Deployment, Item, Token
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.files import read_rows, write_rows
from serving_bench.harness.store.store import StartRecord

# Columns that files of earlier versions may lack.
_LATER = ("answer",)
# `tokens`, `logprobs` and `top` have equal length: one element per position in the text.
QUALITY_SCHEMA = pa.schema(
    {
        "way": pa.string(),
        "item": pa.int64(),
        "tokens": pa.list_(pa.string()),
        "logprobs": pa.list_(pa.float64()),
        "top": pa.list_(pa.map_(pa.string(), pa.float64())),
        "finish_reason": pa.string(),
        "prompt_tokens": pa.int64(),
        "error": pa.string(),
        "answer": pa.string(),
    }
)
TASK_SCHEMA = pa.schema(
    {
        "task": pa.string(),
        "item": pa.string(),
        "score": pa.float64(),
        "answer": pa.string(),
        "prompt_sha256": pa.string(),
        "error": pa.string(),
    }
)
Bits = tuple[float, float, bool]


def reference_rank(start: StartRecord) -> tuple[Bits, bool, bool, int]:
    """Return a sort key; the start with the least key is the one that others of its model are compared with.

    It has the most bits: first per weight, then per number in the KV cache, then float32 as dtype. Ties go to
    fp16 before bf16, then to a start that does not speculate, then to the largest weights.
    """
    size = start.weights.get("size_bytes")
    rank = deployment_rank(start.deployment, start.quality.bits if start.quality else None)
    return *rank, -size if isinstance(size, int) else 0


def deployment_rank(deployment: Deployment, bits: float | None) -> tuple[Bits, bool, bool]:
    """Return the part of `reference_rank` that is known before a start."""
    terms = deployment.terms
    most_bits = -(bits or 0.0), -value_bytes(terms), terms.dtype != "float32"
    is_half_otherwise = deployment.quantization != "fp16" or terms.dtype == "bfloat16"
    return most_bits, is_half_otherwise, bool(terms.speculative_tokens)


def bits_of(deployment: Deployment) -> float | None:
    """Return the bits per weight; None if the quantization does not say."""
    kind = QUANTIZATIONS.get(deployment.quantization)
    return kind.bits_per_weight if kind else None


def without_bits(bits: Mapping[str, float | None]) -> list[str]:
    """Return the labels whose bits per weight are not known: any of them may have the most.

    `bits` are one model's deployments by label. Empty for a single one, which is compared with nothing.
    """
    return [label for label, each in bits.items() if each is None] if len(bits) > 1 else []


def write_quality(path: Path, answers: Sequence[Asked]) -> None:
    """Write the rows whole or not at all; nothing if there are none."""
    rows = [
        {
            **vars(each),
            "tokens": [token.name for token in each.tokens],
            "logprobs": [token.logprob for token in each.tokens],
            "top": [list(token.top.items()) for token in each.tokens],
        }
        for each in answers
    ]
    write_rows(path, rows, QUALITY_SCHEMA)


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Write the rows whole or not at all; nothing if there are none."""
    write_rows(path, [*map(vars, items)], TASK_SCHEMA)


def read_quality(path: Path) -> list[Asked]:
    """Read the rows of a start; none if there is no file. Raises StoreError for a file of another shape."""
    with _as_written(path):
        return [_asked(row) for row in read_rows(path, QUALITY_SCHEMA, _LATER)]


def read_items(path: Path) -> list[Item]:
    """Read the rows of a start; none if there is no file. A score that is not finite is None.

    Raises StoreError for a file of another shape.
    """
    with _as_written(path):
        return [msgspec.convert(row, Item) for row in read_rows(path, TASK_SCHEMA)]


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged: {error}") from error


def _asked(row: dict[str, Any]) -> Asked:
    places = zip(row.pop("tokens"), row.pop("logprobs"), row.pop("top"), strict=True)
    tokens = tuple(Token(name, logprob, dict(top)) for name, logprob, top in places)
    return msgspec.convert({**row, "tokens": tokens}, Asked)
