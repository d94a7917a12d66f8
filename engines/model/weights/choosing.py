"""Decides how weights are had, from a model's name, a quantization and a file format.

Looks at the table of models, at local files, and at what the hub said before. Never asks the hub.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engines.model import hub
from engines.model.checkpoint import PICKLES, check_weights, config_of, facts_in, stored_precision
from engines.model.facts import hub_repo
from engines.model.gguf_file import gguf_facts, gguf_header
from engines.model.hub import HubFile, HubPage
from engines.model.models import MODELS, HubRepo, Model
from engines.model.quantization import CALIBRATED, PLAIN_BITS, QUANTIZATIONS, is_cast
from engines.model.shape import quantization_of
from engines.model.weights import kept, ways
from engines.model.weights.ways import CONVERSIONS, Way
from harness.contracts import Reason, Weights
from harness.errors import UserError

_COMPANIONS = re.compile(r"[^/]+\.(json|jinja|model|tiktoken)|merges\.txt|vocab\.txt|LICENSE.*|USE_POLICY.*")
_SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


def way_of(weights: Weights, cache: Path | None = None) -> Way | Reason:
    """Return how these weights are had, or why they cannot be.

    With `cache` it knows what the hub said when it was asked, and what is there already.
    """
    try:
        if weights.model.startswith("hf:"):
            return _on_hub(weights, cache)
        if "/" in weights.model or weights.model.endswith(".gguf"):
            return _local(Path(weights.model).expanduser().absolute(), weights)
    except UserError as error:
        return Reason(str(error))
    model = MODELS.get(weights.model)
    if model is None:
        known = ", ".join(MODELS)
        return Reason(
            f"model={weights.model}: no such model; choose from {known}, or give a path (a .gguf file or a "
            "checkpoint's directory) or hf:organisation/name"
        )
    return _of_package(model, weights) if model.source else _of_table(model, weights, cache)


# --- bench's own table -----------------------------------------------------------------------------


def _of_package(model: Model, weights: Weights) -> Way | Reason:
    assert model.source is not None
    package, wanted = ways.packaged(model, model.source), weights.quantization
    if weights.file_format == "safetensors":
        return _of_checkpoint(ways.checkpoint(package), wanted) or Reason(
            f"{model.name} is not published as {wanted}, and bench cannot make it"
        )
    if wanted == package.quantization:
        return package
    return _of_gguf(package, wanted) or Reason(f"{model.name} cannot be made as {wanted}")


def _of_table(model: Model, weights: Weights, cache: Path | None) -> Way | Reason:
    wanted, is_gguf = weights.quantization, weights.file_format == "gguf"
    there = {name: repo for name, repo in model.published.items() if bool(repo.files) == is_gguf}
    if wanted in there:
        return _published(there[wanted], weights, cache, model)
    if made := _of_hub_checkpoint(model.published["bf16"], "bf16", weights, cache, model):
        return made
    kind, listed = "GGUF" if is_gguf else "a checkpoint", ", ".join(there) or "nothing"
    return Reason(
        f"{model.name} at {wanted} is not known to be published as {kind}, and bench cannot make it; "
        f"there is {listed}"
    )


# --- the hub ---------------------------------------------------------------------------------------


def _on_hub(weights: Weights, cache: Path | None) -> Way | Reason:
    repo = hub_repo(weights.model)
    if repo is None:
        return Reason(f"model={weights.model}: write hf:organisation/name or hf:organisation/name@revision")
    way = _published(repo, weights, cache)
    page = hub.kept_page(repo, cache) if cache else None
    if page is None:
        return way
    if weights.file_format == "gguf":
        made = way if isinstance(way, Way) else _of_hub_checkpoint(repo, "bf16", weights, cache)
        return made if isinstance(made, Way) else way
    if isinstance(way, Reason) or page.config is None:
        return way
    stored = quantization_of(page.config)
    return _of_hub_checkpoint(repo, stored, weights, cache) or Reason(
        f"model={weights.model} is {stored}, not {weights.quantization}"
    )


def _of_hub_checkpoint(
    repo: HubRepo, stored: str, weights: Weights, cache: Path | None, model: Model | None = None
) -> Way | Reason | None:
    """Return how weights are had from a repository's checkpoint; None where they cannot be.

    Until the checkpoint is here to be looked at, its precision is what was said of it.
    """
    source = _published(repo, Weights(weights.model, stored, "safetensors"), cache, model)
    if isinstance(source, Reason):
        return source
    if weights.file_format != "gguf":
        return _of_checkpoint(source, weights.quantization)
    path = source.at(cache) if cache else None
    found = stored_precision(path) if path and kept.read(path) else stored
    return _gguf_of_checkpoint(source, found, weights.quantization) if found else None


def _published(
    repo: HubRepo, weights: Weights, cache: Path | None, model: Model | None = None
) -> Way | Reason:
    """Return the files of a repository, or what it lacks of them as far as the hub was asked."""
    page = hub.kept_page(repo, cache) if cache else None
    if page is None:
        return ways.published(repo, weights.quantization, weights.file_format, model)
    files = _files(page, repo, weights)
    if isinstance(files, str):
        return Reason(f"{repo.repo} {files}")
    return ways.published(repo, weights.quantization, weights.file_format, model, files, page.commit)


def _files(page: HubPage, repo: HubRepo, weights: Weights) -> tuple[HubFile, ...] | str:
    """Return the files to download, or what the repository lacks; the words follow its name."""
    names = [each.name for each in page.files]
    if repo.files:
        missing = sorted(set(repo.files) - set(names))
        found: Sequence[str] | str = f"has no {missing[0]}" if missing else repo.files
    elif weights.file_format == "gguf":
        found = _gguf_names(names, ways.kind_of(weights.quantization))
    else:
        found = _checkpoint_names(names)
    return found if isinstance(found, str) else tuple(each for each in page.files if each.name in found)


def _checkpoint_names(names: Sequence[str]) -> Sequence[str] | str:
    """Return the safetensors of the top folder with what belongs to them: neither pickles nor code."""
    # `consolidated*` are the same once more.
    plain = [name for name in names if not name.startswith("consolidated")]
    weights = [name for name in plain if "/" not in name and name.endswith(".safetensors")]
    if not weights and any(name.endswith(PICKLES) for name in names):
        return "has pickles only, which can run code when they are loaded; bench takes safetensors and GGUF"
    if not weights:
        return "has no safetensors"
    return weights + [name for name in plain if _COMPANIONS.fullmatch(name)]


def _gguf_names(names: Sequence[str], kind: str) -> Sequence[str] | str:
    """Return the file of this kind, or all parts of it."""
    files = [name for name in names if name.endswith(".gguf") and not Path(name).name.startswith("mmproj")]
    found = [name for name in files if re.search(rf"(?i)[-._]{kind}(-\d{{5}}-of-\d{{5}})?\.gguf$", name)]
    singles = [name for name in found if not _SHARD.search(name)]
    if not found:
        return f"has no {kind} file; there are: {', '.join(files) or 'no GGUF files'}"
    if len(singles) > 1:
        return f"has several {kind} files: {', '.join(singles)}"
    return singles or found


# --- the user's own files --------------------------------------------------------------------------


def _local(path: Path, weights: Weights) -> Way | Reason:
    if path.is_dir():
        return _local_checkpoint(path, weights)
    if path.is_file():
        return _local_gguf(path, weights)
    if path.exists():
        return Reason(f"model={weights.model}: neither a file nor a directory")
    return Reason(
        f"model={weights.model}: no such file or directory; give a .gguf file, a checkpoint's directory, "
        "hf:organisation/name or a name of `bench list models`"
    )


def _local_checkpoint(path: Path, weights: Weights) -> Way | Reason:
    wants_file = weights.file_format != "safetensors"
    if wants_file and (inside := next(iter(sorted(path.glob("*.gguf"))), None)):
        return Reason(f"model={weights.model} is a directory; give a file in it, such as model={inside}")
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        return Reason(
            f"model={weights.model} is an adapter, which no engine serves alone; merge it into its base "
            "model and give that directory"
        )
    config = config_of(path)
    check_weights(path)
    found, wanted = quantization_of(config), weights.quantization
    source = ways.local(path, found, "safetensors", facts_in(path, config))
    if not wants_file:
        return _of_checkpoint(source, wanted) or Reason(f"model={weights.model} is {found}, not {wanted}")
    stored = stored_precision(path) if found in PLAIN_BITS else None
    if stored is None:
        kind = "partly quantized" if found in PLAIN_BITS else found
        kind = f"{'an' if kind[:1] in 'aeio' else 'a'} {kind}"
        served = f"; engine=vllm quantization={found} reads the directory" if found in QUANTIZATIONS else ""
        return Reason(
            f"model={weights.model} is the directory of {kind} checkpoint, and this engine reads GGUF "
            f"files, which are made of an F16, BF16 or F32 checkpoint only{served}"
        )
    made = _gguf_of_checkpoint(source, stored, wanted)
    return made or Reason(f"model={weights.model} cannot be made as {wanted}")


def _local_gguf(path: Path, weights: Weights) -> Way | Reason:
    if path.suffix in PICKLES:
        return Reason(
            f"model={weights.model}: a pickle can run code when it is loaded; bench takes safetensors and "
            "GGUF files"
        )
    header, wanted = gguf_header(path), weights.quantization
    found = header.quantization
    if weights.file_format != "gguf":
        return Reason(f"model={weights.model} is a GGUF file; this engine takes a checkpoint's directory")
    if found is None:
        return Reason(f"model={weights.model}: the file does not say how it is quantized (general.file_type)")
    source = ways.local(path, found, "gguf", gguf_facts(header))
    if found == wanted:
        return source
    if found not in PLAIN_BITS:
        return Reason(
            f"model={weights.model} is {found}, not {wanted}; "
            "another is made of an F16, BF16 or F32 file only"
        )
    if not header.is_whole:
        return Reason(
            f"model={weights.model} is one part of several; {wanted} is made of a file that is whole"
        )
    return _of_gguf(source, wanted) or Reason(f"model={weights.model} cannot be made as {wanted}")


# --- what is made of what --------------------------------------------------------------------------


def _of_checkpoint(source: Way, wanted: str) -> Way | None:
    """Return the checkpoint itself where engines serve it as wanted, or what is calibrated on it."""
    if source.quantization == wanted or is_cast(source.quantization, wanted):
        return source
    can = source.quantization in PLAIN_BITS and wanted in CALIBRATED
    return ways.calibrated(source, wanted) if can else None


def _gguf_of_checkpoint(source: Way, stored: str, wanted: str) -> Way | None:
    """Return the way over a file in the precision that is stored: nothing is lost before the last step."""
    whole = ways.gguf_from_checkpoint(source, stored)
    return whole if stored == wanted else _of_gguf(whole, wanted)


def _of_gguf(source: Way, wanted: str) -> Way | None:
    if wanted in CONVERSIONS:
        return ways.converted(source, wanted)
    if wanted.startswith("gguf-") and wanted in QUANTIZATIONS:
        return ways.quantized(ways.converted(source, "fp16") if source.step == "package" else source, wanted)
    return None
