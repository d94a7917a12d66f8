"""Files of weights: what is written is read, what is damaged is a line, no claim is believed."""

import json
import os
import shutil
import struct
import tracemalloc
from math import prod
from pathlib import Path
from typing import Any

import pytest
from fuzzing import LIES, altered, assert_one_line, damaged, json_bytes, texts
from gguf_bytes import entry, text
from hypothesis import example, given
from hypothesis import strategies as st

from serving_bench.engines.model import adapter_files
from serving_bench.engines.model.adapter_files import Tensor
from serving_bench.engines.model.files import ARRAY, SCALARS, STRING, Header, gguf_facts, gguf_header
from serving_bench.engines.model.safetensors import safetensors_header
from serving_bench.engines.model.shape import is_sane
from serving_bench.harness.errors import UserError

SHAPE = {
    "block_count": 4, "embedding_length": 64, "attention.head_count": 8, "attention.head_count_kv": 2,
    "context_length": 2048, "full_attention_interval": 2, "attention.sliding_window": 16,
    "attention.sliding_window_pattern": 2, "vocab_size": 100,
}  # fmt: skip


# --- GGUF ------------------------------------------------------------------------------------------


def scalars_of(kind: int) -> st.SearchStrategy[Any]:
    code = SCALARS[kind]
    if code in "fd":
        return st.floats(width=32, allow_nan=False)
    if code == "?":
        return st.booleans()
    bits = 8 * struct.calcsize(code)
    return (
        st.integers(0, 2**bits - 1)
        if code.isupper()
        else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )


def packed(kind: int, *numbers: Any) -> bytes:
    return struct.pack(f"<{len(numbers)}{SCALARS[kind]}", *numbers)


@st.composite
def entries(draw: st.DrawFn) -> tuple[bytes, Any]:
    """The bytes behind an entry's key, and what is read of them; None: nothing is."""
    kind = draw(st.sampled_from(sorted(SCALARS)))
    match draw(st.sampled_from(["scalar", "text", "numbers", "texts"])):
        case "scalar":
            number = draw(scalars_of(kind))
            return struct.pack("<I", kind) + packed(kind, number), number
        case "text":
            said = draw(texts)
            return struct.pack("<I", STRING) + text(said), said
        case "numbers":
            numbers = draw(st.lists(scalars_of(kind), max_size=4))
            return struct.pack("<IIQ", ARRAY, kind, len(numbers)) + packed(kind, *numbers), tuple(numbers)
        case _:
            words = draw(st.lists(texts, max_size=3))
            return struct.pack("<IIQ", ARRAY, STRING, len(words)) + b"".join(map(text, words)), None


shapes = st.dictionaries(texts, st.lists(st.integers(0, 2**40), max_size=4).map(tuple), max_size=3)
headers = st.tuples(st.dictionaries(texts, entries(), max_size=5), shapes)


def gguf_bytes(said: dict[str, tuple[bytes, Any]], tensors: dict[str, tuple[int, ...]]) -> bytes:
    shape = [text(name) + struct.pack(f"<I{len(n)}QIQ", len(n), *n, 1, 0) for name, n in tensors.items()]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(said))
    return head + b"".join([text(key) + value for key, (value, _) in said.items()] + shape)


def of_a_model(**changes: int) -> bytes:
    numbers = [entry(f"tiny.{key}", 10, struct.pack("<Q", n)) for key, n in {**SHAPE, **changes}.items()]
    whole = {"general.architecture": entry("", STRING, text("tiny"))[8:]}
    tensor = text("token_embd.weight") + struct.pack("<I2QIQ", 2, 64, 100, 1, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(numbers) + 1)
    return head + b"".join([text(key) + value for key, value in whole.items()]) + b"".join(numbers) + tensor


def read_gguf(folder: Path, content: bytes) -> Header | None:
    """Its header; None if it is refused in a line. What it says of the model is sane, or nothing."""
    path = folder / "m.gguf"
    path.write_bytes(content)
    try:
        header = gguf_header(path)
    except UserError as error:
        assert_one_line(error, f"model={path}: ")
        return None
    facts = gguf_facts(header)
    assert facts is None or is_sane(facts)
    return header


@given(headers)
def test_a_gguf_header_is_read_as_it_was_written_and_no_part_of_it_is_whole(tmp_path: Path, made: Any):
    said, tensors = made
    content = gguf_bytes(said, tensors)
    header = read_gguf(tmp_path, content)
    assert header is not None
    assert header.values == {key: value for key, (_, value) in said.items() if value is not None}
    assert header.tensors == tensors
    assert read_gguf(tmp_path, content[: len(content) // 2]) is None
    assert read_gguf(tmp_path, content[:-1]) is None


@given(headers.flatmap(lambda made: damaged(gguf_bytes(*made))) | damaged(of_a_model()))
@example(of_a_model(block_count=2**60))
@example(of_a_model(block_count=0))
@example(of_a_model(context_length=2**64 - 1))
@example(b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60))
@example(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0))
@example(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63))
@example(gguf_bytes({"a": (struct.pack("<IIQ", ARRAY, STRING, 2**40), None)}, {}))
@example(gguf_bytes({"a": (struct.pack("<IIQ", ARRAY, 10, 2**61), None), "b": (b"", None)}, {}))
@example(gguf_bytes({"a": (struct.pack("<IIQQ", ARRAY, STRING, 2, 2**63), None)}, {}))
@example(gguf_bytes({}, {})[:-16] + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<I", 2**32 - 1))
def test_a_damaged_gguf_file_is_a_header_or_a_line(tmp_path: Path, content: bytes) -> None:
    read_gguf(tmp_path, content)


@pytest.mark.parametrize(
    "claim",
    [
        gguf_bytes({"a": (struct.pack("<IQ", STRING, 8 << 30), None)}, {}),
        gguf_bytes({"a": (struct.pack("<IIQ", ARRAY, STRING, 1 << 30), None)}, {}),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2 << 30),
        b"GGUF" + struct.pack("<IQQ", 3, 2 << 30, 0),
        struct.pack("<Q", 90_000_000) + b"{",
        struct.pack("<Q", 8 << 30) + b"{",
    ],
)
def test_what_a_header_claims_takes_no_memory_though_the_file_is_as_long(tmp_path: Path, claim: bytes):
    for path, read in ((tmp_path / "m.gguf", gguf_header), (tmp_path / "m.safetensors", safetensors_header)):
        path.write_bytes(claim)
        os.truncate(path, 16 << 30)  # without its bytes: a hole
        tracemalloc.start()
        with pytest.raises(UserError):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 300 << 20


# --- safetensors -----------------------------------------------------------------------------------

WIDTHS = {"F32": 4, "BF16": 2, "I8": 1, "F8_E4M3": 1, "U64": 8}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(WIDTHS)))
    shape = draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
    length = prod(shape) * WIDTHS[dtype]
    return Tensor(shape, dtype, draw(st.binary(min_size=length, max_size=length)))


@given(st.dictionaries(texts, tensors(), max_size=4))
@example({})
@example({"empty": Tensor((0,), "F32", b"")})
@example({"a": Tensor((2,), "I8", b"ab"), "empty": Tensor((0, 3), "F32", b""), "b": Tensor((), "I8", b"c")})
def test_tensors_are_read_as_they_were_written(tmp_path: Path, made: dict[str, Tensor]) -> None:
    folder = tmp_path / "own"
    shutil.rmtree(folder, ignore_errors=True)
    made.pop("__metadata__", None)
    adapter_files.write_peft(folder, made, {})
    assert adapter_files.read_tensors(folder) == made
    content = (folder / adapter_files.TENSORS_FILE).read_bytes()
    (folder / adapter_files.TENSORS_FILE).write_bytes(content + b"x")
    with pytest.raises(UserError, match="cut short"):
        adapter_files.read_tensors(folder)


HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {
        "dtype": "I8", "shape": [2, 3], "data_offsets": [34, 40],
    },
}  # fmt: skip


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(40)


def with_a(**changes: Any) -> bytes:
    return safetensors(json.dumps({**HEADER, "a": {**HEADER["a"], **changes}}).encode())


@given(
    altered(HEADER).flatmap(json_bytes).map(safetensors)
    | damaged(safetensors(json.dumps(HEADER).encode()), [*LIES, b"]", b"-", b"9" * 9])
)
@example(safetensors(b"[" * 100_000))
@example(safetensors(b"null"))
@example(safetensors(b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 40]}}'))
@example(with_a(data_offsets=[24, 0]))
@example(with_a(data_offsets=[8, 32]))
@example(with_a(shape=[2**60, 2**60]))
@example(with_a(shape=[3]))
def test_a_damaged_safetensors_file_has_its_tensors_or_is_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / adapter_files.TENSORS_FILE
    path.write_bytes(content)
    try:
        found = adapter_files.read_tensors(tmp_path)
        data_bytes = len(content) - 8 - struct.unpack_from("<Q", content)[0]
        assert sum(len(tensor.data) for tensor in found.values()) == data_bytes
        assert adapter_files.rank_of(tmp_path) >= 0
    except UserError as error:
        assert_one_line(error, f"{path}: ", f"its {path.name}")


@given(altered({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": True}).flatmap(json_bytes))
def test_an_adapters_config_is_one_with_a_rank_or_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / adapter_files.TENSORS_FILE).write_bytes(b"")
    (tmp_path / adapter_files.CONFIG_FILE).write_bytes(content)
    try:
        config = adapter_files.read_config(tmp_path)
    except UserError as error:
        assert_one_line(error, f"its {adapter_files.CONFIG_FILE}")
        return
    assert adapter_files.alpha_of(config) > 0
