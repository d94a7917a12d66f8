"""Find or make what deployments need on this machine: environments and weights.

`bench run` makes what is small by itself. For more, the error names the command to run.
"""

import hashlib
import itertools
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_bench import engines
from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import (
    Deployment,
    InstallSpec,
    ProgressLines,
    Reason,
    Skip,
    Weights,
    WeightsFile,
    all_adapters,
    all_weights,
)
from serving_bench.harness.errors import MissingError, UserError
from serving_bench.harness.install.builds import (
    Build,
    build_of,
    check_own,
    is_process,
    uses_devices,
    weights_needed,
)
from serving_bench.harness.install.install import Environment, install, installed, python_of, versions_in
from serving_bench.harness.install.provisions import Provisions, WeightsStore
from serving_bench.harness.install.steps import run_supervised
from serving_bench.harness.plan.candidates import candidates
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.settings.decoding import as_text
from serving_bench.harness.settings.keys import DEFAULTS
from serving_bench.harness.settings.units import size_text
from serving_bench.harness.whole_files import check_room

# `bench run` installs an environment or prepares weights by itself up to this size.
SMALL_BYTES = 2 << 30


def device_of(settings: Settings) -> str:
    """Return the run's `device`: `cpu` instead of `auto` if no deployment could use another."""
    if settings.device != "auto":
        return settings.device
    could_use_device = (
        each.terms.base_url or (uses_devices(each) and ENGINES[each.engine].weights(each) is not None)
        for each in candidates(settings)
    )
    return "auto" if any(could_use_device) else "cpu"


def provide(
    deployments: Iterable[Deployment],
    store: WeightsStore,
    cache: Path,
    progress: ProgressLines,
    *,
    has_device: bool,
) -> Provisions:
    """Find or make everything that the deployments need. Blocks.

    Raises MissingError, which names the command, for what `bench run` does not make by itself.
    """
    started = [deployment for deployment in deployments if not deployment.terms.base_url]
    environments, wanted = {}, {}
    for build in dict.fromkeys(build_of(each) for each in started if is_process(each)):
        spec = None if build.has_own_program else build.spec(has_device=has_device)
        if build.is_own:
            environments[build] = _own(build, spec)
        elif isinstance(spec, Reason):
            raise MissingError(f"engine={build.engine}: {spec}")
        elif spec is not None:
            _refuse_by_hand(spec, build.label, build.install_line, cache, SMALL_BYTES)
            wanted[build] = spec
    labels_by_weights: dict[Weights, list[str]] = {}
    for deployment in started:
        for needed in all_weights(ENGINES[deployment.engine], deployment):
            if isinstance(needed, Weights):
                labels_by_weights.setdefault(needed, []).append(deployment.engine)
    _refuse_weights(labels_by_weights, store, cache)
    for each in labels_by_weights:
        _refuse_tools(each, store, cache, SMALL_BYTES, f"{each.model} at {each.quantization} needs ")
    check_disk(wanted.values(), labels_by_weights, store, cache)
    for build, spec in wanted.items():
        environments[build] = _environment(
            spec, build.label, build.install_line, cache, progress, SMALL_BYTES
        )
    lacking = [each for each in labels_by_weights if store.find(each, cache) is None]
    began_s = time.monotonic()
    weights = {each: provide_weights(each, store, cache, progress) for each in labels_by_weights}
    if lacking:
        size = size_text(sum(weights[each].size_bytes for each in lacking))
        progress.line(f"weights: {time.monotonic() - began_s:.0f} s, {size}")
    pairs = [pair for each in started for pair in all_adapters(ENGINES[each.engine], each)]
    adapters = {(of, each): store.adapted(each, of, cache) for of, each in dict.fromkeys(pairs)}
    return Provisions(environments, weights, adapters)


def at_hand(
    deployments: Iterable[Deployment], store: WeightsStore, cache: Path, *, has_device: bool
) -> Provisions:
    """Return the environments and weights of the deployments that are on this machine already."""
    started = [each for each in deployments if not each.terms.base_url]
    builds = dict.fromkeys(build_of(each) for each in started if is_process(each))
    specs = {each: each.spec(has_device=has_device) for each in builds if not each.is_own}
    environments = {
        build: installed(cache, spec) for build, spec in specs.items() if isinstance(spec, InstallSpec)
    }
    needed = dict.fromkeys(each for one in started for each in all_weights(ENGINES[one.engine], one))
    weights = {each: store.find(each, cache) for each in needed if isinstance(each, Weights)}
    return Provisions(
        {build: environment for build, environment in environments.items() if environment},
        {each: environment for each, environment in weights.items() if environment},
    )


def lacking(
    deployments: Iterable[Deployment], store: WeightsStore, cache: Path, *, has_device: bool
) -> Iterator[tuple[str, str]]:
    """Yield a sentence for each thing that is missing here, with its size and the command that makes it, and
    the deployment's label."""
    for each in deployments:
        build = build_of(each)
        spec = build.spec(has_device=has_device) if is_process(each) and not build.is_own else None
        if isinstance(spec, InstallSpec) and not installed(cache, spec):
            by = f"run `{build.install_line}`" if _is_by_hand(spec, SMALL_BYTES) else "done by `bench run`"
            yield f"{build.label} is not installed yet: about {size_text(spec.size_bytes)}, {by}", each.label
        for needed in all_weights(ENGINES[each.engine], each):
            if not isinstance(needed, Weights) or store.find(needed, cache) is not None:
                continue
            size = store.missing_bytes(needed, cache)
            about = "" if size is None else f"about {size_text(size)} to download and write, "
            keys = f"model={as_text(needed.model)} engine={each.engine} quantization={needed.quantization}"
            tools = (tool for tool in store.tools_for(needed, cache) if not installed(cache, tool))
            lines = [_tool_line(tool) for tool in tools if _is_by_hand(tool, SMALL_BYTES)]
            lines += [] if _may_fetch(needed, size, store, cache) else [f"bench prepare {keys}"]
            by = f"run {', then '.join(f'`{line}`' for line in lines)}" if lines else "done by `bench run`"
            yield f"weights are not prepared yet: {about}{by}", each.label


def _environment(
    spec: InstallSpec, what: str, line: str, cache: Path, progress: ProgressLines, limit_bytes: int | None
) -> Environment:
    if environment := installed(cache, spec):
        return environment
    _refuse_by_hand(spec, what, line, cache, limit_bytes)
    progress.line(f"{what} is not installed; installing it ({size_text(spec.size_bytes)})")
    began_s = time.monotonic()
    built = install(cache, spec, progress, limit_bytes=limit_bytes)
    progress.line(f"{what}: {time.monotonic() - began_s:.0f} s, {size_text(built.size_bytes)}")
    return built


def _is_by_hand(spec: InstallSpec, limit_bytes: int | None) -> bool:
    """Return whether an environment is installed only by name, because it is compiled or too large."""
    return spec.is_built or bool(spec.sources) or (limit_bytes is not None and spec.size_bytes > limit_bytes)


def _refuse_by_hand(spec: InstallSpec, what: str, line: str, cache: Path, limit_bytes: int | None) -> None:
    if _is_by_hand(spec, limit_bytes) and not installed(cache, spec):
        is_built = spec.is_built or spec.sources
        lack = "not built here, or built from another version" if is_built else "not installed"
        raise MissingError(f"{what}: {lack}; run `{line}` ({size_text(spec.size_bytes)})")


def _refuse_tools(
    needed: Weights, store: WeightsStore, cache: Path, limit_bytes: int | None, who: str = ""
) -> None:
    for spec in store.tools_for(needed, cache):
        _refuse_by_hand(spec, f"{who}{spec.environment}", _tool_line(spec), cache, limit_bytes)


def check_disk(
    specs: Iterable[InstallSpec], weights: Collection[Weights], store: WeightsStore, cache: Path
) -> None:
    """Raise UserError if the disk has no room for the missing environments, weights and tools."""
    tools = (tool for each in weights for tool in store.tools_for(each, cache))
    missing = {spec.environment: spec for spec in (*specs, *tools) if not installed(cache, spec)}
    files = [f"{each.model} at {each.quantization}" for each in weights if store.find(each, cache) is None]
    needed = sum(spec.size_bytes for spec in missing.values()) + store.disk_bytes(weights, cache)
    check_room(cache, needed, f"what is missing here ({', '.join([*missing, *files])})")


def _own(build: Build, spec: InstallSpec | Reason | None) -> Environment:
    check_own(build)
    if build.environment is None:
        program = Path(build.program or "")
        with program.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Environment(program.parent, None, program, {program.name: f"sha256 {digest[:16]}"})
    folder, what = Path(build.environment), f"{build.engine}.environment={build.environment}"
    path = folder / spec.program if isinstance(spec, InstallSpec) and spec.program else None
    if path is not None and not os.access(path, os.X_OK):
        raise UserError(f"{what}: has no {path.relative_to(folder)}")
    return Environment(folder, python_of(folder), path, versions_in(folder, what))


def _tool_line(spec: InstallSpec) -> str:
    builds = [Build(name, program) for name, engine in ENGINES.items() for program in engine.programs]
    steps: list[tuple[str, InstallSpec | Reason | None]] = [
        *((f"bench install {name}", tool) for name, tool in engines.TOOLS.items()),
        *((build.install_line, build.spec_for(device)) for build in builds for device in ("cpu", "cuda")),
    ]
    lines = (
        line for line, each in steps if isinstance(each, InstallSpec) and each.environment == spec.environment
    )
    return next(lines, f"bench install {spec.environment}")


def wanted(settings: Settings, store: WeightsStore) -> tuple[list[Weights], list[Skip]]:
    """Return the weights that `bench prepare` should provide, and those that it cannot, with reasons.

    If the settings name no engine, these are the weights in each file format that any engine takes. Raises
    UserError for a running server.
    """
    if settings.is_attached:
        raise UserError("engine.base_url: a running server has its weights; leave it out to prepare some")
    if "engine" in settings.given:
        deployments = [
            (each.label, needed)
            for each in candidates(settings)
            for needed in all_weights(ENGINES[each.engine], each)
        ]
    else:
        deployments = list(_of_any(settings, store))
    needed_weights: dict[Weights, None] = {}
    skips: list[Skip] = []
    for what, needed in deployments:
        reason = store.can_prepare(needed) if isinstance(needed, Weights) else needed
        if reason is not None:
            skips.append(Skip(what, reason))
        elif isinstance(needed, Weights):
            needed_weights[needed] = None
    return list(needed_weights), skips


def _of_any(settings: Settings, store: WeightsStore) -> Iterator[tuple[str, Weights | Reason | None]]:
    first = str(DEFAULTS["engine"][0])
    names = [first, *(name for name in ENGINES if name != first)]
    for model, quantization in itertools.product(settings.models, settings.quantizations):
        answers = [weights_needed(engine, model, quantization) for engine in names]
        possible = [each for each in answers if isinstance(each, Weights)]
        refusals = [each for each in answers if isinstance(each, Reason)]
        at_hand = [each for each in possible if store.can_prepare(each) is None]
        for each in dict.fromkeys(at_hand) or possible[:1] or refusals[:1]:
            yield f"{model} {quantization}", each


@dataclass(frozen=True)
class Tools:
    """A Workshop whose tools are in the cache, or are installed: up to `limit_bytes`, else MissingError."""

    cache: Path
    progress: ProgressLines
    limit_bytes: int | None = SMALL_BYTES

    def line(self, text: str) -> None:
        self.progress.line(text)

    def tool(self, spec: InstallSpec) -> Path:
        what, line = spec.environment, _tool_line(spec)
        return _environment(spec, what, line, self.cache, self.progress, self.limit_bytes).folder

    def run(
        self, argv: Sequence[str], environment: Mapping[str, str], doing: str, shown: str
    ) -> tuple[int | None, Sequence[str]]:
        return run_supervised(argv, environment, doing, self.progress, shown)


def provide_weights(
    needed: Weights,
    store: WeightsStore,
    cache: Path,
    progress: ProgressLines,
    *,
    limit_bytes: int | None = SMALL_BYTES,
) -> WeightsFile:
    """Find or make weights. Raises MissingError for a tool of more than limit_bytes (None: no limit)."""
    if prepared := store.find(needed, cache):
        return prepared
    _refuse_tools(needed, store, cache, limit_bytes)
    missing = store.missing_bytes(needed, cache)
    size = f" ({size_text(missing)} to download and write)" if missing else ""
    what = f"{needed.model} at {needed.quantization} as {needed.file_format}"
    progress.line(f"{what} is not here; preparing it{size}")
    return store.prepare(needed, cache, Tools(cache, progress, limit_bytes))


def _may_fetch(needed: Weights, size: int | None, store: WeightsStore, cache: Path) -> bool:
    return size is not None and size <= SMALL_BYTES and not store.calls_hub(needed, cache)


def _refuse_weights(
    labels_by_weights: Mapping[Weights, Sequence[str]], store: WeightsStore, cache: Path
) -> None:
    """Raise MissingError for weights that a run does not fetch itself.

    `labels_by_weights`: which engines need each.
    """
    sizes = {
        each: store.missing_bytes(each, cache)
        for each in labels_by_weights
        if store.find(each, cache) is None
    }
    refused = {each: size for each, size in sizes.items() if not _may_fetch(each, size, store, cache)}
    if not refused:
        return
    words = {
        "engine": [engine for each in refused for engine in labels_by_weights[each]],
        "model": [as_text(each.model) for each in refused],
        "quantization": [each.quantization for each in refused],
    }
    keys = (f"{key}={','.join(dict.fromkeys(values))}" for key, values in words.items())
    what = ", ".join(dict.fromkeys(f"{each.model} at {each.quantization}" for each in refused))
    sizes_known = [size for size in refused.values() if size is not None]
    # Two may be made from one source, which each size includes.
    total = f"{'up to ' if len(refused) > 1 else ''}{sum(sizes_known) / 2**30:.1f} GiB"
    cost = f" ({total} to download and write)" if len(sizes_known) == len(refused) else ""
    raise MissingError(f"{what}: not here; run `bench prepare {' '.join(keys)}`{cost}")
