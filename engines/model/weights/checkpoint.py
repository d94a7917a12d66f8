"""What a checkpoint directory (config.json, safetensors) says of itself. Loads no weights.

Knows no engine and no cache.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from engines.model.weights.shape import (
    head_size_of,
    latent_size_of,
    linear_layers_of,
    parameters_of,
    shape_mistake,
    sliding_of,
    text_part,
    ties_embeddings,
)
from harness.contracts import ModelFacts
from harness.errors import UserError

PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# Of a safetensors header.
_DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
_INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# A header that claims more is no safetensors file. Source: safetensors, tensor.rs, MAX_HEADER_SIZE.
_MAX_HEADER_BYTES = 100_000_000


def config_of(folder: Path) -> dict[str, Any]:
    """config.json; raises UserError where there is none that can be read."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no checkpoint: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not an object")
    check_shape(path, config)
    return config


def check_shape(path: Path | str, config: Mapping[str, Any]) -> None:
    """Raise UserError where a config.json has a number that no model has; names file, key and value."""
    if (mistake := shape_mistake(config)) is not None:
        raise UserError(f"{path}: {mistake}")


def check_weights(folder: Path) -> None:
    """Raise UserError unless all its weights are there, as safetensors."""
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
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


def quantization_of(config: Mapping[str, Any]) -> str:
    """awq, gptq, fp8, w4a16, or the precision that the weights are stored in; of other methods their own
    name."""
    stored = text_part(config)
    quantized = config.get("quantization_config") or stored.get("quantization_config")
    if not isinstance(quantized, Mapping) or not quantized:
        precision = str(stored.get("dtype") or stored.get("torch_dtype") or config.get("torch_dtype"))
        return PRECISIONS.get(precision.removeprefix("torch."), precision)
    method = str(quantized.get("quant_method", "unknown"))
    if method != "compressed-tensors":
        return method
    named = quantized.get("config_groups")
    groups = (
        [each for each in named.values() if isinstance(each, Mapping)] if isinstance(named, Mapping) else []
    )
    weights = [each for group in groups if isinstance(each := group.get("weights") or {}, Mapping)]
    kinds = {(each.get("type"), each.get("num_bits")) for each in weights}
    if kinds == {("float", 8)}:
        return "fp8"
    formats = {group.get("format") or quantized.get("format") for group in groups}
    is_weights_only = not any(group.get("input_activations") for group in groups)
    is_w4a16 = kinds == {("int", 4)} and formats == {"pack-quantized"} and is_weights_only
    return "w4a16" if is_w4a16 else method


def facts_of(config: Mapping[str, Any], folder: Path | None = None) -> ModelFacts | None:
    """None where config.json names its shape in other words than usual, or wrongly. With `folder` the
    parameters of a checkpoint that is not quantized are counted; else they are worked out from the shape,
    where that is possible."""
    text = text_part(config)
    if shape_mistake(config) is not None:
        return None
    try:
        layers, heads = int(text["num_hidden_layers"]), int(text["num_attention_heads"])
        window, sliding_layers = sliding_of(text, layers)
        return ModelFacts(
            architecture=str(config["model_type"]),
            layers=layers,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_size=head_size_of(text),
            context_length=int(text["max_position_embeddings"]),
            parameters=(_parameters(config, folder) if folder else None) or parameters_of(config),
            sliding_window=window,
            sliding_layers=sliding_layers,
            linear_layers=linear_layers_of(text, layers),
            latent_size=latent_size_of(text),
            vocabulary=int(text["vocab_size"]) if text.get("vocab_size") else None,
            hidden_size=int(text["hidden_size"]) if text.get("hidden_size") else None,
            ties_embeddings=ties_embeddings(config),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def tensor_shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a safetensors file's tensors, from its header."""
    for name, tensor in _header(path).items():
        if name != "__metadata__":
            yield name, tuple(tensor["shape"])


def stored_precision(folder: Path) -> str | None:
    """fp16, bf16 or fp32: the least in which nothing of its matrices is lost, whatever config.json claims.
    None where some are stored in another type."""
    kinds = {str(tensor["dtype"]) for tensor in _tensors(folder) if len(tensor["shape"]) > 1}
    if not kinds <= _DTYPES.keys():
        return None
    return _DTYPES[kinds.pop()] if len(kinds) == 1 else "fp32"


def _parameters(config: Mapping[str, Any], folder: Path) -> int | None:
    if quantization_of(config) not in PRECISIONS.values():
        return None
    return sum(prod(tensor["shape"]) for tensor in _tensors(folder)) or None


def _tensors(folder: Path) -> Iterator[Mapping[str, Any]]:
    for name in _shards(folder) or [path.name for path in folder.glob("*.safetensors")]:
        for key, tensor in _header(folder / name).items():
            if key != "__metadata__":
                yield tensor


def _shards(folder: Path) -> list[str]:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / _INDEX}: cannot be read ({error})") from error


def _header(path: Path) -> dict[str, Any]:
    """Source: safetensors, README, "Format"."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header: dict[str, Any] = json.loads(file.read(length))
        ends = (each["data_offsets"][1] for name, each in header.items() if name != "__metadata__")
        end = max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    if path.stat().st_size != 8 + length + end:
        raise UserError(f"{path}: cut short, or not a safetensors file")
    return header
