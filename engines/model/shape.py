"""Read a model's shape, parameters and quantization from transformers' config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving_bench.harness.contracts import ModelFacts

Config = Mapping[str, Any]

PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# Every n-th layer keeps all tokens, if config.json lists no layers. Source: transformers' configurations.
_SLIDING_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
# Every n-th layer has attention, the others a state of fixed size. Same source.
_ATTENTION_INTERVALS = {"qwen3_next": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4}
# Layers that keep keys and values of tokens, by their names in `layer_types` and `layers_block_type`.
_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention", "hybrid"})
_WINDOWED = frozenset({"sliding_attention", "chunked_attention"})
# The bounds of each number that the shape is computed from; the upper ones are far beyond any model.
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


def text_part(config: Config) -> Config:
    """Return the part about text, which multimodal models keep separately."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config


def quantization_of(config: Config) -> str:
    """Return awq, gptq, fp8, w4a16 or the precision of the weights; any other method by its own name."""
    text = text_part(config)
    quantized = config.get("quantization_config") or text.get("quantization_config")
    if not isinstance(quantized, Mapping) or not quantized:
        precision = str(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype"))
        return PRECISIONS.get(precision.removeprefix("torch."), precision)
    method = str(quantized.get("quant_method", "unknown"))
    return _compressed(quantized) if method == "compressed-tensors" else method


def is_plain(config: Config) -> bool:
    """Return whether the weights are stored as numbers, not packed."""
    return quantization_of(config) in PRECISIONS.values()


def _compressed(quantized: Config) -> str:
    named = quantized.get("config_groups")
    groups = (
        [each for each in named.values() if isinstance(each, Mapping)] if isinstance(named, Mapping) else []
    )
    weights = [each for group in groups if isinstance(each := group.get("weights") or {}, Mapping)]
    kinds = {(each.get("type"), each.get("num_bits")) for each in weights}
    formats = {group.get("format") or quantized.get("format") for group in groups}
    is_weights_only = not any(group.get("input_activations") for group in groups)
    if kinds == {("int", 4)} and formats == {"pack-quantized"} and is_weights_only:
        return "w4a16"
    return "fp8" if kinds == {("float", 8)} else "compressed-tensors"


def shape_mistake(config: Config) -> str | None:
    """Return a clause on the first impossible number; None if there is none."""
    text = text_part(config)
    for key, (least, most) in _RANGES.items():
        value = text.get(key)
        is_per_layer = key == "intermediate_size" and isinstance(value, list)  # Gemma 3n
        if value is not None and not is_per_layer and not (_is_whole(value) and least <= value <= most):
            return f"{key}={json.dumps(value):.40}: must be a whole number from {least:,} to {most:,}"
    heads, kv_heads = text.get("num_attention_heads"), text.get("num_key_value_heads")
    hidden = text.get("hidden_size")
    if heads and kv_heads and kv_heads > heads:
        return f"num_key_value_heads={kv_heads}: more than num_attention_heads={heads}"
    if heads and hidden and not text.get("head_dim") and heads > hidden:
        return f"num_attention_heads={heads}: more than hidden_size={hidden}"
    return None


def _is_whole(value: Any) -> bool:
    # Some tools write integers as floats.
    is_integer = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_integer and not isinstance(value, bool)


def is_sane(facts: ModelFacts) -> bool:
    """Return whether the numbers of a shape are possible."""
    whole = (facts.kv_heads, facts.head_size, facts.context_length)
    sizes = (facts.parameters, facts.latent_size, facts.vocabulary, facts.hidden_size, facts.sliding_window)
    numbers = (facts.layers, facts.sliding_layers, facts.linear_layers, *whole, *sizes)
    if not all(type(number) is int for number in numbers if number is not None):
        return False
    is_stack = 1 <= facts.layers <= _MOST_LAYERS and facts.sliding_layers >= 0 <= facts.linear_layers
    return (
        is_stack
        and facts.sliding_layers + facts.linear_layers <= facts.layers
        and all(1 <= number <= _MOST for number in whole)
        and all(1 <= number <= _MOST**2 for number in sizes if number is not None)
    )


def facts_of(config: Config, parameters: int | None = None) -> ModelFacts | None:
    """Return the shape; None if config.json uses unusual names or wrong values.

    If `parameters` is None, they are computed from the shape if possible.
    """
    text = text_part(config)
    if shape_mistake(config) is not None:
        return None
    try:
        layers, heads = int(text["num_hidden_layers"]), int(text["num_attention_heads"])
        linear_layers = _linear_layers(text, layers)
        window, sliding_layers = _sliding(text, layers, linear_layers)
        rank = text.get("kv_lora_rank")
        facts = ModelFacts(
            architecture=str(config["model_type"]),
            layers=layers,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_size=_head_size(text),
            context_length=int(text["max_position_embeddings"]),
            parameters=parameters or parameters_of(config),
            sliding_window=window,
            sliding_layers=sliding_layers,
            linear_layers=linear_layers,
            latent_size=int(rank) + int(text["qk_rope_head_dim"]) if rank else None,
            vocabulary=int(text["vocab_size"]) if text.get("vocab_size") else None,
            hidden_size=int(text["hidden_size"]) if text.get("hidden_size") else None,
            ties_embeddings=ties_embeddings(config),
        )
        return facts if is_sane(facts) else None
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def is_rope_scaled(config: Config) -> bool:
    """Return whether RoPE scaling is in use. Llama 3.1's does not count: the context length includes it."""
    names = ("rope_scaling", "rope_parameters")
    scalings = [part.get(name) for part in (text_part(config), config) for name in names]
    # rope_parameters may have a part for each kind of layer.
    parts = [each for part in scalings if isinstance(part, Mapping) for each in (part, *part.values())]
    kinds = [each.get("rope_type") or each.get("type") for each in parts if isinstance(each, Mapping)]
    return any(kind not in (None, "default", "llama3") for kind in kinds)


def _head_size(text: Config) -> int:
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def _sliding(text: Config, layers: int, linear_layers: int) -> tuple[int | None, int]:
    kinds = text.get("layer_types")
    window = text.get("sliding_window")
    if not window and isinstance(kinds, list) and "chunked_attention" in kinds:
        window = text.get("attention_chunk_size")
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    if isinstance(kinds, list):
        return int(window), sum(kind in _WINDOWED for kind in kinds[:layers])
    with_attention = layers - linear_layers
    pattern = text.get("sliding_window_pattern") or _SLIDING_PATTERNS.get(str(text.get("model_type")))
    return int(window), with_attention - with_attention // int(pattern) if pattern else with_attention


def _linear_layers(text: Config, layers: int) -> int:
    for name in ("layer_types", "layers_block_type"):
        if isinstance(kinds := text.get(name), list):
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


@dataclass(frozen=True)
class _Family:
    """How a model type's parameters differ from Llama's: norms, biases, tied embeddings."""

    norms: int = 2
    qk_norms: bool = False
    qkv_bias: bool = False
    is_tied: bool = False


_LLAMA = _Family()
# Source: transformers, modeling_*.py. is_tied: the default of the model type's configuration class.
_FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "deepseek_v2", "deepseek_v3"), _LLAMA),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norms=True),
    "qwen3_moe": _Family(qk_norms=True),
    "gemma": _Family(is_tied=True),
    "gemma2": _Family(norms=4, is_tied=True),
    "gemma3_text": _Family(norms=4, qk_norms=True, is_tied=True),
}


def ties_embeddings(config: Config) -> bool:
    """Return whether the output layer shares the embedding's matrix."""
    text = text_part(config)
    flags = [part.get("tie_word_embeddings") for part in (text, config)]
    by_default = _FAMILIES.get(str(text.get("model_type")), _LLAMA).is_tied
    return bool(next((each for each in flags if each is not None), by_default))


def parameters_of(config: Config) -> int | None:
    """Return the parameters computed from the shape, tied embeddings once; None for an unknown model type.

    Leaves out layers that only predict further tokens (DeepSeek's MTP), which are not served by default.
    """
    family = _FAMILIES.get(str(config.get("model_type")))
    return _count(config, family) if family and text_part(config) is config else None


def parameters_as_llama(config: Config) -> int | None:
    """Return an estimate for the text part as if it were a Llama: most decoders have such matrices."""
    return _count({**text_part(config), "tie_word_embeddings": ties_embeddings(config)}, _LLAMA)


def _count(text: Config, family: _Family) -> int | None:
    try:
        hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
        embeddings = int(text["vocab_size"]) * hidden * (1 if ties_embeddings(text) else 2)
        feed_forward = _feed_forward(text, hidden, layers)
        per_layer = family.norms * hidden + _attention(text, family, hidden)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return embeddings + hidden + layers * per_layer + feed_forward


def _attention(text: Config, family: _Family, hidden: int) -> int:
    heads = int(text["num_attention_heads"])
    if text.get("kv_lora_rank"):
        return _latent_attention(text, hidden, heads)
    size, kv_heads = _head_size(text), int(text.get("num_key_value_heads") or heads)
    read = (heads + 2 * kv_heads) * size
    biases = read if family.qkv_bias or text.get("attention_bias") else 0
    if text.get("attention_bias") and not family.qkv_bias:
        biases += hidden  # of the output projection
    return hidden * read + heads * size * hidden + biases + (2 * size if family.qk_norms else 0)


def _latent_attention(text: Config, hidden: int, heads: int) -> int:
    """Return one layer's parameters. Source: transformers, modeling_deepseek_v3.py, DeepseekV3Attention."""
    rank, rope = int(text["kv_lora_rank"]), int(text["qk_rope_head_dim"])
    nope, value = int(text["qk_nope_head_dim"]), int(text["v_head_dim"])
    heads_size = heads * (nope + rope)
    q_rank = int(text.get("q_lora_rank") or 0)
    queries = hidden * q_rank + q_rank + q_rank * heads_size if q_rank else hidden * heads_size
    return queries + hidden * (rank + rope) + rank + rank * heads * (nope + value) + heads * value * hidden


def _feed_forward(text: Config, hidden: int, layers: int) -> int:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((int(text[name]) for name in names if text.get(name)), 0)
    of_dense = 3 * hidden * int(text["intermediate_size"])
    if not experts:
        return layers * of_dense
    every = text.get("decoder_sparse_step")  # counts layers from 1, moe_layer_freq from 0
    step, dense = int(every or text.get("moe_layer_freq") or 1), text.get("mlp_only_layers") or ()
    first = int(text.get("first_k_dense_replace") or 0)
    moe_layers = sum(
        layer >= first and (layer + bool(every)) % step == 0 and layer not in dense for layer in range(layers)
    )
    width = int(text.get("moe_intermediate_size") or text["intermediate_size"])
    matrices = 3 * hidden * width * (experts + int(text.get("n_shared_experts") or 0))
    correction = experts if text.get("topk_method") == "noaux_tc" else 0
    return (layers - moe_layers) * of_dense + moe_layers * (matrices + hidden * experts + correction)
