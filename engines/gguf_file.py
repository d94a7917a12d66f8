"""Reads the header of a GGUF file: what the model is and how it is quantized. Standard library only.

Knows nothing of engines. Source: ggml's docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
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


def file_quantization(path: Path) -> str | None:
    """The quantization that a GGUF file's `general.file_type` names; None where it names none.

    Raises UserError where it is no GGUF file.
    """
    number = gguf_metadata(path).get("general.file_type")
    return FILE_TYPES.get(number, f"gguf-type-{number}") if isinstance(number, int) else None


def gguf_facts(path: Path) -> ModelFacts | None:
    """The model's shape; None where the header has it in lists, one number for each layer, or lacks it.

    Of layers with a sliding window it says nothing, so none are counted: memory is then over-estimated.
    """
    metadata = gguf_metadata(path)
    architecture = metadata.get("general.architecture")
    try:
        heads = int(metadata[f"{architecture}.attention.head_count"])
        width = int(metadata[f"{architecture}.embedding_length"])
        return ModelFacts(
            architecture=str(architecture),
            layers=int(metadata[f"{architecture}.block_count"]),
            kv_heads=int(metadata.get(f"{architecture}.attention.head_count_kv", heads)),
            head_size=int(metadata.get(f"{architecture}.attention.key_length", width // heads)),
            context_length=int(metadata[f"{architecture}.context_length"]),
        )
    except (KeyError, ValueError):
        return None


def gguf_metadata(path: Path) -> Mapping[str, int | float | bool | str]:
    """Scalars and strings of a GGUF file's header, by key; arrays are passed over.

    Little-endian, versions 2 and 3. Raises UserError where it is no such file."""
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _scalars(data)
        except (struct.error, ValueError, KeyError) as error:
            raise UserError(f"model={path}: not a GGUF file of version 2 or 3 ({error})") from error


def _scalars(data: mmap.mmap) -> dict[str, int | float | bool | str]:
    magic, version, _, count = struct.unpack_from("<4sIQQ", data, 0)
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {data[:8]!r}")
    found: dict[str, int | float | bool | str] = {}
    offset = 24
    for _ in range(count):
        key, offset = _string(data, offset)
        (kind,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if kind == ARRAY:
            offset = _after_array(data, offset)
        elif kind == STRING:
            found[key], offset = _string(data, offset)
        else:
            (found[key],) = struct.unpack_from(SCALARS[kind], data, offset)
            offset += struct.calcsize(SCALARS[kind])
    return found


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
