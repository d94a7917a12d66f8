"""The rows of quantizations agree with one another."""

from serving_bench import engines
from serving_bench.engines.model.models import aliases
from serving_bench.engines.model.sizes import QUANTIZATIONS


def test_each_row_is_found_under_its_own_name() -> None:
    assert QUANTIZATIONS
    assert {name: row.name for name, row in QUANTIZATIONS.items()} == {name: name for name in QUANTIZATIONS}


def test_gguf_is_the_kind_that_a_models_package_holds_else_q4_k_m() -> None:
    kinds = {model: aliases(model)["gguf"] for model in ("smollm2-135m", "gemma3-270m", "qwen3-8b", "a/b")}
    assert kinds == {"smollm2-135m": "gguf-q4_1"} | dict.fromkeys(list(kinds)[1:], "gguf-q4_k_m")
    assert set(kinds.values()) <= QUANTIZATIONS.keys()
    assert "gguf" not in QUANTIZATIONS


def test_gguf_kinds_are_gguf_files_and_precisions_leave_the_format_to_the_engine() -> None:
    formats = {name: row.file_format for name, row in QUANTIZATIONS.items()}
    assert {name for name, kind in formats.items() if kind == "gguf"} == {n for n in formats if "gguf" in n}
    assert {name for name, kind in formats.items() if kind is None} == {"fp16", "bf16"}


def test_bits_follow_from_the_block_layout() -> None:
    bits = {name: row.bits_per_weight for name, row in QUANTIZATIONS.items()}
    assert bits["gguf-q8_0"] == (32 * 8 + 16) / 32
    assert bits["gguf-q4_0"] == (32 * 4 + 16) / 32
    assert abs(bits["awq"] - (128 * 4 + 16 + 4) / 128) < 0.001
    assert (
        bits["gguf-q4_0"] < bits["gguf-q4_k_m"] < bits["gguf-q5_k_m"] < bits["gguf-q6_k"] < bits["gguf-q8_0"]
    )


def test_the_package_offers_each_engine_under_its_name() -> None:
    assert {"llama_cpp", "openai", "reference"} <= engines.ENGINES.keys()
    assert all(name == engine.name for name, engine in engines.ENGINES.items())
