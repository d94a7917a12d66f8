"""The table of models against the pins beside it."""

from __future__ import annotations

import re

import pytest

from engines.gguf_file import FILE_TYPES
from engines.models import MODELS, Model


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_packages_of_a_model_are_pinned_with_hashes_and_no_address(model: Model) -> None:
    lock = model.source.lock.read_text()
    pins = re.findall(r"^[a-z0-9-]+==", lock, re.MULTILINE)
    assert len(pins) == len(re.findall(r"--hash=sha256:[0-9a-f]{64}", lock)) > 0
    assert "://" not in lock
    name, version = model.source.made_by.split()
    assert f"{name}=={version} " in lock


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_row_is_whole(model: Model) -> None:
    assert MODELS[model.name] is model
    assert model.source.assemble.is_file()
    assert model.source.quantization in FILE_TYPES.values()
    assert re.fullmatch(r"[0-9a-f]{64}", model.source.sha256)
    assert "terms" in model.licence
    assert model.sliding_layers <= model.layers
