"""Checkpoint directories of the user's own, and what their config.json says."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, safetensors, write_checkpoint
from weights_steps import prepared, reason_text

from serving_bench.engines.model.files import check_weights, facts_in
from serving_bench.engines.model.shape import facts_of, quantization_of
from serving_bench.engines.model.weights import can_prepare, find, missing_bytes
from serving_bench.harness.contracts import ModelFacts, Weights
from serving_bench.harness.errors import MissingError, UserError

GEMMA3: dict[str, Any] = {
    "model_type": "gemma3_text", "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1,
    "head_dim": 256, "hidden_size": 1152, "max_position_embeddings": 32768, "sliding_window": 512,
}  # fmt: skip


def checkpoint(path: Path, quantization: str, file_format: str = "safetensors") -> Weights:
    return Weights(str(path), quantization, file_format)


# --- the user's own directories


def test_directory_is_used_where_it_is_with_its_facts(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    found = find(checkpoint(path, "bf16"), tmp_path / "cache")
    assert found is not None
    assert (found.path, found.notes) == (path, ())
    assert found.size_bytes == sum(each.stat().st_size for each in path.iterdir())
    assert found.facts == ModelFacts(
        "llama", 4, 2, 8, 2048, parameters=100, hidden_size=64, ties_embeddings=False
    )
    assert missing_bytes(checkpoint(path, "bf16"), tmp_path / "cache") == 0


@pytest.mark.parametrize(
    ("stored", "wanted", "note"),
    [
        ("float16", "bf16", "stored as fp16, cast to bf16 on load"),
        ("bfloat16", "fp16", "stored as bf16, cast to fp16 on load"),
        ("float32", "fp16", "stored as fp32, cast to fp16 on load"),
        ("float16", "fp16", None),
    ],
)
def test_precision_is_cast_and_said(tmp_path: Path, stored: str, wanted: str, note: str | None) -> None:
    path = write_checkpoint(tmp_path / "own", torch_dtype=stored)
    found = find(checkpoint(path, wanted), tmp_path / "cache")
    assert found is not None
    assert [str(each) for each in found.notes] == ([note] if note else [])


def test_quantized_directory_serves_its_own_quantization_only(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own", quantization_config={"quant_method": "awq", "bits": 4})
    assert can_prepare(checkpoint(path, "awq")) is None
    assert reason_text(checkpoint(path, "bf16")) == f"model={path} is awq, not bf16"
    assert reason_text(checkpoint(path, "gptq")) == f"model={path} is awq, not gptq"


def test_awq_is_made_of_a_directory_that_is_not_quantized(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    weights = checkpoint(path, "awq")
    assert can_prepare(weights) is None
    assert find(weights, tmp_path / "cache") is None
    with pytest.raises(MissingError, match="no autoawq-"):
        prepared(weights, tmp_path / "cache")


def test_directory_is_no_gguf_file_and_a_gguf_file_no_directory(tmp_path: Path) -> None:
    gptq = write_checkpoint(tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "this engine reads GGUF files" in reason_text(checkpoint(gptq, "gptq", "gguf"))


def test_gguf_file_in_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.gguf").touch()
    (tmp_path / "a.gguf").touch()
    said = reason_text(checkpoint(tmp_path, "fp16", "gguf"))
    assert said == f"model={tmp_path} is a directory; give a file in it, such as model={tmp_path / 'a.gguf'}"


def test_pickles_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    for file_format in ("safetensors", "gguf"):
        said = reason_text(checkpoint(path, "bf16", file_format))
        assert "has pickles only (pytorch_model.bin), which can run code" in said
        assert said.endswith("; give a directory with safetensors, or a .gguf file")


def test_incomplete_directory_names_what_is_missing(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    names = {"a": "model.safetensors", "c": "model-00002-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is missing"):
        check_weights(path)


@pytest.mark.parametrize("cut", [4, 60, -1])
def test_safetensors_file_that_is_cut_short_is_no_checkpoint(tmp_path: Path, cut: int) -> None:
    path = write_checkpoint(tmp_path / "own")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:cut])
    assert "safetensors" in reason_text(checkpoint(path, "bf16"))


@pytest.mark.parametrize("config", ["", "[]", "{"])
def test_config_that_cannot_be_read_has_a_reason(tmp_path: Path, config: str) -> None:
    path = write_checkpoint(tmp_path / "own")
    (path / "config.json").write_text(config)
    assert "config.json" in reason_text(checkpoint(path, "bf16"))


def test_empty_directory_is_no_checkpoint(tmp_path: Path) -> None:
    assert "has no config.json" in reason_text(checkpoint(tmp_path, "bf16"))


# --- config.json


@pytest.mark.parametrize(
    ("config", "quantization"),
    [
        ({"torch_dtype": "bfloat16"}, "bf16"),
        ({"dtype": "float16"}, "fp16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bf16"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
    ],
)
def test_quantization_is_read_from_config(config: dict[str, Any], quantization: str) -> None:
    assert quantization_of(config) == quantization


@pytest.mark.parametrize(
    ("kind", "bits", "quantization"), [("float", 8, "fp8"), ("int", 4, "compressed-tensors")]
)
def test_compressed_tensors_of_8_bit_floats_are_fp8(kind: str, bits: int, quantization: str) -> None:
    groups = {"group_0": {"weights": {"type": kind, "num_bits": bits}}}
    config = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}}
    assert quantization_of(config) == quantization


def test_head_size_and_kv_heads_follow_from_the_others_where_they_are_not_named() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}
    assert facts_of(config) == ModelFacts("llama", 4, 8, 8, 2048, hidden_size=64, ties_embeddings=False)


@pytest.mark.parametrize(
    ("more", "sliding"),
    [
        ({}, (512, 22)),  # 26 layers, of which each sixth sees all: 26 - 26 // 6
        ({"sliding_window_pattern": 2}, (512, 13)),
        ({"layer_types": ["sliding_attention"] * 5 + ["full_attention"] * 21}, (512, 5)),
        ({"sliding_window": None}, (None, 0)),
        ({"use_sliding_window": False}, (None, 0)),
        ({"model_type": "mistral"}, (512, 26)),
    ],
)
def test_layers_with_a_sliding_window_are_counted(more: dict[str, Any], sliding: tuple[int | None, int]):
    facts = facts_of({**GEMMA3, **more})
    assert facts is not None
    assert (facts.sliding_window, facts.sliding_layers) == sliding


def test_model_that_sees_is_described_by_its_text_part() -> None:
    facts = facts_of({"model_type": "gemma3", "text_config": GEMMA3})
    assert facts is not None
    assert (facts.architecture, facts.layers, facts.head_size) == ("gemma3", 26, 256)


def test_shape_in_other_words_is_unknown_not_guessed() -> None:
    assert facts_of({"model_type": "gpt2", "n_layer": 12}) is None


def test_parameters_of_all_shards_are_counted_once(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "own")
    (path / "model-2.safetensors").write_bytes(safetensors({"c": (7,)}))
    names = {"a": "model.safetensors", "b": "model.safetensors", "c": "model-2.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    facts = facts_in(path, CONFIG)
    assert facts is not None
    assert facts.parameters == 107
