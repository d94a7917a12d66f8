"""Reads the header of a GGUF file: what the model is and how it is quantized. Standard library only.

Knows nothing of engines. Source: ggml's docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

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

# struct codes of GGUF's scalar types by their number; 8 is a string, 9 an array.
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
STRING, ARRAY = 8, 9
_MOST_LAYERS = 1024  # of any model; longer arrays are of tokens
# Every n-th layer keeps all tokens, the others a window. Source: llama.cpp, src/models/<architecture>.cpp,
# set_swa_pattern; the header of newer architectures says it itself.
SLIDING_PATTERNS = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "gpt-oss": 2}
Scalar = int | float | bool | str


def file_quantization(path: Path) -> str | None:
    """The quantization that a GGUF file's `general.file_type` names; None where it names none.

    Raises UserError where it is no GGUF file.
    """
    number = gguf_metadata(path).get("general.file_type")
    return FILE_TYPES.get(number, f"gguf-type-{number}") if isinstance(number, int) else None


@dataclass(frozen=True)
class Header:
    """`scalars` and strings by key; `lengths` of its arrays; `numbers`: the arrays of numbers that are short
    enough to have one for each layer; `tensors`: names and shapes, a row's length first, of this file, which
    may be one of several."""

    scalars: Mapping[str, Scalar]
    lengths: Mapping[str, int]
    numbers: Mapping[str, tuple[int | float, ...]]
    tensors: Mapping[str, tuple[int, ...]]


def gguf_facts(path: Path) -> ModelFacts | None:
    """The model's shape; None where the header lacks it, or its layers differ in more than a window or a
    state (other counts of heads).

    Where the header does not say which layers have a sliding window, llama.cpp's own pattern for the
    architecture counts; of an unknown one none are counted: memory is then over-estimated.
    """
    header = gguf_header(path)
    said = header.scalars
    architecture = said.get("general.architecture")
    try:
        heads = _of_layers(header, f"{architecture}.attention.head_count")
        width = int(said[f"{architecture}.embedding_length"])
        layers = int(said[f"{architecture}.block_count"])
        kv_heads = _of_layers(header, f"{architecture}.attention.head_count_kv", heads)
        window, sliding_layers = _sliding(header, str(architecture), layers)
        is_whole = said.get("split.count", 1) == 1
        return ModelFacts(
            architecture=str(architecture),
            layers=layers,
            kv_heads=kv_heads,
            head_size=int(said.get(f"{architecture}.attention.key_length", width // heads)),
            context_length=int(said[f"{architecture}.context_length"]),
            parameters=sum(map(prod, header.tensors.values())) or None if is_whole else None,
            sliding_window=window,
            sliding_layers=sliding_layers,
            linear_layers=_linear_layers(header, str(architecture), layers),
            latent_size=_latent_size(header, str(architecture)),
            vocabulary=_vocabulary(header, str(architecture)),
            hidden_size=width,
            ties_embeddings=_ties_embeddings(header, is_whole),
        )
    except (KeyError, ValueError):
        return None


def _of_layers(header: Header, key: str, default: int | None = None) -> int:
    """A number that each layer has, or all that have any have alike. Raises KeyError where it is missing,
    ValueError where they differ."""
    found = header.scalars.get(key, default)
    different = {int(number) for number in header.numbers.get(key, ()) if number}
    if not different:
        if found is None:
            raise KeyError(key)
        return int(found)
    if len(different) > 1:
        raise ValueError(key)
    return different.pop()


def _sliding(header: Header, architecture: str, layers: int) -> tuple[int | None, int]:
    window = header.scalars.get(f"{architecture}.attention.sliding_window")
    if not window:
        return None, 0
    key = f"{architecture}.attention.sliding_window_pattern"
    if key in header.numbers:
        return int(window), sum(map(bool, header.numbers[key]))
    pattern = header.scalars.get(key, SLIDING_PATTERNS.get(architecture))
    return (int(window), layers - layers // int(pattern)) if pattern else (None, 0)


def _linear_layers(header: Header, architecture: str, layers: int) -> int:
    heads = header.numbers.get(f"{architecture}.attention.head_count_kv")
    if heads is not None:
        return sum(not number for number in heads)
    interval = header.scalars.get(f"{architecture}.full_attention_interval")
    return layers - layers // int(interval) if interval else 0


def _latent_size(header: Header, architecture: str) -> int | None:
    rank = header.scalars.get(f"{architecture}.attention.kv_lora_rank")
    return int(rank) + int(header.scalars[f"{architecture}.rope.dimension_count"]) if rank else None


def _vocabulary(header: Header, architecture: str) -> int | None:
    """Rows of the embedding, which may be more than the tokenizer's tokens."""
    shape = header.tensors.get("token_embd.weight")
    if shape is not None and len(shape) == 2:
        return shape[1]
    size = header.scalars.get(f"{architecture}.vocab_size")
    return int(size) if size else header.lengths.get("tokenizer.ggml.tokens")


def _ties_embeddings(header: Header, is_whole: bool) -> bool | None:
    if "output.weight" in header.tensors:
        return False
    return True if is_whole and "token_embd.weight" in header.tensors else None


def gguf_metadata(path: Path) -> Mapping[str, Scalar]:
    """Scalars and strings of a GGUF file's header, by key; else as `gguf_header`."""
    return gguf_header(path).scalars


def gguf_header(path: Path) -> Header:
    """Little-endian, versions 2 and 3. Raises UserError where it is no such file."""
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _header(data)
        except (struct.error, ValueError, KeyError) as error:
            raise UserError(f"model={path}: not a GGUF file of version 2 or 3 ({error})") from error


def _header(data: mmap.mmap) -> Header:
    magic, version, tensors, count = struct.unpack_from("<4sIQQ", data, 0)
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {data[:8]!r}")
    scalars: dict[str, Scalar] = {}
    lengths: dict[str, int] = {}
    numbers: dict[str, tuple[int | float, ...]] = {}
    offset = 24
    for _ in range(count):
        key, offset = _string(data, offset)
        (kind,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if kind == ARRAY:
            start, offset = offset, _after_array(data, offset)
            _, lengths[key] = struct.unpack_from("<IQ", data, start)
            if found := _numbers(data, start):
                numbers[key] = found
        elif kind == STRING:
            scalars[key], offset = _string(data, offset)
        else:
            (scalars[key],) = struct.unpack_from(SCALARS[kind], data, offset)
            offset += struct.calcsize(SCALARS[kind])
    return Header(scalars, lengths, numbers, dict(_tensors(data, offset, tensors)))


def _tensors(data: mmap.mmap, offset: int, count: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for _ in range(count):
        name, offset = _string(data, offset)
        (dimensions,) = struct.unpack_from("<I", data, offset)
        yield name, struct.unpack_from(f"<{dimensions}Q", data, offset + 4)
        offset += 4 + 8 * dimensions + 12  # its type and where its data is


def _string(data: mmap.mmap, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, offset)
    end = offset + 8 + length
    if end > len(data):
        raise ValueError("it ends early")
    return data[offset + 8 : end].decode("utf-8", errors="replace"), end


def _after_array(data: mmap.mmap, offset: int) -> int:
    kind, count = struct.unpack_from("<IQ", data, offset)
    offset += 12
    if kind != STRING:
        return offset + struct.calcsize(SCALARS[kind]) * int(count)
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, offset)
        offset += 8 + length
    return offset


def _numbers(data: mmap.mmap, offset: int) -> tuple[int | float, ...]:
    """The array's, where it is short and not of strings."""
    kind, count = struct.unpack_from("<IQ", data, offset)
    if kind == STRING or count > _MOST_LAYERS:
        return ()
    return struct.unpack_from(f"<{count}{SCALARS[kind][1:]}", data, offset + 12)
