"""Writes a Hugging Face checkpoint (bfloat16, safetensors) from a GGUF file of a Gemma 3 text model.

Arguments: input, output directory, chat template. Sources: llama.cpp, convert_hf_to_gguf.py and gguf-py
tensor_mapping.py, read backwards; transformers, models/gemma3/configuration_gemma3.py.
"""

import json
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

# Layers of this pattern: five with a sliding window, then one that sees all.
SLIDING_PATTERN = 6
LOCAL_ROPE_BASE = 10_000.0
END_OF_TURN = "<end_of_turn>"
# tokenizer.ggml.token_type. Source: llama.cpp, enum llama_token_type.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
OUTER_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def checkpoint_name(name: str) -> str:
    if name in OUTER_TENSORS:
        return OUTER_TENSORS[name]
    _, layer, kind, end = name.split(".")
    return f"model.layers.{layer}.{TENSORS[kind]}.{end}"


def write_tensors(reader: GGUFReader, path: Path) -> int:
    """Write one tensor at a time. Return the number of parameters. Layout: safetensors, README, "Format"."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        start, end = end, end + 2 * prod(shape)
        header[checkpoint_name(tensor.name)] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for number, tensor in enumerate(reader.tensors, 1):
            values = dequantize(tensor.data, tensor.tensor_type)
            # GGUF files of Gemma hold norm weights with 1 added, transformers does not.
            plain = values - 1.0 if "norm" in tensor.name else values
            out.write(quantize(plain, GGMLQuantizationType.BF16).tobytes())
            if number % 60 == 0 or number == len(reader.tensors):
                print(f"bf16: {number} of {len(reader.tensors)} tensors", flush=True)
    return end // 2


def configuration(reader: GGUFReader, vocabulary: int) -> dict[str, Any]:
    def of_model(key: str) -> Any:
        return reader.fields[f"gemma3.{key}"].contents()

    layers = of_model("block_count")
    kinds = [
        "full_attention" if (layer + 1) % SLIDING_PATTERN == 0 else "sliding_attention"
        for layer in range(layers)
    ]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": of_model("embedding_length"),
        "intermediate_size": of_model("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": of_model("attention.head_count"),
        "num_key_value_heads": of_model("attention.head_count_kv"),
        "head_dim": of_model("attention.key_length"),
        "query_pre_attn_scalar": of_model("attention.key_length"),
        "max_position_embeddings": of_model("context_length"),
        "rms_norm_eps": round(of_model("attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": of_model("rope.freq_base"),
        "rope_local_base_freq": LOCAL_ROPE_BASE,
        "rope_scaling": None,
        "sliding_window": of_model("attention.sliding_window"),
        "sliding_window_pattern": SLIDING_PATTERN,
        "layer_types": kinds,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        **special_ids(reader),
    }


def special_ids(reader: GGUFReader) -> dict[str, int]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {key: reader.fields[f"tokenizer.ggml.{name}_token_id"].contents() for key, name in names.items()}


def merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Return pairs in the order in which they are joined: by the score of what they make, the best first."""
    normal = [number for number, kind in enumerate(kinds) if kind == NORMAL]
    rank = {tokens[number]: number for number in normal}
    ordered = sorted(normal, key=lambda number: -scores[number])
    pairs: list[tuple[str, str]] = []
    for number in ordered:
        piece = tokens[number]
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in splits if left in rank and right in rank]
        pairs += sorted(known, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    return pairs


def make_tokenizer(reader: GGUFReader) -> Tokenizer:
    """Return SentencePiece's BPE with bytes for unknown characters, as llama.cpp reads the same file."""
    tokens, scores, kinds = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")
    )
    ids = special_ids(reader)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=merges(tokens, scores, kinds),
            unk_token=tokens[reader.fields["tokenizer.ggml.unknown_token_id"].contents()],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    added = [
        AddedToken(token, special=kind == CONTROL, normalized=kind == USER_DEFINED)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    bos = tokens[ids["bos_token_id"]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, ids["bos_token_id"])]
    )
    return tokenizer


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    source, output, template = (Path(argument) for argument in sys.argv[1:])
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    if architecture != "gemma3":
        sys.exit(f"{source.name} is {architecture}; only gemma3 can be written as a checkpoint")
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    config = configuration(reader, len(tokens))
    end_of_turn = tokens.index(END_OF_TURN)
    ids = special_ids(reader)
    output.mkdir(exist_ok=True)
    write_json(output / "config.json", config)
    write_json(
        output / "generation_config.json",
        {**ids, "eos_token_id": [ids["eos_token_id"], end_of_turn], "do_sample": False},
    )
    write_json(
        output / "tokenizer_config.json",
        {
            # The class that takes tokenizer.json as it is, in transformers 4 and 5.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[ids["bos_token_id"]],
            "eos_token": tokens[ids["eos_token_id"]],
            "pad_token": tokens[ids["pad_token_id"]],
            "unk_token": tokens[reader.fields["tokenizer.ggml.unknown_token_id"].contents()],
            "add_bos_token": True,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
            "chat_template": template.read_text(encoding="utf-8"),
        },
    )
    print("bf16: writing the tokenizer", flush=True)
    make_tokenizer(reader).save(str(output / "tokenizer.json"))
    parameters = write_tensors(reader, output / "model.safetensors")
    print(f"bf16: {parameters} parameters", flush=True)


if __name__ == "__main__":
    main()
