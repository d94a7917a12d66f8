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

from harness.contracts import ModelFacts
from harness.errors import UserError

PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
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
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not an object")
    return config


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
    """awq, gptq, fp8, or the precision that the weights are stored in; of other methods their own name."""
    stored = _text_part(config)
    quantized = config.get("quantization_config") or stored.get("quantization_config")
    if not quantized:
        precision = str(stored.get("dtype") or stored.get("torch_dtype") or config.get("torch_dtype"))
        return PRECISIONS.get(precision.removeprefix("torch."), precision)
    method = str(quantized.get("quant_method", "unknown"))
    if method != "compressed-tensors":
        return method
    weights = [group.get("weights") or {} for group in (quantized.get("config_groups") or {}).values()]
    kinds = {(each.get("type"), each.get("num_bits")) for each in weights}
    return "fp8" if kinds == {("float", 8)} else method


def facts_of(config: Mapping[str, Any], folder: Path | None = None) -> ModelFacts | None:
    """None where config.json names its shape in other words than usual. With `folder` the parameters of a
    checkpoint that is not quantized are counted."""
    text = _text_part(config)
    try:
        layers, heads = int(text["num_hidden_layers"]), int(text["num_attention_heads"])
        window, sliding_layers = _sliding(text, layers)
        return ModelFacts(
            architecture=str(config["model_type"]),
            layers=layers,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_size=int(text.get("head_dim") or int(text["hidden_size"]) // heads),
            context_length=int(text["max_position_embeddings"]),
            parameters=_parameters(config, folder) if folder else None,
            sliding_window=window,
            sliding_layers=sliding_layers,
        )
    except (KeyError, TypeError, ValueError):
        return None


def tensor_shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a safetensors file's tensors, from its header."""
    for name, tensor in _header(path).items():
        if name != "__metadata__":
            yield name, tuple(tensor["shape"])


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Models that see as well keep what concerns text in a part of their config."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config


def _sliding(text: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    window = text.get("sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        return int(window), sum(kind == "sliding_attention" for kind in kinds)
    pattern = text.get("sliding_window_pattern") or {"gemma2": 2, "gemma3_text": 6}.get(text["model_type"])
    return int(window), layers - layers // int(pattern) if pattern else layers


def _parameters(config: Mapping[str, Any], folder: Path) -> int | None:
    if quantization_of(config) not in PRECISIONS.values():
        return None
    names = _shards(folder) or [path.name for path in folder.glob("*.safetensors")]
    return sum(prod(shape) for name in names for _, shape in tensor_shapes(folder / name)) or None


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
