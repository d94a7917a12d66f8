"""A config.json with numbers that no model has: one line that names the file, the key and the value."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, write_checkpoint
from hypothesis import example, given
from hypothesis import strategies as st

from serving_bench.engines.model.facts import known_facts
from serving_bench.engines.model.shape import facts_of
from serving_bench.engines.model.weights import can_prepare
from serving_bench.harness.contracts import Weights
from serving_bench.harness.errors import UserError

SHAPE = {**CONFIG, "vocab_size": 1000, "intermediate_size": 256}
KEYS = [
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size",
    "intermediate_size", "vocab_size", "max_position_embeddings",
]  # fmt: skip
MORE_KEYS = [
    "layer_types", "sliding_window", "sliding_window_pattern", "full_attention_interval", "attn_layer_period",
    "attn_layer_offset", "kv_lora_rank", "qk_rope_head_dim", "num_experts", "moe_intermediate_size",
    "decoder_sparse_step", "first_k_dense_replace", "hybrid_override_pattern", "attn_type_list",
    "mlp_only_layers", "model_type", "text_config", "quantization_config", "tie_word_embeddings", "dtype",
    "rope_scaling", "rope_parameters",
]  # fmt: skip
NONSENSE: list[Any] = [0, -4, "4", "many", 10**30, {"a": 1}, 1.5, True, float("inf")]


def written(folder: Path, config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: json.dumps(value)[:12])
@pytest.mark.parametrize("key", KEYS)
def test_a_number_that_no_model_has_is_named_in_a_line(tmp_path: Path, key: str, value: Any) -> None:
    path = written(tmp_path, {**SHAPE, key: value})
    for model in (path, tmp_path):
        with pytest.raises(UserError) as error:
            known_facts(str(model))
        said = str(error.value)
        assert said.startswith(f"{path}: {key}={json.dumps(value)[:20]}")
        assert said.isascii()
        assert "\n" not in said
    assert facts_of({**SHAPE, key: value}) is None


@pytest.mark.parametrize("key", [key for key in KEYS if key != "intermediate_size"])
def test_a_list_is_no_number(tmp_path: Path, key: str) -> None:
    """But of intermediate_size, of which Gemma 3n has one for each layer."""
    with pytest.raises(UserError, match=rf"{key}=\[4, 4\]: must be a whole number"):
        known_facts(str(written(tmp_path, {**SHAPE, key: [4, 4]})))


def test_a_checkpoint_with_such_a_number_is_not_served_either(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", {**SHAPE, "num_attention_heads": 0})
    reason = can_prepare(Weights(str(folder), "bf16", "safetensors"))
    assert reason is not None
    assert str(reason).startswith(f"{folder}/config.json: num_attention_heads=0: ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_attention_heads": 128}, "num_attention_heads=128: more than hidden_size=64"),
        ({"num_attention_heads": 4, "num_key_value_heads": 8}, "num_key_value_heads=8: more than"),
    ],
)
def test_numbers_that_contradict_each_other_are_named(tmp_path: Path, change: dict[str, int], said: str):
    config = {key: value for key, value in SHAPE.items() if key != "head_dim"}
    with pytest.raises(UserError, match=said):
        known_facts(str(written(tmp_path, {**config, "hidden_size": 64, **change})))


def test_zero_of_what_a_model_may_lack_is_no_mistake(tmp_path: Path) -> None:
    lacking = {"sliding_window": 0, "num_experts": 0, "n_shared_experts": 0, "kv_lora_rank": None}
    known = known_facts(str(written(tmp_path, {**SHAPE, **lacking})))
    assert known.facts.sliding_window is None


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**12) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@example(changes={"sliding_window": 1, "full_attention_interval": 2})
@example(changes={"full_attention_interval": -2})
@given(changes=st.dictionaries(st.sampled_from(KEYS + MORE_KEYS), _VALUES, min_size=1, max_size=3))
def test_whatever_a_config_says_facts_are_sane_or_it_is_a_mistake(tmp_path: Path, changes: dict[str, Any]):
    path = written(tmp_path, {**SHAPE, **changes})
    try:
        facts = known_facts(str(path)).facts
    except UserError as mistake:
        said = str(mistake)
        assert "\n" not in said
        return
    assert min(facts.layers, facts.kv_heads, facts.head_size, facts.context_length) >= 1
    assert (facts.parameters or 0) >= 1
    assert 0 <= facts.linear_layers + (facts.sliding_layers if facts.sliding_window else 0) <= facts.layers
