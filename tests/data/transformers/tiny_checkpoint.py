"""Writes a small random model as a checkpoint; run by the transformers environment:
`tiny_checkpoint.py DIR [SCALE [WIDTH LAYERS]]`. With a large scale its embeddings are more than
float16 can hold.

Its tokens are single bytes, so that most of its answers hold unfinished characters, and it has every file
that a real one has. generation_config.json asks for sampling, which a server that measures must not do.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'nobody' %}{{ raise_exception('nobody speaks') }}"
    "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def main(folder: Path, scale: float = 1.0, width: int = 32, layers: int = 2) -> None:
    torch.manual_seed(1)
    words = {"<s>": 0, "</s>": 1}
    words |= {letter: 2 + at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(words, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=max(4, width // 64), num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.get_input_embeddings().weight.data *= scale
    model.to(torch.bfloat16).save_pretrained(folder)
    asked = {"do_sample": True, "temperature": 3.0, "top_k": 200, "eos_token_id": [1]}
    (folder / "generation_config.json").write_text(json.dumps(asked))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:3]), *map(int, sys.argv[3:]))
