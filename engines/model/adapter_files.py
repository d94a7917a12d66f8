"""Read LoRA adapters in PEFT's layout, and write them in that layout or as GGUF files for llama.cpp.

Uses only the standard library. Sources: peft, LoraConfig and save_pretrained; llama.cpp,
convert_lora_to_gguf.py and src/llama-adapter.cpp; ggml, docs/gguf.md; safetensors, README, "Format".
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path
from typing import Any

from serving_bench.engines.model.files import STRING
from serving_bench.engines.model.safetensors import safetensors_header
from serving_bench.engines.model.shape import Config
from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import opened, value_of

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
# Projection -> its tensor's name in a GGUF file.
IN_GGUF = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip
# GGUF architectures whose projections keep transformers' order of rows. Llama's rows are reordered.
AS_THEY_ARE = ("gemma", "gemma2", "gemma3", "qwen2", "qwen3")
TURNED = "llama"
TENSORS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_NAME = re.compile(
    r"base_model\.model\.(?:\w+\.)*?layers\.(?P<layer>\d{1,6})\.(?:self_attn|mlp)\.(?P<projection>\w+)"
    r"\.lora_(?P<half>[AB])\.weight"
)
_GGML_TYPES = {"F32": 0, "F16": 1, "BF16": 30}
_FLOAT32, _ALIGNMENT = 6, 32


@dataclass(frozen=True)
class Tensor:
    """A matrix, row by row. `dtype` is safetensors' name for the type."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes


@dataclass(frozen=True)
class Half:
    """One of the two matrices of an adapted projection: A (`is_input`) takes inputs, B gives outputs."""

    layer: int
    projection: str
    is_input: bool


def half_of(name: str) -> Half | None:
    """Return which half a tensor's name denotes; None if it is not of a projection in IN_GGUF."""
    match = _NAME.fullmatch(name)
    if match is None or match["projection"] not in IN_GGUF:
        return None
    return Half(int(match["layer"]), match["projection"], match["half"] == "A")


def name_of(layer: int, projection: str, half: str) -> str:
    """Return the PEFT name of a tensor of an attention projection."""
    return f"base_model.model.model.layers.{layer}.self_attn.{projection}.lora_{half}.weight"


def read_config(folder: Path) -> Config:
    """Read adapter_config.json. Raise UserError for a directory that is not a LoRA adapter's."""
    try:
        opened(folder / TENSORS_FILE, inf).close()
        with opened(folder / CONFIG_FILE) as file:
            config: Config = value_of(str(file.read(), "utf-8"))
        if config["peft_type"] != "LORA" or config.get("use_dora") or config.get("alpha_pattern"):
            raise ValueError("peft_type must be LORA, without use_dora and alpha_pattern")
        if config.get("use_rslora") and config.get("rank_pattern"):
            raise ValueError("use_rslora and rank_pattern do not go together")
        if not (config["r"] > 0 and config["lora_alpha"] > 0):
            raise ValueError("r and lora_alpha must be above 0")
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise UserError(f"no directory with {CONFIG_FILE} and {TENSORS_FILE} ({what})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"its {CONFIG_FILE} is not that of a LoRA adapter ({error!r})") from error
    return config


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its name. Raise UserError unless they are pairs of one rank."""
    header = safetensors_header(folder / TENSORS_FILE)
    shapes = {name: tuple(each["shape"]) for name, each in header.items()}
    halves = [shape for name, shape in shapes.items() if ".lora_" in name]
    if not halves or any(len(shape) != 2 for shape in halves):
        raise UserError(f"its {TENSORS_FILE} has no pairs of matrices named lora_A and lora_B")
    of_inputs, of_outputs = _ranks(shapes, "A", 0), _ranks(shapes, "B", 1)
    for layer in {**of_inputs, **of_outputs}:
        if of_inputs.get(layer) != of_outputs.get(layer):
            raise UserError(f"its {TENSORS_FILE} has no lora_A and lora_B of the same rank for {layer}")
    return shapes


def _ranks(shapes: Mapping[str, tuple[int, ...]], half: str, side: int) -> dict[str, int]:
    end = f".lora_{half}.weight"
    return {name.removesuffix(end): shape[side] for name, shape in shapes.items() if name.endswith(end)}


def rank_of(folder: Path) -> int:
    """Return the largest rank of its layers. Raise UserError as read_shapes."""
    return max(min(shape) for name, shape in read_shapes(folder).items() if ".lora_" in name)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    header, tensors = safetensors_header(folder / TENSORS_FILE), {}
    data_bytes = max((each["data_offsets"][1] for each in header.values()), default=0)
    content = (folder / TENSORS_FILE).read_bytes()
    data = content[len(content) - data_bytes :]
    for name, each in header.items():
        first, end = each["data_offsets"]
        tensors[name] = Tensor(tuple(each["shape"]), each["dtype"], data[first:end])
    return tensors


def alpha_of(config: Config) -> float:
    """Return the alpha for llama.cpp, which divides it by the rank."""
    return float(config["lora_alpha"]) * (sqrt(config["r"]) if config.get("use_rslora") else 1.0)


def write_peft(folder: Path, tensors: Mapping[str, Tensor], config: Config) -> None:
    header, end = dict[str, Any](), 0
    for name, each in tensors.items():
        start, end = end, end + len(each.data)
        header[name] = {"dtype": each.dtype, "shape": each.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    with (folder / TENSORS_FILE).open("wb") as file:
        file.writelines((struct.pack("<Q", len(text)), text, *(each.data for each in tensors.values())))


def gguf_parts(
    tensors: Mapping[str, Tensor], architecture: str, alpha: float, heads: Mapping[str, int]
) -> Iterator[bytes]:
    """Yield the parts of a GGUF file. `heads`: the number of heads of q_proj and k_proj."""
    metadata = {"general.architecture": architecture, "general.type": "adapter", "adapter.type": "lora"}
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata) + 1)
    for key, value in metadata.items():
        head += _string(key) + struct.pack("<I", STRING) + _string(value)
    head += _string("adapter.lora.alpha") + struct.pack("<If", _FLOAT32, alpha)
    data, end = list[bytes](), 0
    for name, tensor in tensors.items():
        half = half_of(name)
        if half is None or tensor.dtype not in _GGML_TYPES:
            raise UserError(f"{name} of type {tensor.dtype} cannot be written as GGUF")
        written = f"blk.{half.layer}.{IN_GGUF[half.projection]}.weight.lora_{'a' if half.is_input else 'b'}"
        # A row's length comes first.
        sizes = (2, *reversed(tensor.shape), _GGML_TYPES[tensor.dtype], end)
        head += _string(written) + struct.pack("<IQQIQ", *sizes)
        is_turned = architecture == TURNED and half.projection in heads and not half.is_input
        values = _turned(tensor, heads[half.projection]) if is_turned else tensor.data
        data.append(_padded(values))
        end += len(data[-1])
    yield _padded(head)
    yield from data


def _turned(tensor: Tensor, heads: int) -> bytes:
    """Interleave the two halves of each head's rows, as llama.cpp's rotation wants them."""
    rows, length = tensor.shape[0], len(tensor.data) // tensor.shape[0]
    if rows % (2 * heads):
        raise UserError(f"{rows} rows are not those of {heads} heads")
    half = rows // heads // 2
    order = (
        2 * half * head + half * side + row for head in range(heads) for row in range(half) for side in (0, 1)
    )
    return b"".join(tensor.data[row * length : (row + 1) * length] for row in order)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
