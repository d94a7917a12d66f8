"""Quantizes a checkpoint to 4 bits with AWQ, stored as compressed-tensors (W4A16).

Runs in the environment llmcompressor-<device> (`python -P`). Arguments: input directory, output directory,
calibration text (passages between lines of %%), seed.

The matrices of the model's layers are quantized; the embedding and the output matrix stay as they are. It
writes config.json and the weights; bench copies the other files of the input.
"""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Read as they are imported: whole lines of ours instead of their bars and log.
os.environ.update({"TQDM_DISABLE": "1", "LLM_COMPRESSOR_LOG_LEVEL": "ERROR"})

import torch
import transformers
from compressed_tensors.offload import dispatch
from compressed_tensors.quantization.lifecycle import apply
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential import pipeline
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

BLOCK_TOKENS = 512
# Of the scheme W4A16: symmetric, without zero points, which TGI does not find in this format.
GROUP_SIZE = 128


class Modifier(AWQModifier):
    def _compute_best_scale(self, *about: Any) -> Any:
        # Only the proportions of a layer's scales matter to its weights. As llm-compressor 0.14.0.1 gives
        # them, a channel that never speaks makes all others large, and the norm before them, which is divided
        # by them, small: of Gemma's, stored as what is to be added to 1, bfloat16 then keeps little.
        scales = super()._compute_best_scale(*about)
        return scales / scales.median()


def said(items: Iterable[Any], desc: str = "", **more: Any) -> Iterable[Any]:
    """Stand in for tqdm: a line for each part of the model, which is a layer or what is between two."""
    part, _, doing = desc.partition(": ")
    if doing == "Calibrating":
        print(f"w4a16: part {part.strip('()').replace('/', ' of ')}", flush=True)
    return items


def calibration_blocks(tokenizer: Any, path: Path, seed: int) -> list[list[int]]:
    """Return equal blocks of the passages in a random order, each begun as the tokenizer begins a text."""
    passages = [passage.strip() for passage in path.read_text(encoding="utf-8").split("\n%%\n")]
    random.Random(seed).shuffle(passages)
    tokens = [token for passage in passages for token in tokenizer.encode(passage)]
    blocks = [tokens[start : start + BLOCK_TOKENS] for start in range(0, len(tokens), BLOCK_TOKENS)]
    return [block for block in blocks if len(block) == BLOCK_TOKENS]


def kept_whole(model: Any) -> list[str]:
    """Return the matrices that stay as they are: the output's, and those whose rows are not whole groups."""
    matrices = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    head = model.get_output_embeddings()
    odd = [name for name, each in matrices.items() if each.in_features % GROUP_SIZE and each is not head]
    if all(name in odd or each is head for name, each in matrices.items()):
        sys.exit(f"no matrix of this model has rows of a whole number of groups of {GROUP_SIZE}")
    if odd:
        print(
            f"w4a16: {len(odd)} of {len(matrices)} matrices stay as they are: their rows are no multiple of "
            f"{GROUP_SIZE}, {odd[0]} is one",
            flush=True,
        )
    return [*(name for name, each in matrices.items() if each is head), *odd]


def main() -> None:
    source, output, calibration, seed = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
    torch.manual_seed(seed)
    pipeline.tqdm = apply.tqdm = dispatch.tqdm = said
    if not torch.accelerator.is_available():
        # llm-compressor 0.14.0.1 pins memory for a device, which without one is an error.
        IntermediatesCache.pin_memory = lambda *batch: None
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    blocks = calibration_blocks(tokenizer, calibration, seed)
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(f"w4a16: {len(blocks)} blocks of {BLOCK_TOKENS} tokens, on {device}", flush=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype="auto", trust_remote_code=False, use_safetensors=True
    )
    texts = [{"input_ids": torch.tensor(block)} for block in blocks]
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=DataLoader(texts, batch_size=1),
        recipe=[
            Modifier(),
            QuantizationModifier(targets=["Linear"], scheme="W4A16", ignore=kept_whole(model)),
        ],
        pipeline="sequential",
    )
    print("w4a16: writing", flush=True)
    model.save_pretrained(output)
    print(f"w4a16: calibrated on {len(blocks)} blocks of {BLOCK_TOKENS} tokens", flush=True)


if __name__ == "__main__":
    main()
