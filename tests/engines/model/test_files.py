"""The GGUF header reader, on files of known bytes."""

import struct
from pathlib import Path

import pytest
from gguf_bytes import entry, gguf, gguf_of_type, text

from serving_bench.engines.model.files import gguf_facts, gguf_header
from serving_bench.harness.contracts import ModelFacts
from serving_bench.harness.errors import UserError


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return path


def test_scalars_strings_and_short_arrays_are_read_and_arrays_of_strings_passed_over(tmp_path: Path) -> None:
    assert gguf_header(written(tmp_path, gguf_of_type(15))).values == {
        "general.architecture": "tiny",
        "tokenizer.ggml.scores": (0.5, 1.5, 2.5),
        "tokenizer.ggml.add_bos_token": True,
        "general.file_type": 15,
    }


def test_each_scalar_kind_has_its_width(tmp_path: Path) -> None:
    codes = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
    entries = [entry(str(kind), kind, struct.pack("<" + code, 7)) for kind, code in codes.items()]
    assert gguf_header(written(tmp_path, gguf(*entries))).values == {str(kind): 7 for kind in codes}


@pytest.mark.parametrize(
    ("number", "name"), [(1, "fp16"), (2, "gguf-q4_0"), (7, "gguf-q8_0"), (15, "gguf-q4_k_m"), (32, "bf16")]
)
def test_file_type_names_the_quantization(tmp_path: Path, number: int, name: str) -> None:
    assert gguf_header(written(tmp_path, gguf_of_type(number))).quantization == name


def test_file_without_a_file_type_has_no_quantization(tmp_path: Path) -> None:
    assert gguf_header(written(tmp_path, gguf(entry("a", 8, text("b"))))).quantization is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GG",
        b"hello, this is no model at all",
        gguf(version=1),
        gguf_of_type(15)[:-2],
        gguf_of_type(15)[:40],
        gguf(entry("odd", 13, b"\x00")),
        gguf(struct.pack("<Q", 2**60)),
    ],
)
def test_what_is_no_whole_gguf_file_is_refused_with_its_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match=r"model\.gguf: not a GGUF file"):
        gguf_header(written(tmp_path, data))


def shape_entries(**changes: int) -> list[bytes]:
    numbers = {
        "block_count": 18,
        "embedding_length": 640,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": 256,
        "context_length": 32_768,
    } | changes
    return [entry(f"tiny.{key}", 4, struct.pack("<I", number)) for key, number in numbers.items() if number]


def test_shape_is_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(entry("general.architecture", 8, text("tiny")), *shape_entries()))
    assert gguf_facts(gguf_header(path)) == ModelFacts("tiny", 18, 1, 256, 32_768, hidden_size=640)
    # Without them: as many KV heads as heads, 640 / 4 wide.
    entries = shape_entries(**{"attention.head_count_kv": 0, "attention.key_length": 0})
    path.write_bytes(gguf(entry("general.architecture", 8, text("tiny")), *entries))
    assert gguf_facts(gguf_header(path)) == ModelFacts("tiny", 18, 4, 160, 32_768, hidden_size=640)


def test_shape_that_the_header_lacks_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(entry("general.architecture", 8, text("tiny")), *shape_entries(block_count=0)))
    assert gguf_facts(gguf_header(path)) is None
