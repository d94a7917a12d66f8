"""Reads the header of a GGUF file: what the model is and how it is quantized.

Knows no engine. Source: ggml's docs/gguf.md.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from harness.contracts import ModelFacts
from harness.errors import UserError

# general.file_type of a GGUF file. Source: llama.cpp, include/llama.h, enum llama_ftype.
FILE_TYPES: Mapping[int, str] = {
    0: "fp32",
    1: "fp16",
    2: "gguf-q4_0",
    3: "gguf-q4_1",
    7: "gguf-q8_0",
    8: "gguf-q5_0",
    9: "gguf-q5_1",
    10: "gguf-q2_k",
    11: "gguf-q3_k_s",
    12: "gguf-q3_k_m",
    13: "gguf-q3_k_l",
    14: "gguf-q4_k_s",
    15: "gguf-q4_k_m",
    16: "gguf-q5_k_s",
    17: "gguf-q5_k_m",
    18: "gguf-q6_k",
    19: "gguf-iq2_xxs",
    20: "gguf-iq2_xs",
    21: "gguf-q2_k_s",
    22: "gguf-iq3_xs",
    23: "gguf-iq3_xxs",
    24: "gguf-iq1_s",
    25: "gguf-iq4_nl",
    26: "gguf-iq3_s",
    27: "gguf-iq3_m",
    28: "gguf-iq2_s",
    29: "gguf-iq2_m",
    30: "gguf-iq4_xs",
    31: "gguf-iq1_m",
    32: "bf16",
    36: "gguf-tq1_0",
    37: "gguf-tq2_0",
    38: "gguf-mxfp4",
    39: "gguf-nvfp4",
    40: "gguf-q1_0",
}

# struct codes of GGUF's scalar types by their number.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_MOST_LAYERS = 1024  # of any model; longer arrays are of tokens
# Every n-th layer keeps all tokens, the others a window. Source: llama.cpp, src/models/<architecture>.cpp,
# set_swa_pattern; the header of newer architectures says it itself.
SLIDING_PATTERNS = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "gpt-oss": 2}


@dataclass(frozen=True)
class Header:
    """What the header of one file says.

    `values` by key: scalars, strings, and arrays of numbers that are short enough to have one for each layer.
    `lengths` of all arrays. `tensors`: names and shapes, a row's length first, of this file, which may be one
    of several.
    """

    values: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def quantization(self) -> str | None:
        """Return the quantization that `general.file_type` names; None where it names none."""
        number = self.values.get("general.file_type")
        return FILE_TYPES.get(number, f"gguf-type-{number}") if isinstance(number, int) else None

    @property
    def is_whole(self) -> bool:
        """Return whether the file is not one part of several."""
        return bool(self.values.get("split.count", 1) == 1)

    @property
    def is_stretched(self) -> bool:
        """Return whether positions are stretched, so that the context length need not be the most it can."""
        return bool(self.of_model("rope.scaling.type", "none") != "none")

    def of_model(self, key: str, default: Any = None) -> Any:
        """Return what stands under the architecture's name."""
        return self.values.get(f"{self.values.get('general.architecture')}.{key}", default)


def gguf_facts(header: Header) -> ModelFacts | None:
    """Return the model's shape.

    None where the header lacks it, or its layers differ in more than a window or a state (other counts of
    heads). Where the header does not say which layers have a sliding window, llama.cpp's own pattern for the
    architecture counts; of an unknown one none are counted, so memory is over-estimated.
    """
    said = header.of_model
    is_untied = "output.weight" in header.tensors
    is_all = header.is_whole and "token_embd.weight" in header.tensors
    try:
        layers, width = int(said("block_count")), said("embedding_length")
        heads = _alike(said("attention.head_count"))
        kv_heads = said("attention.head_count_kv", heads)
        window, sliding_layers = _sliding(header, layers)
        interval, rank = said("full_attention_interval"), said("attention.kv_lora_rank")
        linear = sum(not each for each in kv_heads) if isinstance(kv_heads, tuple) else None
        return ModelFacts(
            architecture=str(header.values["general.architecture"]),
            layers=layers,
            kv_heads=_alike(kv_heads),
            head_size=int(said("attention.key_length", width // heads)),
            context_length=int(said("context_length")),
            parameters=sum(map(prod, header.tensors.values())) or None if header.is_whole else None,
            sliding_window=window,
            sliding_layers=sliding_layers,
            linear_layers=(layers - layers // int(interval) if interval else 0) if linear is None else linear,
            latent_size=int(rank) + int(said("rope.dimension_count")) if rank else None,
            vocabulary=_vocabulary(header),
            hidden_size=int(width),
            ties_embeddings=not is_untied if is_untied or is_all else None,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _alike(value: Any) -> int:
    """Return the number that all layers have which have any. Raise ValueError where they differ."""
    different = {each for each in value if each} if isinstance(value, tuple) else {value}
    (number,) = different
    return int(number)


def _sliding(header: Header, layers: int) -> tuple[int | None, int]:
    window = header.of_model("attention.sliding_window")
    pattern = header.of_model(
        "attention.sliding_window_pattern", SLIDING_PATTERNS.get(header.values["general.architecture"])
    )
    if not window or not pattern:
        return None, 0
    if isinstance(pattern, tuple):
        return int(window), sum(map(bool, pattern))
    return int(window), layers - layers // int(pattern)


def _vocabulary(header: Header) -> int | None:
    """Return the rows of the embedding, which may be more than the tokenizer's tokens."""
    shape = header.tensors.get("token_embd.weight", ())
    if len(shape) == 2:
        return shape[1]
    return header.of_model("vocab_size") or header.lengths.get("tokenizer.ggml.tokens")


# --- the bytes -------------------------------------------------------------------------------------


def gguf_header(path: Path) -> Header:
    """Read a little-endian file of version 2 or 3. Raise UserError where it is no such file."""
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _header(_Cursor(data))
        except (struct.error, ValueError, KeyError) as error:
            raise UserError(f"model={path}: not a GGUF file of version 2 or 3 ({error})") from error


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def take(self, codes: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{codes}", self._data, self._at)
        self._at += struct.calcsize(f"<{codes}")
        return values

    def string(self) -> str:
        (length,) = self.take("Q")
        self._at += length
        if self._at > len(self._data):
            raise ValueError("it ends early")
        return self._data[self._at - length : self._at].decode("utf-8", errors="replace")

    def array(self) -> tuple[int, tuple[Any, ...] | None]:
        """Return the length of an array, and its numbers where it is short and of numbers."""
        kind, count = self.take("IQ")
        if kind == STRING:
            for _ in range(count):  # up to a million tokens: not a call for each
                self._at += 8 + struct.unpack_from("<Q", self._data, self._at)[0]
        elif count <= _MOST_LAYERS:
            return count, self.take(f"{count}{SCALARS[kind]}")
        else:
            self._at += struct.calcsize(f"<{SCALARS[kind]}") * count
        return count, None


def _header(cursor: _Cursor) -> Header:
    magic, version, tensors, count = cursor.take("4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r} and {version}")
    values: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for _ in range(count):
        key, (kind,) = cursor.string(), cursor.take("I")
        if kind == ARRAY:
            lengths[key], numbers = cursor.array()
            if numbers:
                values[key] = numbers
        else:
            values[key] = cursor.string() if kind == STRING else cursor.take(SCALARS[kind])[0]
    shapes = {}
    for _ in range(tensors):
        name, (dimensions,) = cursor.string(), cursor.take("I")
        shapes[name] = cursor.take(f"{dimensions}Q")
        cursor.take("IQ")  # its type and where its data is
    return Header(values, lengths, shapes)
