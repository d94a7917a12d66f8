"""Keep what a start said beside its load in its quality.parquet, a row per prompt or text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from engines import QUANTIZATIONS, value_bytes
from harness.contracts import Asked, Deployment, Token
from harness.errors import StoreError
from harness.store.foreign import opened_table
from harness.store.store import StartRecord
from harness.whole_files import written_whole

FILE_NAME = "quality.parquet"
# `tokens`, `logprobs` and `top` are as long as each other, a place each.
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
        "answer": pa.string(),  # not in files of earlier versions
    }
)


Bits = tuple[float, float, bool]


def reference_rank(start: StartRecord) -> tuple[Bits, bool, bool, int]:
    """Return what sorts first the start that others of its model are held against.

    The one with most bits: of a weight, then of a number in the KV cache, then float32; then fp16 before
    bf16, one that does not speculate, the largest weights.
    """
    size = start.weights.get("size_bytes")
    known = deployment_rank(start.deployment, start.quality.bits if start.quality else None)
    return *known, -size if isinstance(size, int) else 0


def deployment_rank(deployment: Deployment, bits: float | None) -> tuple[Bits, bool, bool]:
    """Return as much of that as is known before a start."""
    terms = deployment.terms
    most_bits = -(bits or 0.0), -value_bytes(terms), terms.dtype != "float32"
    is_half_otherwise = deployment.quantization != "fp16" or terms.dtype == "bfloat16"
    return most_bits, is_half_otherwise, bool(terms.speculative_tokens)


def bits_of(deployment: Deployment) -> float | None:
    """Return the bits of a weight; None where the quantization does not say."""
    kind = QUANTIZATIONS.get(deployment.quantization)
    return kind.bits_per_weight if kind else None


def without_bits(bits: Mapping[str, float | None]) -> list[str]:
    """Return whose bits are not known, of a model's deployments by label: they may have most. None where
    there is only one, which nothing is held against."""
    return [label for label, each in bits.items() if each is None] if len(bits) > 1 else []


def write_quality(path: Path, asked: Sequence[Asked]) -> None:
    """Write the rows whole or not at all; nothing if there are none."""
    if not asked:
        return
    rows = [
        {
            **vars(each),
            "tokens": [token.name for token in each.tokens],
            "logprobs": [token.logprob for token in each.tokens],
            "top": [list(token.top.items()) for token in each.tokens],
        }
        for each in asked
    ]
    with written_whole(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, QUALITY_SCHEMA), part, compression="zstd")


def read_quality(path: Path) -> list[Asked]:
    """Read the rows of a start, none where there is no file. Raises StoreError for one of another shape."""
    if not path.is_file():
        return []
    with opened_table(path, QUALITY_SCHEMA):
        # Given the schema, it makes the column that an old file lacks.
        rows = pq.read_table(path, schema=QUALITY_SCHEMA).to_pylist()
    try:
        return [_asked(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged: {error}") from error


def _asked(row: dict[str, Any]) -> Asked:
    places = zip(row.pop("tokens"), row.pop("logprobs"), row.pop("top"), strict=True)
    tokens = tuple(Token(name, logprob, dict(top)) for name, logprob, top in places)
    return msgspec.convert({**row, "tokens": tokens}, Asked)
