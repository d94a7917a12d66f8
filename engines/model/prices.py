"""What providers ask for models that bench knows by name, per million tokens.

A mark to set one's own cost against, not an offer: prices change, and a provider's quantization is its own.
Source of all rows: the table of prices in litellm 1.110.2 (model_prices_and_context_window_backup.json).
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.contracts import ApiPrice

READ_ON = "2026-11-25"
SOURCE = "litellm 1.110.2"


def _usd(provider: str, input_per_million: float, output_per_million: float) -> ApiPrice:
    return ApiPrice(provider, input_per_million, output_per_million, "USD", READ_ON, SOURCE)


API_PRICES: Mapping[str, tuple[ApiPrice, ...]] = {
    "qwen2.5-7b-instruct": (_usd("DeepInfra", 0.04, 0.10), _usd("Together (Turbo)", 0.30, 0.30)),
    "qwen2.5-72b-instruct": (_usd("DeepInfra", 0.36, 0.40), _usd("Together", 1.20, 1.20)),
    "qwen3-8b": (_usd("Fireworks", 0.20, 0.20),),
    "qwen3-32b": (_usd("DeepInfra", 0.08, 0.28), _usd("Fireworks", 0.90, 0.90)),
    "llama-3.1-8b-instruct": (_usd("DeepInfra", 0.03, 0.05), _usd("Together (Turbo)", 0.18, 0.18)),
    "llama-3.3-70b-instruct": (_usd("DeepInfra", 0.23, 0.40), _usd("Together (Turbo)", 1.04, 1.04)),
    "mistral-7b-instruct-v0.3": (_usd("Together", 0.20, 0.20), _usd("Fireworks", 0.20, 0.20)),
}
