"""Quantize a checkpoint's layers to 4 bits with AWQ, in the environment autoawq-<device> (`python -P`).

Arguments: input directory, output directory, calibration text (passages separated by lines of %%), seed.
Writes config.json and weights. The last line of output says what it was calibrated on.
"""

import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# autoawq prints a page on its retirement, and sets the filters so that it is shown.
warnings.showwarning = lambda *about, **more: None

import torch  # noqa: E402
from awq import AutoAWQForCausalLM  # noqa: E402
from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP  # noqa: E402
from awq.models.base import TRANSFORMERS_AUTO_MAPPING_DICT  # noqa: E402
from awq.models.gemma2 import Gemma2AWQForCausalLM  # noqa: E402
from awq.quantize import quantizer, scale  # noqa: E402
from awq.utils.module import get_op_name  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm  # noqa: E402

BLOCK_TOKENS = 512
# The first size that divides every row is taken. Kernels of all engines support the first two.
GROUP_SIZES = (128, 64, 32)
STEPS = 20  # of a search, as in autoawq
SILENCE_S = 10.0  # between two lines on the progress
SETTINGS = {"zero_point": True, "w_bit": 4, "version": "GEMM"}


class Gemma3AWQ(Gemma2AWQForCausalLM):
    """Gemma 3 (text), which autoawq does not know. Its layers are Gemma 2's, but not its positions."""

    layer_type = "Gemma3DecoderLayer"

    @staticmethod
    def get_layers_for_scaling(module: Any, input_feat: Any, module_kwargs: dict[str, Any]) -> list[Any]:
        # Layers with a sliding window use another RoPE base than the others.
        kind = "local" if module.is_sliding else "global"
        kwargs = {**module_kwargs, "position_embeddings": module_kwargs[f"position_embeddings_{kind}"]}
        return Gemma2AWQForCausalLM.get_layers_for_scaling(module, input_feat, kwargs)


class Quantizer(quantizer.AwqQuantizer):
    """autoawq's quantizer, made correct and fast on a CPU. It prints its progress."""

    begun = 0
    said_at_s = 0.0

    def _get_input_feat(self, layer: Any, named_linears: dict[str, Any]) -> Any:
        self.begun += 1
        if time.monotonic() - self.said_at_s > SILENCE_S:
            print(f"awq: layer {self.begun} of {len(self.modules)}", flush=True)
            self.said_at_s = time.monotonic()
        self.inps = self.inps.to(as_computed(layer))
        return super()._get_input_feat(layer.to(as_computed(layer)), named_linears)

    def _apply_quant(self, module: Any, named_linears: dict[str, Any]) -> None:
        super()._apply_quant(module, named_linears)
        for norm in module.parameters():  # quantized matrices are buffers, not parameters
            norm.data = norm.data.to(self.model.dtype)

    @torch.no_grad()
    def _search_best_scale(
        self, module: Any, prev_op: Any, layers: Sequence[Any], inp: torch.Tensor, **rest: Any
    ) -> tuple[str, tuple[str, ...], torch.Tensor]:
        """Search autoawq's grid for the scale with the least error in the output of these layers.

        The error is the paper's (Lin et al. 2023, equation 4). autoawq uses the error of the whole attention
        or MLP, and runs that on all tokens for each try. This search uses the tokens once, for the products
        of their channels, which is a tenth of the work.
        """
        weights = torch.cat([each.weight for each in layers]).float()
        tokens = inp.reshape(-1, inp.shape[-1]).to(weights.device).float()
        products, channels = tokens.T @ tokens, tokens.abs().mean(0)
        grouped = weights.reshape(-1, self.group_size).abs()
        shares = (grouped / (grouped.amax(dim=1, keepdim=True) + 1e-6)).reshape(weights.shape).mean(0)
        best, least = torch.ones_like(channels), float("inf")
        for step in range(STEPS):
            ratio = step / STEPS
            scales = (channels.pow(ratio) / (shares.pow(1 - ratio) + 1e-4)).clamp(min=1e-4)
            scales = scales / (scales.max() * scales.min()).sqrt()
            wrong = self.pseudo_quantize_tensor(weights * scales)[0] / scales - weights
            error = float(((wrong @ products) * wrong).sum())
            if error < least:
                best, least = scales, error
        names = tuple(get_op_name(module, each) for each in layers)
        return get_op_name(module, prev_op), names, best.to(inp.dtype).cpu()

    @torch.no_grad()
    def _compute_best_clip(self, w: torch.Tensor, input_feat: torch.Tensor, **rest: Any) -> torch.Tensor:
        """Search as autoawq does, but over all tokens, from the products of their channels in each group."""
        tokens = input_feat.reshape(-1, w.shape[1] // self.group_size, self.group_size).to(w.device).float()
        products = torch.einsum("tgk,tgl->gkl", tokens, tokens)
        weights = w.reshape(len(w), -1, self.group_size).float()
        largest = weights.abs().amax(dim=-1, keepdim=True)
        best, least = largest.clone(), torch.full_like(largest, float("inf"))
        for step in range(STEPS // 2):  # down to half of the largest
            limit = largest * (1 - step / STEPS)
            clipped = self.pseudo_quantize_tensor(weights.clamp(-limit, limit).reshape(w.shape))[0]
            wrong = clipped.reshape(weights.shape) - weights
            error = (torch.einsum("ogk,gkl->ogl", wrong, products) * wrong).sum(dim=-1, keepdim=True)
            best, least = torch.where(error < least, limit, best), torch.minimum(error, least)
        return best.to(w.dtype)


def as_computed(layer: Any) -> torch.dtype:
    """Return the dtype to compute a layer in: on a CPU float32 instead of float16.

    On a CPU without instructions for float16 (AVX512-FP16, AMX-FP16) a matrix product in it takes 8 times as
    long: smollm2-135m took half an hour. One layer at a time is converted, so that a large model still fits.
    """
    one = next(layer.parameters())
    return torch.float32 if (one.dtype, one.device.type) == (torch.float16, "cpu") else one.dtype


def calibration_blocks(tokenizer: Any, path: Path, seed: int) -> list[list[int]]:
    """Return blocks of BLOCK_TOKENS tokens from the shuffled passages, each encoded as its own text."""
    passages = [passage.strip() for passage in path.read_text(encoding="utf-8").split("\n%%\n")]
    random.Random(seed).shuffle(passages)
    tokens = [token for passage in passages for token in tokenizer.encode(passage)]
    blocks = [tokens[start : start + BLOCK_TOKENS] for start in range(0, len(tokens), BLOCK_TOKENS)]
    return [block for block in blocks if len(block) == BLOCK_TOKENS]


def group_size(config: dict[str, Any]) -> int:
    """Return how many weights of a row share a scale. Exit if no size divides all rows of this shape."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    rows = {width, config["intermediate_size"], heads * (config.get("head_dim") or width // heads)}
    fitting = [size for size in GROUP_SIZES if all(row % size == 0 for row in rows)]
    if not fitting:
        sys.exit(
            f"rows of {', '.join(map(str, sorted(rows)))} weights are not whole groups of {GROUP_SIZES[-1]}"
        )
    return fitting[0]


def main() -> None:
    source, output, calibration, seed = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    AWQ_CAUSAL_LM_MODEL_MAP["gemma3_text"] = Gemma3AWQ
    TRANSFORMERS_AUTO_MAPPING_DICT["gemma3_text"] = "AutoModelForCausalLM"
    # Its norms multiply by 1 + weight, as Gemma 2's do; isinstance takes a tuple as well.
    scale.Gemma2RMSNorm = (scale.Gemma2RMSNorm, Gemma3RMSNorm)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type")
    if kind not in AWQ_CAUSAL_LM_MODEL_MAP:
        sys.exit(f"autoawq cannot quantize the architecture {kind}")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    blocks = calibration_blocks(tokenizer, calibration, seed)
    model = AutoAWQForCausalLM.from_pretrained(str(source), trust_remote_code=False, safetensors=True)
    model.quantize(
        tokenizer,
        quant_config={**SETTINGS, "q_group_size": group_size(config)},
        calib_data=blocks,
        max_calib_samples=len(blocks),
        max_calib_seq_len=BLOCK_TOKENS,
        quantizer_cls=Quantizer,
    )
    model.save_quantized(output)
    print(f"awq: calibrated on {len(blocks)} blocks of {BLOCK_TOKENS} tokens", flush=True)


if __name__ == "__main__":
    main()
