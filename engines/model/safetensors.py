"""Read the header of a safetensors file, and check it against the file.

Source: safetensors, README, "Format", and tensor.rs.
"""

import os
import re
import struct
from math import inf, prod
from pathlib import Path
from typing import Any

from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import opened, value_of

# A longer header is not valid. Source: MAX_HEADER_SIZE.
_MAX_HEADER_BYTES = 100_000_000
_MOST_DIMENSIONS, _MOST_SIZE = 8, 1 << 48
# A type's name: its letters, the bits of a number, and how the bits are used.
_DTYPE = re.compile(r"BOOL|[A-Z]{1,2}(\d{1,3})(?:_\w{1,9})?")


def _span(name: str, tensor: Any) -> tuple[int, int]:
    """Return where a tensor's data begins and ends. Raise ValueError if that does not fit shape and dtype."""
    match tensor:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            kind = _DTYPE.fullmatch(dtype)
            is_shape = all(type(size) is int and 0 <= size < _MOST_SIZE for size in shape)
            is_shape = is_shape and len(shape) <= _MOST_DIMENSIONS
            if kind and is_shape and prod(shape) * int(kind[1] or 8) == 8 * (end - start):
                return start, end
    raise ValueError(f"{name!r:.80} has no dtype, shape and data_offsets that fit together")


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return dtype, shape and data_offsets of each tensor by name, in the order of their data.

    Raise UserError if the file is not safetensors or lacks data.
    """
    try:
        with opened(path, inf) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = value_of(str(file.read(length), "utf-8"))
            data_bytes = os.fstat(file.fileno()).st_size - 8 - length
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        header.pop("__metadata__", None)
        spans = {name: _span(name, each) for name, each in header.items()}
        names = sorted(spans, key=spans.__getitem__)
        ends = [0, *(spans[name][1] for name in names)]
        # Source: Metadata::validate.
        if any(spans[name][0] != end for name, end in zip(names, ends, strict=False)):
            raise ValueError("the data of its tensors is not contiguous")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (struct.error, ValueError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    if ends[-1] != data_bytes:
        raise UserError(f"{path}: cut short, or not a safetensors file")
    return {name: header[name] for name in names}
