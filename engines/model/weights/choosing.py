"""Decide how to get weights, from the table of models, local files, and stored pages of the hub."""

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from serving_bench.engines.model.facts import hub_repo, kept_page
from serving_bench.engines.model.files import (
    PICKLES,
    check_weights,
    config_of,
    facts_in,
    gguf_facts,
    gguf_header,
    stored_precision,
)
from serving_bench.engines.model.models import MODELS, HubRepo, Model, PackageSource
from serving_bench.engines.model.shape import quantization_of
from serving_bench.engines.model.sizes import CALIBRATED, PLAIN_BITS, QUANTIZATIONS, is_cast
from serving_bench.engines.model.weights import kept, ways
from serving_bench.engines.model.weights.ways import Way, made
from serving_bench.harness.contracts import Reason, Weights
from serving_bench.harness.errors import UserError, expanded, refuse_first, see_list

_COMPANIONS = re.compile(r"[^/]+\.(json|jinja|model|tiktoken)|merges\.txt|vocab\.txt|LICENSE.*|USE_POLICY.*")
# The kinds of GGUF files that the gguf package makes; llama-quantize makes the others.
_CONVERSIONS = ("fp16", "bf16", "gguf-q8_0", "gguf-q4_0")


def way_of(weights: Weights, cache: Path | None = None) -> Way | Reason:
    """Return how to get these weights, or why that is impossible. `cache` has the hub's stored pages."""
    try:
        return _way_of(weights, cache)
    except UserError as error:
        return error.reason


def _way_of(weights: Weights, cache: Path | None) -> Way:
    name = weights.model
    if name.startswith("hf:"):
        return _on_hub(weights, cache)
    if "/" in name or name.endswith(".gguf"):
        path = expanded("model", name).absolute()
        if path.is_file():
            return _local_gguf(path, weights)
        if path.is_dir():
            return _local_checkpoint(path, weights)
        raise _refused(
            weights,
            ": no such file or directory; give a .gguf file, a checkpoint's directory, hf:organisation/name "
            "or a name of `bench list models`",
        )
    if name not in MODELS:
        raise _refused(
            weights,
            ": no such model; {see}, or give a path (a .gguf file or a checkpoint's directory) or "
            "hf:organisation/name",
            see=see_list(name, MODELS, "models"),
        )
    model = MODELS[name]
    if model.source:
        return _of_package(model, model.source, weights)
    return _of_table(model, weights, cache)


def _refused(weights: Weights, why: str, **values: str) -> UserError:
    """Return an error about `model=`, whose sentence goes on with `why`."""
    about = {"setting": f"model={weights.model}", "quantization": weights.quantization}
    return UserError(Reason("{setting}" + why, **about, **values))


def _not_made(model: str, quantization: str, why: str = "cannot be made as {quantization}") -> Reason:
    return Reason("{model} " + why, model=model, quantization=quantization)


def _of_package(model: Model, package: PackageSource, weights: Weights) -> Way:
    source, wanted = ways.packaged(model, package), weights.quantization
    if weights.file_format == "gguf":
        return _of_gguf(source, wanted, _not_made(model.name, wanted))
    why = _not_made(model.name, wanted, "is not published as {quantization}, and bench cannot make it")
    return _of_checkpoint(made("checkpoint", source, package.checkpoint), wanted, why)


def _of_table(model: Model, weights: Weights, cache: Path | None) -> Way:
    wanted, is_gguf = weights.quantization, weights.file_format == "gguf"
    there = {name: repo for name, repo in model.published.items() if bool(repo.files) == is_gguf}
    if wanted in there:
        return _published(there[wanted], weights, cache, model)
    why = Reason(
        "{model} at {quantization} is not known to be published as {kind}, and bench cannot make it; there "
        "is {there}",
        model=model.name,
        quantization=wanted,
        kind="GGUF" if is_gguf else "a checkpoint",
        there=", ".join(there) or "nothing",
    )
    return _of_hub_checkpoint(model.published["bf16"], "bf16", weights, cache, why, model)


def _on_hub(weights: Weights, cache: Path | None) -> Way:
    repo, is_gguf = hub_repo(weights.model), weights.file_format == "gguf"
    page = kept_page(repo, cache) if cache else None
    if page and page.config is not None and not is_gguf:
        stored = quantization_of(page.config)
        why = _refused(weights, " is {stored}, not {quantization}", stored=stored).reason
        return _of_hub_checkpoint(repo, stored, weights, cache, why)
    try:
        return _published(repo, weights, cache)
    except UserError as error:
        if is_gguf:
            with suppress(UserError):
                return _of_hub_checkpoint(repo, "bf16", weights, cache, error.reason)
        raise


def _of_hub_checkpoint(
    repo: HubRepo, stored: str, weights: Weights, cache: Path | None, why: Reason, model: Model | None = None
) -> Way:
    """Return the way. Until the checkpoint is here, its precision is what the hub says."""
    source = _published(repo, Weights(weights.model, stored, "safetensors"), cache, model)
    if weights.file_format != "gguf":
        return _of_checkpoint(source, weights.quantization, why)
    path = source.at(cache) if cache else None
    precision = stored_precision(path) if path and kept.read(path) else stored
    if precision is None:
        raise UserError(why)
    # Converted in the stored precision, nothing is lost before the last step.
    return _of_gguf(made("from_checkpoint", source, precision), weights.quantization, why)


def _published(repo: HubRepo, weights: Weights, cache: Path | None, model: Model | None = None) -> Way:
    page = kept_page(repo, cache) if cache else None
    if page is None:
        return ways.published(repo, weights.quantization, weights.file_format, model)
    names = [each.name for each in page.files]
    if repo.files:
        names_there: Collection[str] = repo.files
        if missing := sorted(set(names_there) - set(names)):
            raise UserError(f"{repo.repo} has no {missing[0]}")
    elif weights.file_format == "gguf":
        names_there = _gguf_names(repo.repo, names, ways.kind_of(weights.quantization))
    else:
        names_there = _checkpoint_names(repo.repo, names)
    files = tuple(each for each in page.files if each.name in names_there)
    return ways.published(repo, weights.quantization, weights.file_format, model, files, page.commit)


def _checkpoint_names(repo: str, names: Sequence[str]) -> Collection[str]:
    """Return the safetensors in the top folder and the files that they need, but no pickles and no code."""
    # `consolidated*` are a second copy of the weights.
    plain = [name for name in names if not name.startswith("consolidated")]
    weights = [name for name in plain if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        has_pickles = any(name.endswith(PICKLES) for name in names)
        pickles = " but pickles, which can run code when they are loaded" if has_pickles else ""
        raise UserError(f"{repo} has no safetensors{pickles}; bench takes safetensors and GGUF")
    return weights + [name for name in plain if _COMPANIONS.fullmatch(name)]


def _gguf_names(repo: str, names: Sequence[str], kind: str) -> Collection[str]:
    files = [name for name in names if name.endswith(".gguf") and not Path(name).name.startswith("mmproj")]
    matches = [re.search(rf"(?i)[-._]{kind}(-\d{{5}}-of-\d{{5}})?\.gguf$", name) for name in files]
    matching = [match.string for match in matches if match]
    singles = [match.string for match in matches if match and not match[1]]
    refuse_first(
        (not matching, f"{repo} has no {kind} file; there are: {', '.join(files) or 'no GGUF files'}"),
        (len(singles) > 1, f"{repo} has several {kind} files: {', '.join(singles)}"),
    )
    return singles or matching


def _local_checkpoint(path: Path, weights: Weights) -> Way:
    wants_file = weights.file_format == "gguf"
    if wants_file and (inside := sorted(path.glob("*.gguf"))):
        why = " is a directory; give a file in it, such as model={inside}"
        raise _refused(weights, why, inside=str(inside[0]))
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        why = " is an adapter, which no engine serves without its base model; merge both and give that "
        raise _refused(weights, why + "directory")
    config = config_of(path)
    check_weights(path)
    actual, wanted = quantization_of(config), weights.quantization
    source = ways.local(path, actual, "safetensors", facts_in(path, config))
    if not wants_file:
        return _of_checkpoint(
            source, wanted, _refused(weights, " is {actual}, not {quantization}", actual=actual).reason
        )
    stored = stored_precision(path) if actual in PLAIN_BITS else None
    if stored is None:
        kind = "partly quantized" if actual in PLAIN_BITS else actual
        kind = f"{'an' if kind[:1] in 'aeio' else 'a'} {kind}"
        served = f"; engine=vllm quantization={actual} reads the directory" if actual in QUANTIZATIONS else ""
        raise _refused(
            weights,
            " is the directory of {kind} checkpoint, and this engine reads GGUF files, which bench makes "
            "only from an F16, BF16 or F32 checkpoint{served}",
            kind=kind,
            served=served,
        )
    why_not = _refused(weights, " cannot be made as {quantization}").reason
    return _of_gguf(made("from_checkpoint", source, stored), wanted, why_not)


def _local_gguf(path: Path, weights: Weights) -> Way:
    wanted = weights.quantization
    if path.suffix in PICKLES:
        why = ": a pickle can run code when it is loaded; bench takes safetensors and GGUF files"
        raise _refused(weights, why)
    header = gguf_header(path)
    actual = header.quantization
    if weights.file_format != "gguf":
        raise _refused(weights, " is a GGUF file; this engine takes a checkpoint's directory")
    if actual is None:
        raise _refused(weights, ": the file does not say how it is quantized (general.file_type)")
    if actual not in (wanted, *PLAIN_BITS):
        why = " is {actual}, not {quantization}; bench makes that only from F16, BF16 or F32"
        raise _refused(weights, why, actual=actual)
    if actual != wanted and not header.is_whole:
        why = " is one part of several; bench makes {quantization} only from a single file"
        raise _refused(weights, why)
    source = ways.local(path, actual, "gguf", gguf_facts(header))
    return _of_gguf(source, wanted, _refused(weights, " cannot be made as {quantization}").reason)


def _of_checkpoint(source: Way, wanted: str, why: Reason) -> Way:
    if source.quantization == wanted or is_cast(source.quantization, wanted):
        return source
    if source.quantization in PLAIN_BITS and wanted in QUANTIZATIONS and QUANTIZATIONS[wanted].recipe:
        return made("recipe", source, wanted)
    if source.quantization in PLAIN_BITS and wanted in CALIBRATED:
        return made("w4a16" if wanted == "w4a16" else "awq", source, wanted)
    raise UserError(why)


def _of_gguf(source: Way, wanted: str, why: Reason) -> Way:
    if wanted == source.quantization:
        return source
    if wanted in _CONVERSIONS:
        return made("convert", source, wanted)
    if wanted.startswith("gguf-") and wanted in QUANTIZATIONS:
        whole = made("convert", source, "fp16") if source.step == "package" else source
        return made("quantize", whole, wanted)
    raise UserError(why)
