"""List every engine by its name, and the quantizations. Each engine's package has one line here."""

import re

from serving_bench.engines.anthropic import engine as anthropic
from serving_bench.engines.common.launching import launch_of
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
from serving_bench.harness.contracts import Engine, check_section
from serving_bench.harness.errors import UserError
from serving_bench.harness.plugins import Table

__all__ = [
    "API_PRICES", "ENGINES", "MODELS", "ONLY_ATTACHED", "QUANTIZATIONS", "TASKS_PROGRAM", "TOOLS",
    "TOOL_TEMPLATES", "aliases", "launch_of", "value_bytes", "weights_bytes",
]  # fmt: skip

_PACKAGES = (anthropic, gemini, llama_cpp, ollama, openai, reference, sglang, tgi, transformers, vllm)
_OWN: dict[str, Engine] = {each.ENGINE.name: each.ENGINE for each in _PACKAGES}
# Sections of keys, which an engine cannot be named like.
SECTIONS = (
    "compare", "engine", "fit", "gate", "guard", "load", "price", "quality", "race", "run", "scenario",
    "search", "slo", "until",
)  # fmt: skip


def _check(engine: Engine) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", engine.name) or engine.name in SECTIONS:
        raise UserError("its name must be of a-z, 0-9 and _, and no section of keys")
    check_section(engine.options)


ENGINES = Table("engines", _OWN, _check)
