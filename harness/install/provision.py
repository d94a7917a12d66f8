"""What deployments need on this machine, an environment and weights: found, made, or refused with a command.

`bench run` makes what is missing itself where it is small; else the error names the command. Knows no engine:
InstallSpec and Weights say all.
"""

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import engines
from engines import ENGINES
from harness.contracts import Deployment, InstallSpec, Reason, Skip, Weights, WeightsFile
from harness.errors import MissingError, UserError
from harness.install import install
from harness.install.builds import Build, build_of, is_process, weights_needed
from harness.install.install_step import OnLine, run_supervised
from harness.install.startable import check_own, own_versions
from harness.plan.candidates import candidates
from harness.plan.plan import CanPrepare
from harness.settings.config import Settings
from harness.settings.decoding import as_text
from harness.settings.keys import DEFAULTS
from harness.settings.units import size_text

# Makes the environment of a tool, or finds it: its directory.
Tool = Callable[[InstallSpec], Path]
# Runs a command under a watchdog: see run_supervised.
Run = Callable[[Sequence[str], Mapping[str, str], OnLine, Callable[[float], None]], int | None]

# Up to here `bench run` installs or prepares by itself.
SMALL_BYTES = 2 << 30


class WeightsStore(Protocol):
    """engines/model/weights, handed in by the command line: harness may not import it."""

    def find(self, weights: Weights, cache: Path) -> WeightsFile | None: ...
    def missing_bytes(self, weights: Weights, cache: Path) -> int | None: ...
    def calls_hub(self, weights: Weights, cache: Path) -> bool: ...
    def prepare(
        self, weights: Weights, cache: Path, tool: Tool, on_line: OnLine, run: Run
    ) -> WeightsFile: ...


@dataclass(frozen=True)
class Environment:
    """A build on this machine."""

    python: Path | None
    program: Path | None
    # Distribution -> version; of the user's own program its hash: a run is not resumed with another.
    versions: Mapping[str, str]
    # Of the environment that bench installed (see install.compiled_dir); None where it is the user's own.
    name: str | None = None


@dataclass(frozen=True)
class Provisions:
    """What the deployments of a run have on this machine."""

    environments: Mapping[Build, Environment] = field(default_factory=dict)  # of the builds that need one
    weights: Mapping[Weights, WeightsFile] = field(default_factory=dict)
    # Name of a container's image -> what identifies it (docker_cli.image_facts).
    images: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[str, Mapping[str, str]]:
        """Return build -> distribution -> version, and image -> its id."""
        images = {
            f"image {name}": {"image_id": str(facts["image_id"])} for name, facts in self.images.items()
        }
        return {build.label: found.versions for build, found in self.environments.items()} | images

    def environment_of(self, deployment: Deployment) -> Environment | None:
        """Return None where it needs none: a container, a running server, a program of bench's own."""
        return self.environments.get(build_of(deployment)) if is_process(deployment) else None

    def weights_of(self, deployment: Deployment) -> WeightsFile | None:
        """Return the files of its weights; None where it needs none."""
        needed = None if deployment.terms.base_url else ENGINES[deployment.engine].weights(deployment)
        return self.weights[needed] if isinstance(needed, Weights) else None


def provide(
    deployments: Iterable[Deployment], store: WeightsStore, cache: Path, on_line: OnLine, *, has_device: bool
) -> Provisions:
    """Find or make everything; blocks. Raises MissingError naming the command where that is too much."""
    started = [deployment for deployment in deployments if not deployment.terms.base_url]
    environments = {}
    for build in dict.fromkeys(build_of(each) for each in started if is_process(each)):
        if found := _environment(build, cache, on_line, has_device=has_device):
            environments[build] = found
    asked: dict[Weights, list[str]] = {}
    for deployment in started:
        needed = ENGINES[deployment.engine].weights(deployment)
        if isinstance(needed, Weights):
            asked.setdefault(needed, []).append(deployment.engine)
    _refuse_weights(asked, store, cache)
    weights = {each: provide_weights(each, store, cache, on_line) for each in asked}
    return Provisions(environments, weights)


# --- environments


def _environment(build: Build, cache: Path, on_line: OnLine, *, has_device: bool) -> Environment | None:
    spec = build.spec(has_device=has_device) if not build.has_own_program else None
    if build.is_own:
        return _own(build, spec)
    if spec is None:
        return None
    if isinstance(spec, Reason):
        raise MissingError(f"engine={build.engine}: {spec.text}")
    found = install.installed(cache, spec)
    if found is None:
        if spec.is_built or spec.sources:
            why = "not built here, or from another version"
            raise MissingError(f"{build.label}: {why}; run `{build.install_line}`")
        if spec.size_bytes > SMALL_BYTES:
            size = f"{spec.size_bytes / 2**30:.1f} GiB"
            raise MissingError(f"{build.label}: not installed; run `{build.install_line}` ({size})")
        on_line(f"{build.label} is not installed; installing it ({size_text(spec.size_bytes)})")
        found = install.install(cache, spec, on_line, limit_bytes=SMALL_BYTES)
    return Environment(found.python, found.program, found.versions, spec.environment)


def _own(build: Build, spec: InstallSpec | Reason | None) -> Environment:
    """Return what the user brought, as it is. Raises UserError where it is not there or does not run."""
    check_own(build)
    if build.environment is None:
        return Environment(None, Path(build.program or ""), own_versions(build))
    folder = Path(build.environment)
    program = folder / spec.program if isinstance(spec, InstallSpec) and spec.program else None
    if program is not None and not os.access(program, os.X_OK):
        raise UserError(f"{build.engine}.environment={folder}: has no {program.relative_to(folder)}")
    return Environment(install.python_of(folder), program, own_versions(build))


def _tool(spec: InstallSpec, cache: Path, on_line: OnLine, limit_bytes: int | None) -> Path:
    """Return a tool's directory; make it if it is missing. Raises MissingError where that is too much."""
    found = install.installed(cache, spec)
    if found is None:
        size = size_text(spec.size_bytes)
        if spec.is_built or (limit_bytes is not None and spec.size_bytes > limit_bytes):
            raise MissingError(f"{spec.environment} is needed for this; run `{_tool_line(spec)}` ({size})")
        on_line(f"{spec.environment} is not installed; installing it ({size})")
        found = install.install(cache, spec, on_line, limit_bytes=limit_bytes)
    return found.folder


def _tool_line(spec: InstallSpec) -> str:
    """Return the command that installs an environment that a tool or an engine's program has."""
    builds = [Build(name, program) for name, engine in ENGINES.items() for program in engine.programs]
    made: list[tuple[str, InstallSpec | Reason | None]] = [
        *((f"bench install {name}", tool) for name, tool in engines.TOOLS.items()),
        *((build.install_line, build.spec_for(device)) for build in builds for device in ("cpu", "cuda")),
    ]
    return next(
        line for line, each in made if isinstance(each, InstallSpec) and each.environment == spec.environment
    )


# --- weights


def wanted(settings: Settings, can_prepare: CanPrepare) -> tuple[list[Weights], list[Skip]]:
    """Return the weights that `bench prepare` is to have ready, and what cannot be had, with its reason.

    In the file formats that the engines take which the settings name; without them in each that any engine
    takes and the model can be had in: for a plain precision often GGUF and safetensors both. Raises UserError
    for a running server.
    """
    if settings.is_attached:
        raise UserError("engine.base_url: a running server has its weights; leave it out to prepare some")
    if "engine" in settings.given:
        asked = [(each.label, ENGINES[each.engine].weights(each)) for each in candidates(settings)]
    else:
        asked = list(_of_any(settings, can_prepare))
    found: dict[Weights, None] = {}
    skips: list[Skip] = []
    for what, needed in asked:
        reason = can_prepare(needed) if isinstance(needed, Weights) else needed
        if reason is not None:
            skips.append(Skip(what, reason.text))
        elif isinstance(needed, Weights):
            found[needed] = None
    return list(found), skips


def _of_any(settings: Settings, can_prepare: CanPrepare) -> Iterator[tuple[str, Weights | Reason | None]]:
    """Yield for each model and quantization all that can be had, else a reason.

    What the default engine takes comes first.
    """
    first = str(DEFAULTS["engine"][0])
    names = [first, *(name for name in ENGINES if name != first)]
    for model, quantization in itertools.product(settings.models, settings.quantizations):
        answers = [weights_needed(engine, model, quantization) for engine in names]
        possible = [each for each in answers if isinstance(each, Weights)]
        refusals = [each for each in answers if isinstance(each, Reason)]
        at_hand = [each for each in possible if can_prepare(each) is None]
        for each in dict.fromkeys(at_hand) or possible[:1] or refusals[:1]:
            yield f"{model} {quantization}", each


def failures(
    failed: Sequence[Weights], made: Collection[Weights], can_prepare: CanPrepare
) -> Sequence[Weights]:
    """Return those of the failed that leave a quantization without weights.

    One that turned out not to exist, as `can_prepare` says by now, is no failure where the model is had at
    that quantization in another format."""
    had = {(each.model, each.quantization) for each in made}
    return [
        each for each in failed if can_prepare(each) is None or (each.model, each.quantization) not in had
    ]


def provide_weights(
    needed: Weights,
    store: WeightsStore,
    cache: Path,
    on_line: OnLine,
    *,
    limit_bytes: int | None = SMALL_BYTES,
) -> WeightsFile:
    """Find or make weights. Raises MissingError for a tool of more than limit_bytes (None: no limit)."""
    if found := store.find(needed, cache):
        return found
    missing = store.missing_bytes(needed, cache)
    size = f" ({size_text(missing)} to download and write)" if missing else ""
    on_line(f"{needed.model} at {needed.quantization} is not here; preparing it{size}")
    tool = partial(_tool, cache=cache, on_line=on_line, limit_bytes=limit_bytes)
    return store.prepare(needed, cache, tool, on_line, run_supervised)


def _refuse_weights(asked: Mapping[Weights, Sequence[str]], store: WeightsStore, cache: Path) -> None:
    """Raise MissingError, with one command for all, where some are too much to be made without being asked.

    A run never asks a hub, nor does it fetch gigabytes by itself. `asked`: the engines that need each.
    """
    sizes = {each: store.missing_bytes(each, cache) for each in asked if store.find(each, cache) is None}
    refused = {
        each: size
        for each, size in sizes.items()
        if size is None or size > SMALL_BYTES or store.calls_hub(each, cache)
    }
    if not refused:
        return
    words = {
        "engine": [engine for each in refused for engine in asked[each]],
        "model": [as_text(each.model) for each in refused],
        "quantization": [each.quantization for each in refused],
    }
    keys = (f"{key}={','.join(dict.fromkeys(values))}" for key, values in words.items() if values)
    what = ", ".join(dict.fromkeys(f"{each.model} at {each.quantization}" for each in refused))
    known = [size for size in refused.values() if size is not None]
    # Two may be made of one source, which the size of each has in it.
    total = f"{'up to ' if len(refused) > 1 else ''}{sum(known) / 2**30:.1f} GiB"
    cost = f" ({total} to download and write)" if len(known) == len(refused) else ""
    raise MissingError(f"{what}: not here; run `bench prepare {' '.join(keys)}`{cost}")
