"""What of the engines and tools is on this machine, and which engine serves which quantization: facts for
`bench list` and `bench doctor`. Looks at files, starts nothing. Knows no engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines import ALIASES, ENGINES, QUANTIZATIONS
from harness.contracts import Deployment, EngineTerms, InstallSpec, ModelFacts, Reason, Weights
from harness.errors import UserError
from harness.install import install
from harness.install.builds import install_line, install_spec, tools
from harness.plan.plan import CanPrepare

# How a reason begins where the engine serves the quantization, but the model cannot be had at it.
SERVED_BUT = "served, but "

# ready: needs no environment. other: made from another lock, or cut short; made anew when installed.
State = Literal["ready", "installed", "installing", "other", "not installed", "none"]


@dataclass(frozen=True)
class Installable:
    """An engine's program, or a tool. `size_bytes`: on disk, or what it will roughly take; `install`: the
    command, None where there is nothing to install; `reason`: why it cannot be installed here."""

    name: str
    program: str | None
    state: State
    version: str | None = None
    size_bytes: int | None = None
    install: str | None = None
    compiles: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class EngineHere:
    """An engine with all that bench can install of it. `launchers`: how it is started, its first one first;
    none where it can only be attached to."""

    engine: str
    description: str
    launchers: tuple[str, ...]
    programs: tuple[Installable, ...]


@dataclass(frozen=True)
class ToolHere:
    """A program that prepares weights."""

    tool: str
    here: Installable


@dataclass(frozen=True)
class QuantizationServed:
    """A row of the engine x quantization matrix. `engines`: `yes`, or why it cannot be served: since the
    pair does not exist or, after SERVED_BUT, since there are no such weights."""

    quantization: str
    alias: str | None
    bits_per_weight: float
    file_format: str | None
    description: str
    engines: Mapping[str, str]


@dataclass(frozen=True)
class ModelHere:
    """A model that bench knows by name. `prepared` and `possible`: quantizations with their file format."""

    model: str
    licence: str
    is_gated: bool
    facts: ModelFacts
    prepared: tuple[Weights, ...]
    possible: tuple[Weights, ...]


def engines_here(cache: Path, *, has_device: bool) -> list[EngineHere]:
    return [
        EngineHere(
            name,
            engine.description,
            tuple(engine.launchers),
            tuple(_program(name, each, cache, has_device=has_device) for each in engine.programs),
        )
        for name, engine in ENGINES.items()
    ]


def tools_here(cache: Path) -> list[ToolHere]:
    return [
        ToolHere(name, _found(name, None, spec, f"bench install {name}", cache))
        for name, spec in tools().items()
    ]


def spec_of(name: str, program: str | None, *, has_device: bool) -> InstallSpec | Reason | None:
    """The environment of an engine's program or of a tool; without a program, of the engine's first that
    needs one. A tool NAME-cpu or NAME-cuda is found by NAME too. Raises UserError for an unknown name."""
    if name in ENGINES:
        return _spec_of_engine(name, program, has_device=has_device)
    known = tools()
    names = (name, *(f"{name}-{device}" for device in (("cuda", "cpu") if has_device else ("cpu",))))
    found = next((known[each] for each in names if each in known), None)
    if found is None:
        choices = ", ".join([*sorted(ENGINES), *sorted(known)])
        raise UserError(f"{name}: no such engine or tool; choose from {choices}")
    if program is not None:
        raise UserError(f"--program {program}: {name} is one program; leave --program out")
    return found


def _spec_of_engine(engine: str, program: str | None, *, has_device: bool) -> InstallSpec | Reason | None:
    programs = ENGINES[engine].programs
    if program is not None and program not in programs:
        choices = ", ".join(filter(None, programs))
        hint = f"choose from {choices}" if choices else "it is one program; leave --program out"
        raise UserError(f"--program {program}: {engine} has no such program; {hint}")
    wanted = programs if program is None else (program,)
    specs = (install_spec(engine, each, has_device=has_device) for each in wanted)
    return next((spec for spec in specs if spec is not None), None)


def _program(engine: str, program: str | None, cache: Path, *, has_device: bool) -> Installable:
    if not ENGINES[engine].launchers:
        return Installable(engine, program, "ready")
    spec = install_spec(engine, program, has_device=has_device)
    if isinstance(spec, Reason):
        return Installable(engine, program, "none", reason=spec.text)
    if spec is None:
        return Installable(engine, program, "ready")
    return _found(engine, program, spec, install_line(engine, program), cache)


def _found(name: str, program: str | None, spec: InstallSpec, line: str, cache: Path) -> Installable:
    found = install.installed(cache, spec)
    compiles = spec.is_built or bool(spec.sources)
    if found is None:
        state: State = "other" if install.environment_dir(cache, spec).exists() else "not installed"
        state = "installing" if install.is_busy(cache, spec) else state
        return Installable(name, program, state, None, spec.size_bytes, line, compiles)
    version = version_of(name, program, found.versions)
    return Installable(name, program, "installed", version, found.size_bytes, line, compiles)


def version_of(name: str, program: str | None, versions: Mapping[str, str]) -> str | None:
    """Of the distribution that is called as the program or the engine is, or begins so; None: none is."""
    by_name = {_plain(distribution): version for distribution, version in versions.items()}
    for wanted in filter(None, (program, name)):
        if (plain := _plain(wanted)) in by_name:
            return by_name[plain]
    begins = sorted(each for each in by_name if each.startswith(_plain(name) + "-"))
    return by_name[begins[0]] if begins else None


def _plain(name: str) -> str:
    """A distribution's name as packages compare them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def quantizations_served(model: str, can_prepare: CanPrepare) -> list[QuantizationServed]:
    """The matrix, derived from the engines' own files; of engines that take weights. `can_prepare`: see
    harness.plan.plan.make."""
    aliases = {target: alias for alias, target in ALIASES.items()}
    return [
        QuantizationServed(
            name,
            aliases.get(name),
            facts.bits_per_weight,
            facts.file_format,
            facts.description,
            {
                engine: said
                for engine in ENGINES
                if (said := _served(engine, model, name, can_prepare)) is not None
            },
        )
        for name, facts in QUANTIZATIONS.items()
    ]


def _served(engine: str, model: str, quantization: str, can_prepare: CanPrepare) -> str | None:
    """`yes`, a reason, or None for an engine that takes no weights."""
    options = ENGINES[engine].options()
    needed = ENGINES[engine].weights(Deployment(engine, model, quantization, EngineTerms(), options, ""))
    if isinstance(needed, Reason):
        return needed.text
    if needed is None:
        return None
    lacking = can_prepare(needed)
    return f"{SERVED_BUT}{lacking.text}" if lacking else "yes"
