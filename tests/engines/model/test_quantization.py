"""The rows of quantizations agree with one another."""

from __future__ import annotations

import engines
from engines.model.sizes import ALIASES, QUANTIZATIONS


def test_each_row_is_found_under_its_own_name() -> None:
    assert QUANTIZATIONS
    assert {name: row.name for name, row in QUANTIZATIONS.items()} == {name: name for name in QUANTIZATIONS}


def test_aliases_lead_to_a_row_and_hide_none() -> None:
    assert ALIASES["gguf"] == "gguf-q4_k_m"
    assert set(ALIASES.values()) <= QUANTIZATIONS.keys()
    assert not ALIASES.keys() & QUANTIZATIONS.keys()


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
