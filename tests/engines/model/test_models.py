"""The table of models against the pins beside it, and its rows against one another."""

import re

import pytest

from serving_bench.engines.model.files import FILE_TYPES
from serving_bench.engines.model.models import MODELS, Model, PackageSource
from serving_bench.engines.model.sizes import QUANTIZATIONS

PACKAGED = [model for model in MODELS.values() if model.source]
ON_HUB = [model for model in MODELS.values() if model.published]


def source_of(model: Model) -> PackageSource:
    assert model.source is not None
    return model.source


@pytest.mark.parametrize("model", PACKAGED, ids=lambda model: model.name)
def test_packages_of_a_model_are_pinned_with_hashes_and_no_address(model: Model) -> None:
    source = source_of(model)
    lock = source.lock.read_text()
    pins = re.findall(r"^[a-z0-9-]+==", lock, re.MULTILINE)
    assert len(pins) == len(re.findall(r"--hash=sha256:[0-9a-f]{64}", lock)) > 0
    assert "://" not in lock
    name, version = source.made_by.split()[:2]
    assert f"{name}=={version} " in lock


@pytest.mark.parametrize("model", PACKAGED, ids=lambda model: model.name)
def test_row_of_a_packaged_model_is_whole(model: Model) -> None:
    source = source_of(model)
    assert source.assemble.is_file()
    assert source.quantization in FILE_TYPES.values()
    assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
    assert model.chat_template is None or model.chat_template.is_file()
    assert source.checkpoint in ("bf16", "fp16")


def test_default_model_is_the_first_and_needs_no_hub() -> None:
    first = next(iter(MODELS.values()))
    assert first.name == "smollm2-135m"
    assert not first.published


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_row_agrees_with_itself(model: Model) -> None:
    assert MODELS[model.name] is model
    assert model.licence
    assert model.source or model.published
    facts = model.facts
    assert facts.parameters is not None
    assert (facts.sliding_window is None) is (facts.sliding_layers == 0)
    assert facts.sliding_layers <= facts.layers


@pytest.mark.parametrize("model", ON_HUB, ids=lambda model: model.name)
def test_published_weights_have_a_16_bit_checkpoint_and_files_of_their_kind(model: Model) -> None:
    assert "bf16" in model.published
    for quantization, repo in model.published.items():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repo.repo)
        is_gguf = QUANTIZATIONS[quantization].file_format == "gguf"
        assert bool(repo.files) is is_gguf
        kind = quantization.removeprefix("gguf-")
        assert all(re.search(kind, name, re.IGNORECASE) and name.endswith(".gguf") for name in repo.files)


def test_half_a_billion_to_seventy_billion_parameters_are_there_of_four_families() -> None:
    sizes = [model.facts.parameters or 0 for model in ON_HUB]
    assert min(sizes) < 0.6e9
    assert max(sizes) > 70e9
    families = {model.facts.architecture.rstrip("0123456789_tex") for model in ON_HUB}
    assert families >= {"qwen", "llama", "mistral", "gemma"}


def test_parts_of_a_large_file_are_all_named() -> None:
    files = MODELS["qwen2.5-7b-instruct"].published["gguf-q4_k_m"].files
    assert files == (
        "qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf",
        "qwen2.5-7b-instruct-q4_k_m-00002-of-00002.gguf",
    )
