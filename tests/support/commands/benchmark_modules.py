"""Imports the modules of benchmarks/ by their bare names, as its scripts do."""

import importlib
import sys
from types import ModuleType

import pytest
from places import ROOT


def modules_of(*names: str, folders: tuple[str, ...] = ("benchmarks",)) -> dict[str, ModuleType]:
    with pytest.MonkeyPatch.context() as here:
        here.setattr(sys, "path", [*(str(ROOT / folder) for folder in folders), *sys.path])
        return {name: importlib.import_module(name) for name in names}
