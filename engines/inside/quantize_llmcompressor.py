"""Quantize a checkpoint's layers to 4 bits with llm-compressor's AWQ, stored as compressed-tensors (W4A16).

Arguments: input directory, output directory, calibration text (passages separated by lines of %%), seed.
Writes config.json and weights. The last line of output says what it was calibrated on.
"""

import logging
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["LLM_COMPRESSOR_LOG_LEVEL"] = "ERROR"  # read on import

import torch
import transformers
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

BLOCK_TOKENS = 512
# That of the scheme W4A16, which is symmetric: TGI does not find zero points in this format.
GROUP_SIZE = 128


class Modifier(AWQModifier):
    def _compute_best_scale(self, *about: Any) -> Any:
        # Only the ratios of a layer's scales matter. In llm-compressor 0.14.0.1 a channel that is always
        # silent makes all other scales large and the norm before them small, which loses precision in
        # bfloat16.
        scales = super()._compute_best_scale(*about)
        return scales / scales.median()


def calibration_blocks(tokenizer: Any, path: Path, seed: int) -> list[list[int]]:
    """Return blocks of BLOCK_TOKENS tokens from the shuffled passages, each encoded as its own text."""
    passages = [passage.strip() for passage in path.read_text(encoding="utf-8").split("\n%%\n")]
    random.Random(seed).shuffle(passages)
    tokens = [token for passage in passages for token in tokenizer.encode(passage)]
    blocks = [tokens[start : start + BLOCK_TOKENS] for start in range(0, len(tokens), BLOCK_TOKENS)]
    return [block for block in blocks if len(block) == BLOCK_TOKENS]


def kept_whole(model: Any) -> list[str]:
    """Return the matrices that stay as they are: the output layer, and those with rows of no whole groups."""
    head = model.get_output_embeddings()
    matrices = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    kept = [name for name, each in matrices.items() if each is head or each.in_features % GROUP_SIZE]
    if len(kept) == len(matrices):
        sys.exit(f"no matrix of this model has rows of a whole number of groups of {GROUP_SIZE}")
    print(f"w4a16: {len(kept)} of {len(matrices)} matrices stay as they are", flush=True)
    return kept


def main() -> None:
    source, output, calibration, seed = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
    torch.manual_seed(seed)
    if not torch.accelerator.is_available():
        # llm-compressor 0.14.0.1 pins memory for a device, which fails without one.
        IntermediatesCache.pin_memory = lambda *batch: None
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    blocks = calibration_blocks(tokenizer, calibration, seed)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype="auto", trust_remote_code=False, use_safetensors=True
    )
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=DataLoader([{"input_ids": torch.tensor(block)} for block in blocks], batch_size=1),
        recipe=[
            Modifier(),
            QuantizationModifier(targets=["Linear"], scheme="W4A16", ignore=kept_whole(model)),
        ],
        pipeline="sequential",
    )
    model.save_pretrained(output)
    print(f"w4a16: calibrated on {len(blocks)} blocks of {BLOCK_TOKENS} tokens", flush=True)


if __name__ == "__main__":
    main()
