"""Fixtures that tests of several packages of harness share."""

from pathlib import Path

import pytest
from nvml_asking import build_library
from toy_engine import Toy

from serving_bench.engines import ENGINES


@pytest.fixture
def toy(monkeypatch) -> Toy:
    """An engine that `engine=toy` names. It reads fp16 and awq as safetensors."""
    engine = Toy()
    monkeypatch.setitem(ENGINES, "toy", engine)
    return engine


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """A small NVML library, to which the real nvidia-ml-py is put."""
    return build_library(tmp_path_factory.mktemp("nvml"))
