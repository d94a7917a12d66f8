"""Which weights `bench prepare` has ready: by the engines named, else by the quantization's format."""

from __future__ import annotations

import pytest
from toy_engine import Toy

from engines import ENGINES
from harness import config, overrides
from harness.contracts import Reason, Weights
from harness.errors import UserError
from harness.preparing import wanted


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """Reads fp16 and awq as safetensors, where the default engine reads GGUF."""
    engine = Toy()
    monkeypatch.setitem(ENGINES, "toy", engine)
    return engine


def of(*lines: str, lacks: str | None = None) -> tuple[list[Weights], list[str]]:
    def can_prepare(weights: Weights) -> Reason | None:
        return Reason(f"no {lacks}") if weights.file_format == lacks else None

    found, skips = wanted(config.settings(overrides.parse(["model=m", *lines])), can_prepare)
    return found, [f"{skip.what}: {skip.reason}" for skip in skips]


def test_each_quantization_is_had_in_its_own_format_whatever_the_default_engine_is() -> None:
    assert of("quantization=awq,gguf-q8_0,fp16") == (
        [
            Weights("m", "awq", "safetensors"),
            Weights("m", "gguf-q8_0", "gguf"),
            Weights("m", "fp16", "gguf"),
        ],
        [],
    )


def test_a_precision_is_had_in_another_format_where_the_model_has_none_of_the_first() -> None:
    assert of("quantization=fp16", lacks="gguf") == ([Weights("m", "fp16", "safetensors")], [])


def test_named_engines_get_the_formats_that_they_take() -> None:
    found, skipped = of("engine=llama_cpp,toy", "quantization=fp16,awq")
    assert found == [
        Weights("m", "fp16", "gguf"),
        Weights("m", "fp16", "safetensors"),
        Weights("m", "awq", "safetensors"),
    ]
    assert [each.partition(":")[0] for each in skipped] == ["llama_cpp awq"]


def test_what_cannot_be_had_says_why() -> None:
    assert of("quantization=awq", lacks="safetensors") == ([], ["m awq: no safetensors"])


def test_engines_without_weights_want_none() -> None:
    assert of("engine=reference", "quantization=fp16") == ([], [])


def test_a_running_server_has_its_weights() -> None:
    with pytest.raises(UserError, match="leave it out to prepare some"):
        of("engine=toy", "engine.base_url=http://h/v1", "quantization=fp16")
