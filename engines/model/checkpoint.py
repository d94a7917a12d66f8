"""What a checkpoint directory (config.json, safetensors) says of itself. Reads headers, loads no weights.

Knows no engine and no cache.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from engines.model.shape import facts_of, is_plain, shape_mistake
from harness.contracts import ModelFacts
from harness.errors import UserError

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Of a safetensors header.
_DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
_INDEX = "model.safetensors.index.json"
# A header that claims more is no safetensors file. Source: safetensors, tensor.rs, MAX_HEADER_SIZE.
_MAX_HEADER_BYTES = 100_000_000


def config_of(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's config.json; raise UserError where there is none that can be read."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder}: no checkpoint: it has no config.json")
    return read_config(path, str(path))


def read_config(path: Path, name: str) -> dict[str, Any]:
    """Read a config.json, which messages call `name`. Raise UserError where it is none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{name}: not an object, as a model's config.json is")
    check_shape(path, config)
    return config


def check_shape(path: Path | str, config: Mapping[str, Any]) -> None:
    """Raise UserError where a config.json has a number that no model has; it names file, key and value."""
    if (mistake := shape_mistake(config)) is not None:
        raise UserError(f"{path}: {mistake}")


def check_weights(folder: Path) -> None:
    """Raise UserError unless all weights of a checkpoint are there, as safetensors."""
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise UserError(
                f"{folder}: has pickles only ({pickles[0]}), which can run code when they are loaded; "
                "give a directory with safetensors, or a .gguf file"
            )
        raise UserError(f"{folder}: has no safetensors")
    missing = [name for name in _shards(folder) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {missing[0]} is missing, which {_INDEX} names")
    for name in files:
        _header(folder / name)


def facts_in(folder: Path, config: Mapping[str, Any]) -> ModelFacts | None:
    """Return the shape, with the parameters counted in the files unless they are packed there."""
    counted = sum(prod(tensor["shape"]) for _, tensor in _tensors(folder)) if is_plain(config) else None
    return facts_of(config, counted)


def stored_precision(folder: Path) -> str | None:
    """Return the least precision in which nothing of its matrices is lost, whatever config.json claims.

    None where some matrices are stored in another type than fp16, bf16 and fp32.
    """
    kinds = {str(tensor["dtype"]) for _, tensor in _tensors(folder) if len(tensor["shape"]) > 1}
    if not kinds <= _DTYPES.keys():
        return None
    return _DTYPES[kinds.pop()] if len(kinds) == 1 else "fp32"


def _tensors(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in _shards(folder) or [path.name for path in folder.glob("*.safetensors")]:
        yield from _header(folder / name).items()


def _shards(folder: Path) -> list[str]:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / _INDEX}: cannot be read ({error})") from error


def _header(path: Path) -> dict[str, Any]:
    """Return the tensors by name. Source: safetensors, README, "Format"."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((each["data_offsets"][1] for each in header.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    if path.stat().st_size != 8 + length + end:
        raise UserError(f"{path}: cut short, or not a safetensors file")
    return header
