"""List every engine by its name, and the quantizations. Each engine's package has one line here."""

from engines.anthropic import engine as anthropic
from engines.gemini import engine as gemini
from engines.llama_cpp import engine as llama_cpp
from engines.model.models import API_PRICES, MODELS, TOOL_TEMPLATES, aliases
from engines.model.sizes import ONLY_ATTACHED, QUANTIZATIONS, value_bytes, weights_bytes
from engines.model.weights.tools import TOOLS
from engines.ollama import engine as ollama
from engines.openai import engine as openai
from engines.places import TASKS_PROGRAM
from engines.reference import engine as reference
from engines.sglang import engine as sglang
from engines.tgi import engine as tgi
from engines.transformers import engine as transformers
from engines.vllm import engine as vllm
from harness.contracts import Engine

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
