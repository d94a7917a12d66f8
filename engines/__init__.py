"""Every engine by its name, and the quantizations. One line here for each file beside it."""

from __future__ import annotations

from engines import llama_cpp, openai, reference, sglang, tgi, transformers, vllm
from engines.prices import API_PRICES
from engines.quantization import ALIASES, QUANTIZATIONS
from engines.tools import TOOLS
from engines.weights_size import weights_bytes
from harness.contracts import Engine

__all__ = ["ALIASES", "API_PRICES", "ENGINES", "QUANTIZATIONS", "TOOLS", "weights_bytes"]

ENGINES: dict[str, Engine] = {
    "llama_cpp": llama_cpp.ENGINE,
    "openai": openai.ENGINE,
    "reference": reference.ENGINE,
    "sglang": sglang.ENGINE,
    "tgi": tgi.ENGINE,
    "transformers": transformers.ENGINE,
    "vllm": vllm.ENGINE,
}
