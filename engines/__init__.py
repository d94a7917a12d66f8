"""List every engine by its name, and the quantizations. Each engine's package has one line here."""

from serving_bench.engines.anthropic import engine as anthropic
from serving_bench.engines.gemini import engine as gemini
from serving_bench.engines.llama_cpp import engine as llama_cpp
from serving_bench.engines.model.models import API_PRICES, MODELS, TOOL_TEMPLATES, aliases
from serving_bench.engines.model.sizes import ONLY_ATTACHED, QUANTIZATIONS, value_bytes, weights_bytes
from serving_bench.engines.model.weights.tools import TOOLS
from serving_bench.engines.ollama import engine as ollama
from serving_bench.engines.openai import engine as openai
from serving_bench.engines.places import TASKS_PROGRAM
from serving_bench.engines.reference import engine as reference
from serving_bench.engines.sglang import engine as sglang
from serving_bench.engines.tgi import engine as tgi
from serving_bench.engines.transformers import engine as transformers
from serving_bench.engines.vllm import engine as vllm
from serving_bench.harness.contracts import Engine

__all__ = [
    "API_PRICES", "ENGINES", "MODELS", "ONLY_ATTACHED", "QUANTIZATIONS", "TASKS_PROGRAM", "TOOLS",
    "TOOL_TEMPLATES", "aliases", "value_bytes", "weights_bytes",
]  # fmt: skip

ENGINES: dict[str, Engine] = {
    "anthropic": anthropic.ENGINE,
    "gemini": gemini.ENGINE,
    "llama_cpp": llama_cpp.ENGINE,
    "ollama": ollama.ENGINE,
    "openai": openai.ENGINE,
    "reference": reference.ENGINE,
    "sglang": sglang.ENGINE,
    "tgi": tgi.ENGINE,
    "transformers": transformers.ENGINE,
    "vllm": vllm.ENGINE,
}
