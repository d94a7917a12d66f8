"""Which weights `bench prepare` has ready: by the engines named, else in each format that an engine takes."""

from pathlib import Path

import pytest

from serving_bench.engines import ENGINES
from serving_bench.harness.cli.commands.preparing import _failures
from serving_bench.harness.contracts import Reason, Weights
from serving_bench.harness.errors import UserError
from serving_bench.harness.install.provision import wanted
from serving_bench.harness.settings import config, overrides

# It reads fp16 and awq as safetensors, where the default engine reads GGUF.
pytestmark = pytest.mark.usefixtures("toy")


class Lacking:
    """A store of weights that has none in one format."""

    def __init__(self, file_format: str | None = None) -> None:
        self.lacks = file_format

    def can_prepare(self, weights: Weights, cache: Path | None = None) -> Reason | None:
        return Reason(f"no {self.lacks}") if weights.file_format == self.lacks else None


def of(*lines: str, lacks: str | None = None) -> tuple[list[Weights], list[str]]:
    found, skips = wanted(config.settings(overrides.parse(["model=m", *lines])), Lacking(lacks))
    return found, [f"{skip.what}: {skip.reason}" for skip in skips]


def test_each_quantization_is_had_in_every_format_that_an_engine_takes() -> None:
    assert of("quantization=awq,gguf-q8_0,fp16") == (
        [
            Weights("m", "awq", "safetensors"),
            Weights("m", "gguf-q8_0", "gguf"),
            Weights("m", "fp16", "gguf"),
            Weights("m", "fp16", "safetensors"),
        ],
        [],
    )


@pytest.mark.parametrize(("lacks", "other"), [("gguf", "safetensors"), ("safetensors", "gguf")])
def test_a_format_that_the_model_cannot_be_had_in_is_not_missed(lacks: str, other: str) -> None:
    assert of("quantization=fp16", lacks=lacks) == ([Weights("m", "fp16", other)], [])


def test_default_model_is_had_as_a_checkpoint_where_its_engines_take_one(monkeypatch: pytest.MonkeyPatch):
    """Of a Llama every engine takes fp16 too."""

    def formats(quantization: str) -> list[str]:
        settings = config.settings(overrides.parse([f"quantization={quantization}"]))
        return [each.file_format for each in wanted(settings, Lacking())[0]]

    monkeypatch.delitem(ENGINES, "toy")
    assert formats("bf16") == ["gguf", "safetensors"]
    assert formats("fp16") == ["gguf", "safetensors"]


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


# --- going on


def test_what_does_not_exist_is_no_failure_where_the_other_format_is_had() -> None:
    gguf, checkpoint = Weights("m", "fp16", "gguf"), Weights("m", "fp16", "safetensors")
    awq = Weights("m", "awq", "safetensors")
    assert _failures([gguf], [checkpoint], []) == []
    assert _failures([gguf], [awq], []) == [gguf]
    assert _failures([gguf], [checkpoint], [gguf]) == [gguf]  # it broke on the way
