"""Quantizes a checkpoint's layers to 4 bits with AWQ, in the environment autoawq-<device> (`python -P`).

Arguments: input directory, output directory, calibration text (passages between lines of %%), seed. Writes
config.json and weights. The last line says on what it was calibrated.
"""

import json
import logging
import random
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# autoawq greets with a page on its retirement, and sets the filters so that it is seen.
warnings.showwarning = lambda *about, **more: None

import torch  # noqa: E402
from awq import AutoAWQForCausalLM  # noqa: E402
from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP  # noqa: E402
from awq.models.base import TRANSFORMERS_AUTO_MAPPING_DICT  # noqa: E402
from awq.models.gemma2 import Gemma2AWQForCausalLM  # noqa: E402
from awq.quantize import quantizer, scale  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm  # noqa: E402

BLOCK_TOKENS = 512
# The first that divides every row; kernels of all engines know the first two.
GROUP_SIZES = (128, 64, 32)
ROWS_AT_ONCE = 1024  # bounds the memory of the search for where to clip
SETTINGS = {"zero_point": True, "w_bit": 4, "version": "GEMM"}


class Gemma3AWQ(Gemma2AWQForCausalLM):
    """Gemma 3 (text), which autoawq does not know. The layers are Gemma 2's, the positions are not."""

    layer_type = "Gemma3DecoderLayer"

    @staticmethod
    def get_layers_for_scaling(module: Any, input_feat: Any, module_kwargs: dict[str, Any]) -> list[Any]:
        # Layers with a sliding window turn their positions with another base than the others.
        kind = "local" if module.is_sliding else "global"
        positions = module_kwargs[f"position_embeddings_{kind}"]
        kwargs = {**module_kwargs, "position_embeddings": positions}
        return Gemma2AWQForCausalLM.get_layers_for_scaling(module, input_feat, kwargs)


class Quantizer(quantizer.AwqQuantizer):
    def _compute_best_scale(
        self, x: Any, w_mean: Any, x_mean: Any, module2inspect: Any, *rest: Any, **more: Any
    ) -> Any:
        # autoawq 0.2.9 restores the weights after each try from `value.cpu()`, which on a CPU is no copy but
        # the very tensor that it has just scaled: the first try would stay in them.
        whole = {name: value.clone() for name, value in module2inspect.state_dict().items()}
        module2inspect.state_dict = lambda: whole
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest, **more)
        finally:
            del module2inspect.state_dict

    def _compute_best_clip(
        self,
        w: torch.Tensor,
        input_feat: torch.Tensor,
        n_grid: int = 20,
        max_shrink: float = 0.5,
        n_sample_token: int = 512,
    ) -> torch.Tensor:
        """Search as autoawq does, by products of matrices: on a CPU most of the time goes there."""
        tokens = input_feat.reshape(-1, w.shape[1])
        tokens = tokens[:: max(1, len(tokens) // n_sample_token)].to(w.device)
        tokens = tokens.reshape(len(tokens), -1, self.group_size).float()
        steps = [1 - step / n_grid for step in range(int(max_shrink * n_grid))]
        parts = [self._clip_rows(rows, tokens, steps) for rows in w.split(ROWS_AT_ONCE)]
        return torch.cat(parts).to(w.dtype)

    def _clip_rows(self, rows: torch.Tensor, tokens: torch.Tensor, steps: Sequence[float]) -> torch.Tensor:
        weights = rows.reshape(len(rows), -1, self.group_size).float()
        wanted = torch.einsum("tgk,ogk->otg", tokens, weights)
        largest = weights.abs().amax(dim=-1, keepdim=True)
        best, least = largest.clone(), torch.full_like(largest, float("inf"))
        for share in steps:
            limit = largest * share
            clipped = self.pseudo_quantize_tensor(weights.clamp(-limit, limit).reshape(rows.shape))[0]
            given = torch.einsum("tgk,ogk->otg", tokens, clipped.reshape(weights.shape))
            error = (given - wanted).square().mean(dim=1).unsqueeze(-1)
            is_better = error < least
            best = torch.where(is_better, limit, best)
            least = torch.where(is_better, error, least)
        return best


def calibration_blocks(tokenizer: Any, path: Path, seed: int) -> list[list[int]]:
    """Return equal blocks of the passages in a random order, each begun as the tokenizer begins a text."""
    passages = [passage.strip() for passage in path.read_text(encoding="utf-8").split("\n%%\n")]
    random.Random(seed).shuffle(passages)
    tokens = [token for passage in passages for token in tokenizer.encode(passage)]
    blocks = [tokens[start : start + BLOCK_TOKENS] for start in range(0, len(tokens), BLOCK_TOKENS)]
    return [block for block in blocks if len(block) == BLOCK_TOKENS]


def group_size(config: dict[str, Any]) -> int:
    """Return how many weights of a row share a scale. Exit where no size divides all rows of this shape."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    rows = {width, config["intermediate_size"], heads * (config.get("head_dim") or width // heads)}
    fitting = [size for size in GROUP_SIZES if all(row % size == 0 for row in rows)]
    if not fitting:
        sys.exit(
            f"rows of {', '.join(map(str, sorted(rows)))} weights are no whole groups of {GROUP_SIZES[-1]}"
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
