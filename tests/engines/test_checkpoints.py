"""What holds for every engine that serves checkpoints, asked of each of them."""

from __future__ import annotations

import pytest

from engines import ENGINES
from harness.contracts import Deployment, EngineTerms, Reason, Weights

WITH_CODE = EngineTerms(launcher="docker", trust_remote_code=True)


def weights_of(engine: str, model: str, terms: EngineTerms) -> object:
    options = ENGINES[engine].options()
    return ENGINES[engine].weights(Deployment(engine, model, "bf16", terms, options, "label"))


@pytest.mark.parametrize("engine", ["sglang", "tgi", "vllm"])
def test_code_of_a_model_that_bench_downloads_is_not_there_to_run(engine: str) -> None:
    assert weights_of(engine, "hf:org/own-code", WITH_CODE) == Reason(
        "engine.trust_remote_code=true: of hf:org/own-code bench downloads no Python code; give model=/path "
        "to a checkpoint with its code"
    )
    assert weights_of(engine, "/w/own-code", WITH_CODE) == Weights("/w/own-code", "bf16", "safetensors")
    without = EngineTerms(launcher="docker")
    assert weights_of(engine, "hf:org/own-code", without) == Weights("hf:org/own-code", "bf16", "safetensors")


@pytest.mark.parametrize("engine", ["llama_cpp", "transformers"])
def test_engines_that_run_no_code_of_a_model_say_so(engine: str) -> None:
    deployment = Deployment(engine, "hf:org/m", "bf16", WITH_CODE, ENGINES[engine].options(), "label")
    assert isinstance(ENGINES[engine].weights(deployment), Weights)
    assert "trust_remote_code" in ENGINES[engine].unmatched(deployment)


@pytest.mark.parametrize("engine", ["sglang", "tgi", "transformers", "vllm"])
def test_a_dtype_that_would_cast_the_weights_has_a_reason(engine: str) -> None:
    terms = EngineTerms(launcher="docker", dtype="float32")
    assert weights_of(engine, "/w/m", terms) == Reason(
        "engine.dtype=float32 would cast the weights: they would not be bf16"
    )
