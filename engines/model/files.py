"""Read a model's facts from files of weights: a GGUF header, or a checkpoint's config.json and headers.

Loads no weights. Source: ggml's docs/gguf.md.
"""

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

from serving_bench.engines.model.safetensors import safetensors_header
from serving_bench.engines.model.shape import facts_of, is_plain, is_sane, shape_mistake
from serving_bench.harness.contracts import ModelFacts, Reason
from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import json_of, opened, read_text

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# A dtype in a safetensors header -> bench's name.
_DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
_INDEX = "model.safetensors.index.json"
# general.file_type of a GGUF file. Source: llama.cpp, include/llama.h, enum llama_ftype.
FILE_TYPES: Mapping[int, str] = {
    0: "fp32", 1: "fp16", 2: "gguf-q4_0", 3: "gguf-q4_1", 7: "gguf-q8_0", 8: "gguf-q5_0",
    9: "gguf-q5_1", 10: "gguf-q2_k", 11: "gguf-q3_k_s", 12: "gguf-q3_k_m", 13: "gguf-q3_k_l",
    14: "gguf-q4_k_s", 15: "gguf-q4_k_m", 16: "gguf-q5_k_s", 17: "gguf-q5_k_m", 18: "gguf-q6_k",
    19: "gguf-iq2_xxs", 20: "gguf-iq2_xs", 21: "gguf-q2_k_s", 22: "gguf-iq3_xs", 23: "gguf-iq3_xxs",
    24: "gguf-iq1_s", 25: "gguf-iq4_nl", 26: "gguf-iq3_s", 27: "gguf-iq3_m", 28: "gguf-iq2_s",
    29: "gguf-iq2_m", 30: "gguf-iq4_xs", 31: "gguf-iq1_m", 32: "bf16", 36: "gguf-tq1_0",
    37: "gguf-tq2_0", 38: "gguf-mxfp4", 39: "gguf-nvfp4", 40: "gguf-q1_0",
}  # fmt: skip

# GGUF's scalar types by number, as struct codes.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_MOST_LAYERS = 1024  # more than any model has; a longer array is per token
# More than any header has: entries and tensors, texts in an array, bytes of all other texts.
_MOST_ENTRIES, _MOST_ITEMS, _MOST_TEXT_BYTES = 1_000_000, 10_000_000, 64 << 20
_MOST_DIMENSIONS = 8
# Every n-th layer keeps all tokens (llama.cpp, set_swa_pattern). Newer architectures' headers say which.
SLIDING_PATTERNS = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "gpt-oss": 2}


@dataclass(frozen=True)
class Header:
    """The content of one file's header. `tensors`: names and shapes, a row's length first.

    `values` by key: scalars, strings, and arrays of numbers that are short enough to be per layer.
    """

    values: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def quantization(self) -> str | None:
        """Return the quantization that `general.file_type` gives; None if there is no such value."""
        number = self.values.get("general.file_type")
        return FILE_TYPES.get(number, f"gguf-type-{number}") if isinstance(number, int) else None

    @property
    def is_whole(self) -> bool:
        """Return whether the file is the whole model, not one part of several."""
        return bool(self.values.get("split.count", 1) == 1)

    @property
    def is_stretched(self) -> bool:
        """Return whether RoPE scaling is in use, so that a longer context may work."""
        return bool(self.of_model("rope.scaling.type", "none") != "none")

    def of_model(self, key: str, default: Any = None) -> Any:
        """Return the value of this key under the architecture's name."""
        return self.values.get(f"{self.values.get('general.architecture')}.{key}", default)


def gguf_facts(header: Header) -> ModelFacts | None:
    """Return the model's shape; None if the header lacks it, or if layers differ in more than their windows.

    Without windows in the header, llama.cpp's pattern for the architecture counts. Without a pattern no layer
    has a window, which overestimates the memory.
    """
    metadata = header.of_model
    is_untied = "output.weight" in header.tensors
    is_all = header.is_whole and "token_embd.weight" in header.tensors
    try:
        layers, width = int(metadata("block_count")), metadata("embedding_length")
        heads = _alike(metadata("attention.head_count"))
        kv_heads = metadata("attention.head_count_kv", heads)
        window, sliding_layers = _sliding(header, layers)
        interval, rank = metadata("full_attention_interval"), metadata("attention.kv_lora_rank")
        linear = sum(not each for each in kv_heads) if isinstance(kv_heads, tuple) else None
        facts = ModelFacts(
            architecture=str(header.values["general.architecture"]),
            layers=layers,
            kv_heads=_alike(kv_heads),
            head_size=int(metadata("attention.key_length", width // heads)),
            context_length=int(metadata("context_length")),
            parameters=sum(map(prod, header.tensors.values())) or None if header.is_whole else None,
            sliding_window=window,
            sliding_layers=sliding_layers,
            linear_layers=(layers - layers // int(interval) if interval else 0) if linear is None else linear,
            latent_size=int(rank) + int(metadata("rope.dimension_count")) if rank else None,
            # The embedding may have more rows than the tokenizer has tokens.
            vocabulary=header.tensors.get("token_embd.weight", (0, metadata("vocab_size")))[1],
            hidden_size=int(width),
            ties_embeddings=not is_untied if is_untied or is_all else None,
        )
        return facts if is_sane(facts) else None
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None


def _alike(value: Any) -> int:
    """Return the number that all layers with a number share. Raise ValueError if they differ."""
    (number,) = {each for each in value if each} if isinstance(value, tuple) else {value}
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


def gguf_header(path: Path) -> Header:
    """Read the header of a little-endian GGUF file of version 2 or 3. Raise UserError for any other file."""
    try:
        with (
            opened(path, inf) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _header(_Cursor(data))
    except OSError as error:
        why = Reason("{setting}: cannot be read ({why})", setting=f"model={path}", why=str(error.strerror))
        raise UserError(why) from error
    except (struct.error, ValueError, OverflowError) as error:
        why = Reason(
            "{setting}: not a GGUF file of version 2 or 3 ({why})",
            setting=f"model={path}",
            why=str(error) if isinstance(error, ValueError) else "it ends too early",
        )
        raise UserError(why) from error


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at, self._text_bytes = data, 0, 0

    def take(self, codes: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{codes}", self._data, self._at)
        self._at += struct.calcsize(f"<{codes}")
        return values

    def count(self, code: str, most: int) -> int:
        """Return a count of what follows. Raise ValueError if it is above `most`."""
        (number,) = self.take(code)
        if number > most:
            raise ValueError(f"it claims a count of {number:,}, and no file has more than {most:,}")
        return int(number)

    def string(self) -> str:
        length = self.count("Q", _MOST_TEXT_BYTES - self._text_bytes)
        self._text_bytes += length
        return str(self.take(f"{length}s")[0], "utf-8", "replace")

    def array(self) -> tuple[Any, ...] | None:
        """Return the numbers of a short array; None for a long array or one of strings."""
        (kind,) = self.take("I")
        if kind == STRING:
            for _ in range(self.count("Q", _MOST_ITEMS)):  # inlined, since there may be a million tokens
                self._at += 8 + struct.unpack_from("<Q", self._data, self._at)[0]
        else:
            (count,) = self.take("Q")
            if count <= _MOST_LAYERS:
                return self.take(f"{count}{_code(kind)}")
            self._at += struct.calcsize(f"<{_code(kind)}") * count
        if self._at > len(self._data):
            raise ValueError("it ends too early")
        return None


def _code(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"a value of type {kind}")
    return SCALARS[kind]


def _header(cursor: _Cursor) -> Header:
    magic, version = cursor.take("4sI")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"version {version}" if magic == b"GGUF" else "it does not begin with GGUF")
    tensors, entries = cursor.count("Q", _MOST_ENTRIES), cursor.count("Q", _MOST_ENTRIES)
    values: dict[str, Any] = {}
    for _ in range(entries):
        key, (kind,) = cursor.string(), cursor.take("I")
        if kind == ARRAY:
            values[key] = cursor.array()
        else:
            values[key] = cursor.string() if kind == STRING else cursor.take(_code(kind))[0]
    shapes = {}
    for _ in range(tensors):
        name, dimensions = cursor.string(), cursor.count("I", _MOST_DIMENSIONS)
        shapes[name] = cursor.take(f"{dimensions}QIQ")[:-2]  # without the type and the offset of the data
    return Header({key: value for key, value in values.items() if value is not None}, shapes)


def split_parts(path: Path) -> list[Path]:
    """Return the paths of all parts of a split GGUF file; of any other file only its own."""
    split = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", path.name, re.DOTALL)
    if split is None:
        return [path]
    return [path.with_name(f"{split[1]}-{n + 1:05d}-of-{split[2]}.gguf") for n in range(int(split[2]))]


def config_of(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's config.json. Raise UserError if it is missing or cannot be read."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder}: not a checkpoint: it has no config.json")
    return read_config(path, str(path))


def read_config(path: Path, name: str) -> dict[str, Any]:
    """Read a config.json, which messages call `name`. Raise UserError if it is not one."""
    # Infinity is allowed: Mamba's configs have an infinite limit of time steps.
    config = json_of(read_text(path, name), name, is_finite=False)
    if not isinstance(config, dict):
        raise UserError(f"{name}: not an object, as a model's config.json is")
    check_shape(path, config)
    return config


def check_shape(path: Path | str, config: Mapping[str, Any]) -> None:
    """Raise UserError with file, key and value if a config.json has an impossible number."""
    if (mistake := shape_mistake(config)) is not None:
        raise UserError(f"{path}: {mistake}")


def check_weights(folder: Path) -> None:
    """Raise UserError unless a checkpoint has all its weights as safetensors."""
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if not files:
        pickle = next((path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES), None)
        pickles = f"pickles only ({pickle}), which can run code when they are loaded"
        has = pickles if pickle else "no safetensors"
        raise UserError(f"{folder}: has {has}; give a directory with safetensors, or a .gguf file")
    missing = [name for name in _shards(folder) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {missing[0]} is missing, which {_INDEX} names")
    for name in files:
        safetensors_header(folder / name)


def facts_in(folder: Path, config: Mapping[str, Any]) -> ModelFacts | None:
    """Return the shape. The parameters are counted in the files unless the weights are packed."""
    parameters = sum(prod(tensor["shape"]) for tensor in _tensors(folder)) if is_plain(config) else None
    return facts_of(config, parameters)


def stored_precision(folder: Path) -> str | None:
    """Return the smallest precision that holds all matrices without loss; None if one has another type.

    config.json may claim something else.
    """
    kinds = {str(tensor["dtype"]) for tensor in _tensors(folder) if len(tensor["shape"]) > 1}
    if not kinds <= _DTYPES.keys():
        return None
    return _DTYPES[kinds.pop()] if len(kinds) == 1 else "fp32"


def _tensors(folder: Path) -> Iterator[Mapping[str, Any]]:
    for name in _shards(folder) or [path.name for path in folder.glob("*.safetensors")]:
        yield from safetensors_header(folder / name).values()


def _shards(folder: Path) -> list[str]:
    path = folder / _INDEX
    if not path.exists():
        return []
    index = json_of(read_text(path, str(path)), str(path))
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(name, str) and name == Path(name).name for name in files.values()
    ):
        raise UserError(f"{path}: has no weight_map, an object with the name of each tensor's file")
    return sorted({*files.values()})
