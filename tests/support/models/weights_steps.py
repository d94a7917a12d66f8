"""Prepares weights as `bench prepare` does, with programs of a few lines in place of the real ones."""

import json
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_bench.engines.model.weights import can_prepare, prepare
from serving_bench.harness.contracts import InstallSpec, Reason, Weights, WeightsFile
from serving_bench.harness.errors import MissingError
from serving_bench.harness.install.steps import run_supervised

# Takes the place of an environment's Python: it prints a version, or runs PROGRAM instead of the script.
_PYTHON = """#!/bin/sh
if [ "$1" = -I ]; then echo "tool 1.2"; else shift 2; exec {python} {program} "$@"; fi
"""


def ignore(line: str) -> None:
    pass


def no_tool(spec: InstallSpec) -> Path:
    raise MissingError(f"no {spec.environment} here")


@dataclass
class Workshop:
    """Tools that are here, or say that they are not."""

    tool: Callable[[InstallSpec], Path] = no_tool
    line: Callable[[str], None] = ignore

    def run(
        self, argv: Sequence[str], environment: Mapping[str, str], doing: str, shown: str
    ) -> tuple[int | None, Sequence[str]]:
        return run_supervised(argv, environment, doing, self, shown)


def prepared(
    weights: Weights,
    cache: Path,
    tool: Callable[[InstallSpec], Path] = no_tool,
    on_line: Callable[[str], None] = ignore,
) -> WeightsFile:
    return prepare(weights, cache, Workshop(tool, on_line))


def reason_text(weights: Weights) -> str:
    reason = can_prepare(weights)
    assert isinstance(reason, Reason)
    return str(reason)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file's tensors by their names, from its header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}


def environment(folder: Path, program: str) -> Path:
    """Make an environment whose Python and llama-quantize run this program. Return its folder."""
    (folder / "bin").mkdir(parents=True)
    script = folder / "program.py"
    script.write_text(program)
    quantize = f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n'
    python = _PYTHON.format(python=sys.executable, program=script)
    for name, content in (("python", python), ("llama-quantize", quantize)):
        (folder / "bin" / name).write_text(content)
        (folder / "bin" / name).chmod(0o755)
    return folder
