"""Makes checkpoints of a few bytes: config.json, and safetensors by hand after the format's README."""

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


def safetensors(tensors: Mapping[str, Sequence[int]]) -> bytes:
    """Return the bytes of a file with these tensors (name -> shape) of bfloat16 zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def write_checkpoint(folder: Path, config: Mapping[str, Any] = CONFIG, **more: Any) -> Path:
    """Write config.json (with `more` added) and a file of 100 parameters into a folder. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **more}))
    (folder / "model.safetensors").write_bytes(safetensors({"a": (10, 8), "b": (20,)}))
    return folder
