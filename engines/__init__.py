"""Every engine by its name, and the quantizations. One line here for each file beside it."""

from __future__ import annotations

from engines import llama_cpp, openai, reference
from engines.quantization import ALIASES, QUANTIZATIONS
from harness.contracts import Engine

__all__ = ["ALIASES", "ENGINES", "QUANTIZATIONS"]

ENGINES: dict[str, Engine] = {
    "llama_cpp": llama_cpp.ENGINE,
    "openai": openai.ENGINE,
    "reference": reference.ENGINE,
}
