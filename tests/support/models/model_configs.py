"""The contents of config.json in the repositories of the listed models, and of some that are not listed."""

from typing import Any

from serving_bench.engines.model.models import MODELS


def config(
    kind: str, hidden: int, feed_forward: int, heads: int, vocabulary: int, *, is_tied: bool, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": is_tied,
        **more,
    }


# The fields of the repositories' config.json that the rows of MODELS do not have.
QWEN2 = {"sliding_window": 131_072, "use_sliding_window": False}
GEMMA = {"sliding_window": 512, "sliding_window_pattern": 6, "head_dim": 256}
_OF_MATRICES = {
    "qwen2.5-0.5b-instruct": config("qwen2", 896, 4864, 14, 151_936, is_tied=True, **QWEN2),
    "qwen2.5-1.5b-instruct": config("qwen2", 1536, 8960, 12, 151_936, is_tied=True, **QWEN2),
    "qwen2.5-7b-instruct": config("qwen2", 3584, 18_944, 28, 152_064, is_tied=False, **QWEN2),
    "qwen2.5-14b-instruct": config("qwen2", 5120, 13_824, 40, 152_064, is_tied=False, **QWEN2),
    "qwen2.5-32b-instruct": config("qwen2", 5120, 27_648, 40, 152_064, is_tied=False, **QWEN2),
    "qwen2.5-72b-instruct": config("qwen2", 8192, 29_568, 64, 152_064, is_tied=False, **QWEN2),
    "qwen3-0.6b": config("qwen3", 1024, 3072, 16, 151_936, is_tied=True, head_dim=128),
    "qwen3-8b": config("qwen3", 4096, 12_288, 32, 151_936, is_tied=False, head_dim=128),
    "qwen3-32b": config("qwen3", 5120, 25_600, 64, 151_936, is_tied=False, head_dim=128),
    "llama-3.2-1b-instruct": config("llama", 2048, 8192, 32, 128_256, is_tied=True, head_dim=64),
    "llama-3.1-8b-instruct": config("llama", 4096, 14_336, 32, 128_256, is_tied=False),
    "llama-3.3-70b-instruct": config("llama", 8192, 28_672, 64, 128_256, is_tied=False),
    "mistral-7b-instruct-v0.3": config(
        "mistral", 4096, 14_336, 32, 32_768, is_tied=False, sliding_window=None
    ),
    "gemma-2-9b-it": {
        **config("gemma2", 3584, 14_336, 16, 256_000, is_tied=True, head_dim=256, sliding_window=4096)
    },
    "gemma-3-1b-it": config("gemma3_text", 1152, 6912, 4, 262_144, is_tied=True, **GEMMA),
    "smollm2-135m": config("llama", 576, 1536, 9, 49_152, is_tied=True),
    "gemma3-270m": config("gemma3_text", 640, 2048, 4, 262_144, is_tied=True, **GEMMA),
}
LISTED: dict[str, dict[str, Any]] = {
    name: {
        **said,
        "num_hidden_layers": MODELS[name].facts.layers,
        "num_key_value_heads": MODELS[name].facts.kv_heads,
        "max_position_embeddings": MODELS[name].facts.context_length,
    }
    for name, said in _OF_MATRICES.items()
}

MIXTRAL = {
    **config("mixtral", 4096, 14_336, 32, 32_000, is_tied=False, num_local_experts=8),
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
}
QWEN3_30B_A3B = {
    **config("qwen3_moe", 2048, 6144, 32, 151_936, is_tied=False, num_experts=128, head_dim=128),
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "max_position_embeddings": 40_960,
}
DEEPSEEK_V3 = {
    **config("deepseek_v3", 7168, 18_432, 128, 129_280, is_tied=False, n_routed_experts=256),
    "moe_intermediate_size": 2048,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "topk_method": "noaux_tc",
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "max_position_embeddings": 163_840,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
