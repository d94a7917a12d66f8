"""Write a Hugging Face checkpoint (safetensors) from a GGUF file of a Gemma 3 text model or a Llama.

Arguments: input, output directory, precision (bf16, f16), chat template (`-`: the file's own). Sources:
llama.cpp, convert_hf_to_gguf.py and gguf-py tensor_mapping.py, inverted; transformers,
configuration_gemma3.py and configuration_llama.py.
"""

import json
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

# Layers of Gemma 3: five with a sliding window, then one with full attention.
SLIDING_PATTERN = 6
LOCAL_ROPE_BASE = 10_000.0
GEMMA_END_OF_TURN = "<end_of_turn>"
# tokenizer.ggml.token_type. Source: llama.cpp, enum llama_token_type.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# Precision -> safetensors' name, torch's name, and gguf's type.
PRECISIONS = {
    "bf16": ("BF16", "bfloat16", GGMLQuantizationType.BF16),
    "f16": ("F16", "float16", GGMLQuantizationType.F16),
}
OUTER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_SHARED = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TENSORS = {
    "gemma3": {
        **_SHARED,
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    "llama": {**_SHARED, "ffn_norm": "post_attention_layernorm"},
}


class Source(GGUFReader):
    """A GGUF file whose fields can be read by name."""

    def field(self, name: str, default: Any = None) -> Any:
        value = self.fields.get(name)
        return default if value is None else value.contents()

    def of_model(self, name: str, default: Any = None) -> Any:
        return self.field(f"{self.architecture}.{name}", default)

    def of_tokenizer(self, name: str) -> Any:
        return self.field(f"tokenizer.ggml.{name}")

    @property
    def architecture(self) -> str:
        return str(self.field("general.architecture"))


# --- tensors ---------------------------------------------------------------------------------------


def checkpoint_name(architecture: str, name: str) -> str:
    if name in OUTER_TENSORS:
        return OUTER_TENSORS[name]
    _, layer, kind, end = name.split(".")
    return f"model.layers.{layer}.{TENSORS[architecture][kind]}.{end}"


def values_of(source: Source, tensor: Any) -> np.ndarray:
    """Return a tensor's values as transformers holds them."""
    values = dequantize(tensor.data, tensor.tensor_type)
    if source.architecture == "gemma3":
        # Gemma's GGUF files store norm weights with 1 added.
        return values - 1.0 if "norm" in tensor.name else values
    heads = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
    kind = tensor.name.split(".")[-2]
    if kind not in heads:
        return values
    # Llama's GGUF files store the two halves of a head interleaved, as llama.cpp's RoPE needs them.
    count = source.of_model(heads[kind])
    turned = values.reshape(count, values.shape[0] // count // 2, 2, values.shape[1]).swapaxes(1, 2)
    return turned.reshape(values.shape)


def write_tensors(source: Source, path: Path, precision: str) -> int:
    """Write one tensor at a time. Return the number of parameters. Layout: safetensors, README, "Format"."""
    dtype, _, written = PRECISIONS[precision]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in source.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        start, end = end, end + 2 * prod(shape)
        name = checkpoint_name(source.architecture, tensor.name)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for number, tensor in enumerate(source.tensors, 1):
            out.write(quantize(values_of(source, tensor), written).tobytes())
            if number % 60 == 0 or number == len(source.tensors):
                print(f"{precision}: {number} of {len(source.tensors)} tensors", flush=True)
    return end // 2


# --- configuration ---------------------------------------------------------------------------------


def configuration(source: Source, precision: str) -> dict[str, Any]:
    heads = source.of_model("attention.head_count")
    width = source.of_model("embedding_length")
    return {
        "vocab_size": len(source.of_tokenizer("tokens")),
        "hidden_size": width,
        "intermediate_size": source.of_model("feed_forward_length"),
        "num_hidden_layers": source.of_model("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": source.of_model("attention.head_count_kv"),
        "head_dim": source.of_model("attention.key_length", width // heads),
        "max_position_embeddings": source.of_model("context_length"),
        "rms_norm_eps": round(source.of_model("attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": source.of_model("rope.freq_base"),
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in source.tensors),
        "use_cache": True,
        "torch_dtype": PRECISIONS[precision][1],
        **special_ids(source),
        **(of_gemma(source) if source.architecture == "gemma3" else OF_LLAMA),
    }


OF_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "mlp_bias": False,
}


def of_gemma(source: Source) -> dict[str, Any]:
    kinds = [
        "full_attention" if (layer + 1) % SLIDING_PATTERN == 0 else "sliding_attention"
        for layer in range(source.of_model("block_count"))
    ]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": source.of_model("attention.key_length"),
        "rope_local_base_freq": LOCAL_ROPE_BASE,
        "sliding_window": source.of_model("attention.sliding_window"),
        "sliding_window_pattern": SLIDING_PATTERN,
        "layer_types": kinds,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


def special_ids(source: Source) -> dict[str, int]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {key: source.of_tokenizer(f"{name}_token_id") for key, name in names.items()}


# --- tokenizer -------------------------------------------------------------------------------------


def merges_by_score(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Return pairs of pieces in the order of merging: by the score of the merged piece, best first."""
    normal = [number for number, kind in enumerate(kinds) if kind == NORMAL]
    rank = {tokens[number]: number for number in normal}
    ordered = sorted(normal, key=lambda number: -scores[number])
    pairs: list[tuple[str, str]] = []
    for number in ordered:
        piece = tokens[number]
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        mergeable = [(left, right) for left, right in splits if left in rank and right in rank]
        pairs += sorted(mergeable, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    return pairs


def make_tokenizer(source: Source) -> Tokenizer:
    tokens, kinds = source.of_tokenizer("tokens"), source.of_tokenizer("token_type")
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = of_pieces(source, vocab) if source.architecture == "gemma3" else of_bytes(source, vocab)
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=kind == USER_DEFINED)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


def of_pieces(source: Source, vocab: dict[str, int]) -> Tokenizer:
    """Return SentencePiece's BPE with byte fallback, which begins each text with BOS."""
    tokens = list(vocab)
    merges = merges_by_score(tokens, source.of_tokenizer("scores"), source.of_tokenizer("token_type"))
    unknown = tokens[source.of_tokenizer("unknown_token_id")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    number = source.of_tokenizer("bos_token_id")
    bos = tokens[number]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, number)]
    )
    return tokenizer


def of_bytes(source: Source, vocab: dict[str, int]) -> Tokenizer:
    """Return GPT-2's byte-level BPE, which splits off each digit."""
    merges = [tuple(pair.split(" ", 1)) for pair in source.of_tokenizer("merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


# --- files -----------------------------------------------------------------------------------------


def check(source: Source, name: str) -> None:
    """Exit if this program does not know the file's architecture or tokenizer."""
    if source.architecture not in TENSORS:
        sys.exit(
            f"{name} is {source.architecture}; only {' and '.join(TENSORS)} can be made into a checkpoint"
        )
    tokenizer = (source.of_tokenizer("model"), source.of_tokenizer("pre"))
    if source.architecture == "llama" and tokenizer != ("gpt2", "smollm"):
        sys.exit(
            f"{name} has the tokenizer {'/'.join(map(str, tokenizer))}; for Llama only gpt2/smollm is known"
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    path, output, precision, template = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    source = Source(path)
    check(source, path.name)
    tokens, ids = source.of_tokenizer("tokens"), special_ids(source)
    ends = [ids["eos_token_id"]]
    if source.architecture == "gemma3":
        ends.append(tokens.index(GEMMA_END_OF_TURN))
    config = configuration(source, precision)
    output.mkdir(exist_ok=True)
    write_json(output / "config.json", config)
    write_json(output / "generation_config.json", {**ids, "eos_token_id": ends, "do_sample": False})
    own_template = source.field("tokenizer.chat_template")
    write_json(
        output / "tokenizer_config.json",
        {
            # This class uses tokenizer.json as it is, in transformers 4 and 5.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[ids["bos_token_id"]],
            "eos_token": tokens[ids["eos_token_id"]],
            "pad_token": tokens[ids["pad_token_id"]],
            "unk_token": tokens[source.of_tokenizer("unknown_token_id")],
            "add_bos_token": bool(source.field("tokenizer.ggml.add_bos_token", True)),
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
            "chat_template": own_template if template == "-" else Path(template).read_text(encoding="utf-8"),
        },
    )
    print(f"{precision}: writing the tokenizer", flush=True)
    make_tokenizer(source).save(str(output / "tokenizer.json"))
    parameters = write_tensors(source, output / "model.safetensors", precision)
    print(f"{precision}: {parameters} parameters", flush=True)


if __name__ == "__main__":
    main()
