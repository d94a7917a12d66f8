"""What a config.json, in the words of transformers, says of a model's shape: its KV cache and its parameters.

Pure. Knows no engine and no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]

# Every n-th layer keeps all tokens, the others a window, where config.json names no layers. Source:
# transformers, the defaults of each model's configuration class.
_SLIDING_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
# Every n-th layer has attention, the others a state of fixed size. Source as above.
_ATTENTION_INTERVALS = {"qwen3_next": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4}
# Layers that keep keys and values of tokens, by the names of `layer_types` and `layers_block_type`.
_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention", "hybrid"})
_WINDOWED = frozenset({"sliding_attention", "chunked_attention"})
# The least and the most of each number that the shape is worked out from. Where the least is 0, models that
# lack the thing say so. The most are far beyond any model: layers are walked through, and larger numbers of
# the others are a mistake, not a model.
_MOST_LAYERS, _MOST = 10_000, 10**9
_RANGES = {
    "num_hidden_layers": (1, _MOST_LAYERS),
    **dict.fromkeys(
        ("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "intermediate_size",
         "vocab_size", "max_position_embeddings", "full_attention_interval", "sliding_window_pattern",
         "qk_rope_head_dim", "v_head_dim", "decoder_sparse_step", "attn_layer_period"),
        (1, _MOST),
    ),
    **dict.fromkeys(
        ("sliding_window", "attention_chunk_size", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim",
         "moe_intermediate_size", "num_local_experts", "num_experts", "n_routed_experts", "n_shared_experts",
         "first_k_dense_replace", "attn_layer_offset"),
        (0, _MOST),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Family:
    """How a model type differs from Llama where parameters are counted. `norms` of a layer are as wide as
    the model; `qk_norms`: one for queries and one for keys, a head wide; `qkv_bias`: always there."""

    norms: int = 2
    qk_norms: bool = False
    qkv_bias: bool = False
    is_tied: bool = False


# Source: transformers, modeling_*.py; is_tied: what the model type's configuration class says by default.
_FAMILIES = {
    "llama": _Family(),
    "mistral": _Family(),
    "mixtral": _Family(),
    "phi3": _Family(),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norms=True),
    "qwen3_moe": _Family(qk_norms=True),
    "gemma": _Family(is_tied=True),
    "gemma2": _Family(norms=4, is_tied=True),
    "gemma3_text": _Family(norms=4, qk_norms=True, is_tied=True),
    "deepseek_v2": _Family(),
    "deepseek_v3": _Family(),
}


def text_part(config: Config) -> Config:
    """Models that see as well keep what concerns text in a part of their config."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config


def shape_mistake(config: Config) -> str | None:
    """A clause that names the first key whose number no model has, and its value; None where all can be.
    What is absent or null is no mistake here."""
    text = text_part(config)
    for key, (least, most) in _RANGES.items():
        value = text.get(key)
        is_per_layer = key == "intermediate_size" and isinstance(value, list)  # Gemma 3n
        if value is None or is_per_layer:
            continue
        if not _is_whole(value) or not least <= value <= most:
            return f"{key}={_shortened(value)}: must be a whole number from {least:,} to {most:,}"
    return _contradiction(text)


def _contradiction(text: Config) -> str | None:
    heads, kv_heads = text.get("num_attention_heads"), text.get("num_key_value_heads")
    hidden = text.get("hidden_size")
    if heads and kv_heads and kv_heads > heads:
        return f"num_key_value_heads={kv_heads}: more than num_attention_heads={heads}"
    if heads and hidden and not text.get("head_dim") and heads > hidden:
        return f"num_attention_heads={heads}: more than hidden_size={hidden}"
    return None


def _is_whole(value: Any) -> bool:
    """A float may be whole: some tools write all numbers so."""
    return not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    )


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def is_rope_scaled(config: Config) -> bool:
    """Whether positions are stretched, so that max_position_embeddings may not be the most that it can: by
    the kind, before or after. Llama 3.1's own kind is counted in already."""
    text = text_part(config)
    for part in (text, config):
        for name in ("rope_scaling", "rope_parameters"):
            said = part.get(name)
            # rope_parameters may hold a part for each kind of layer.
            parts = [said, *said.values()] if isinstance(said, Mapping) else []
            kinds = [each.get("rope_type") or each.get("type") for each in parts if isinstance(each, Mapping)]
            if any(kind not in (None, "default", "llama3") for kind in kinds):
                return True
    return False


def head_size_of(text: Config) -> int:
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def sliding_of(text: Config, layers: int) -> tuple[int | None, int]:
    """Tokens of the window, and how many layers have one."""
    kinds = text.get("layer_types")
    window = text.get("sliding_window")
    if not window and isinstance(kinds, list) and "chunked_attention" in kinds:
        window = text.get("attention_chunk_size")
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    if isinstance(kinds, list):
        return int(window), sum(kind in _WINDOWED for kind in kinds[:layers])
    pattern = text.get("sliding_window_pattern") or _SLIDING_PATTERNS.get(str(text.get("model_type")))
    return int(window), layers - layers // int(pattern) if pattern else layers


def linear_layers_of(text: Config, layers: int) -> int:
    """Layers that keep a state of fixed size, or nothing, instead of keys and values."""
    for name in ("layer_types", "layers_block_type"):
        kinds = text.get(name)
        if isinstance(kinds, list):
            return sum(kind not in _ATTENTION for kind in kinds[:layers])
    if pattern := text.get("hybrid_override_pattern"):  # Nemotron-H: M a Mamba layer, - an MLP, * attention
        return layers - sum(kind == "*" for kind in str(pattern)[:layers])
    if isinstance(text.get("attn_type_list"), list):  # MiniMax: 1 is attention
        return sum(kind != 1 for kind in text["attn_type_list"][:layers])
    if period := text.get("attn_layer_period"):  # Jamba
        offset = int(text.get("attn_layer_offset") or 0)
        return layers - sum(layer % int(period) == offset for layer in range(layers))
    kind = str(text.get("model_type"))
    interval = text.get("full_attention_interval") or _ATTENTION_INTERVALS.get(kind)
    return layers - layers // int(interval) if interval else 0


def latent_size_of(text: Config) -> int | None:
    """Of latent attention: what is compressed of keys and values, and the part that has the position."""
    rank = text.get("kv_lora_rank")
    return int(rank) + int(text["qk_rope_head_dim"]) if rank else None


def ties_embeddings(config: Config) -> bool:
    text = text_part(config)
    family = _FAMILIES.get(str(text.get("model_type")), _Family())
    for part in (text, config):
        if part.get("tie_word_embeddings") is not None:
            return bool(part["tie_word_embeddings"])
    return family.is_tied


def parameters_of(config: Config) -> int | None:
    """Counted from the shape, tied embeddings once; None for a model type whose layers are not known here,
    or that sees as well.

    Without layers that only predict further tokens (DeepSeek's MTP), which are not served by default.
    """
    text = text_part(config)
    family = _FAMILIES.get(str(text.get("model_type")))
    if family is None or text is not config:
        return None
    try:
        hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
        embeddings = int(text["vocab_size"]) * hidden * (1 if ties_embeddings(config) else 2)
        moe_layers = _moe_layers(text, layers)
        feed_forward = (layers - moe_layers) * 3 * hidden * int(text["intermediate_size"])
        if moe_layers:
            feed_forward += moe_layers * _experts(text, hidden)
        per_layer = family.norms * hidden + _attention(text, family, hidden)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return embeddings + hidden + layers * per_layer + feed_forward


def _attention(text: Config, family: _Family, hidden: int) -> int:
    heads = int(text["num_attention_heads"])
    if text.get("kv_lora_rank"):
        return _latent_attention(text, hidden, heads)
    size, kv_heads = head_size_of(text), int(text.get("num_key_value_heads") or heads)
    read = (heads + 2 * kv_heads) * size
    biases = read if family.qkv_bias or text.get("attention_bias") else 0
    if text.get("attention_bias") and not family.qkv_bias:
        biases += hidden  # of the output
    return hidden * read + heads * size * hidden + biases + (2 * size if family.qk_norms else 0)


def _latent_attention(text: Config, hidden: int, heads: int) -> int:
    """Source: transformers, modeling_deepseek_v3.py, DeepseekV3Attention."""
    rank, rope = int(text["kv_lora_rank"]), int(text["qk_rope_head_dim"])
    nope, value = int(text["qk_nope_head_dim"]), int(text["v_head_dim"])
    asked = heads * (nope + rope)
    q_rank = text.get("q_lora_rank")
    queries = hidden * int(q_rank) + int(q_rank) + int(q_rank) * asked if q_rank else hidden * asked
    return queries + hidden * (rank + rope) + rank + rank * heads * (nope + value) + heads * value * hidden


def _expert_count(text: Config) -> int:
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if text.get(name):
            return int(text[name])
    return 0


def _moe_layers(text: Config, layers: int) -> int:
    if not _expert_count(text):
        return 0
    step = int(text.get("decoder_sparse_step") or text.get("moe_layer_freq") or 1)
    first, dense = int(text.get("first_k_dense_replace") or 0), text.get("mlp_only_layers") or ()
    if text.get("decoder_sparse_step"):
        return sum((layer + 1) % step == 0 and layer not in dense for layer in range(layers))
    return sum(layer >= first and layer % step == 0 for layer in range(layers))


def _experts(text: Config, hidden: int) -> int:
    """Of one layer, with what chooses among them."""
    count = _expert_count(text)
    width = int(text.get("moe_intermediate_size") or text["intermediate_size"])
    shared = 3 * hidden * width * int(text.get("n_shared_experts") or 0)
    correction = count if text.get("topk_method") == "noaux_tc" else 0
    return count * 3 * hidden * width + hidden * count + shared + correction
