"""Decides how weights are had, from a model's name, a quantization and a file format.

Looks at the table of models and at local files; never at the network or the cache.
"""

from __future__ import annotations

import re
from pathlib import Path

from engines.model.gguf_file import file_quantization, gguf_facts, gguf_metadata
from engines.model.model_row import HubRepo, Model
from engines.model.models import MODELS
from engines.model.quantization import QUANTIZATIONS
from engines.model.weights.checkpoint import (
    check_weights,
    config_of,
    facts_of,
    quantization_of,
    stored_precision,
)
from engines.model.weights.ways import (
    CALIBRATED,
    CONVERSIONS,
    PLAIN_BITS,
    SIXTEEN_BIT,
    Awq,
    Checkpoint,
    Converted,
    FromCheckpoint,
    Local,
    Packaged,
    Published,
    Quantized,
    Way,
    is_cast,
)
from harness.contracts import Reason, Weights
from harness.errors import UserError

HUB_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def way_of(weights: Weights) -> Way | Reason:
    """How these weights are had, or why they cannot be."""
    if weights.model.startswith("hf:"):
        return _on_hub(weights)
    if "/" in weights.model or weights.model.endswith(".gguf"):
        return _local(weights)
    model = MODELS.get(weights.model)
    if model is None:
        known = ", ".join(MODELS)
        return Reason(
            f"model={weights.model}: no such model; choose from {known}, or give a path (a .gguf file or a "
            "checkpoint's directory) or hf:organisation/name"
        )
    if model.source is not None:
        return _from_package(Packaged(model, model.source), weights)
    return _of_table(model, weights)


def _from_package(source: Packaged, weights: Weights) -> Way | Reason:
    model, quantization = source.model, weights.quantization
    if weights.file_format == "safetensors":
        if quantization in SIXTEEN_BIT:
            return Checkpoint(source)
        if quantization in CALIBRATED:
            return Awq(Checkpoint(source), quantization)
        return Reason(f"{model.name} is not published as {quantization}, and bench cannot make it")
    if quantization == source.source.quantization:
        return source
    return _from_gguf(source, quantization) or Reason(f"{model.name} cannot be made as {quantization}")


def _of_table(model: Model, weights: Weights) -> Way | Reason:
    wanted, is_gguf = weights.quantization, weights.file_format == "gguf"
    sixteen = next((each for each in ("bf16", "fp16") if each in model.published), None)
    repo = model.published.get(wanted)
    if repo is not None and bool(repo.files) == is_gguf:
        return Published(model.name, repo, weights.file_format, wanted, model)
    if not is_gguf and sixteen is not None and wanted in (*SIXTEEN_BIT, *CALIBRATED):
        checkpoint = Published(model.name, model.published[sixteen], "safetensors", sixteen, model)
        return checkpoint if wanted in SIXTEEN_BIT else Awq(checkpoint, wanted)
    if is_gguf and sixteen is not None:
        checkpoint = Published(model.name, model.published[sixteen], "safetensors", sixteen, model)
        if (made := gguf_of_checkpoint(checkpoint, sixteen, wanted)) is not None:
            return made
    there = [name for name, each in model.published.items() if bool(each.files) == is_gguf]
    kind = "GGUF" if is_gguf else "a checkpoint"
    listed = ", ".join(there) or "nothing"
    return Reason(
        f"{model.name} at {wanted} is not known to be published as {kind}, and bench cannot make it; "
        f"there is {listed}"
    )


def _on_hub(weights: Weights) -> Way | Reason:
    match = HUB_NAME.fullmatch(weights.model)
    if match is None or ".." in weights.model:
        return Reason(f"model={weights.model}: write hf:organisation/name or hf:organisation/name@revision")
    repo = HubRepo(match["repo"], revision=match["revision"] or "main")
    name = "hub/" + re.sub(r"[/]", "--", f"{repo.repo}@{repo.revision}")
    return Published(name, repo, weights.file_format, weights.quantization)


def _local(weights: Weights) -> Way | Reason:
    path = Path(weights.model).expanduser().absolute()
    try:
        if path.is_dir():
            return _local_checkpoint(path, weights)
        if path.is_file():
            return _local_gguf(path, weights)
        if path.exists():
            return Reason(f"model={weights.model}: neither a file nor a directory")
    except UserError as error:
        return Reason(str(error))
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
    local = Local(path, found, facts_of(config, path))
    if wants_file:
        return _gguf_of_local(local, weights)
    if found == wanted or is_cast(found, wanted):
        return local
    if wanted in CALIBRATED and found in (*SIXTEEN_BIT, "fp32"):
        return Awq(local, wanted)
    return Reason(f"model={weights.model} is {found}, not {wanted}")


def _gguf_of_local(local: Local, weights: Weights) -> Way | Reason:
    found, wanted = local.quantization, weights.quantization
    stored = stored_precision(local.path) if found in PLAIN_BITS else None
    if stored is None:
        kind = "partly quantized" if found in PLAIN_BITS else found
        kind = f"{'an' if kind[:1] in 'aeio' else 'a'} {kind}"
        served = f"; engine=vllm quantization={found} reads the directory" if found in QUANTIZATIONS else ""
        return Reason(
            f"model={weights.model} is the directory of {kind} checkpoint, and this engine reads GGUF "
            f"files, which are made of an F16, BF16 or F32 checkpoint only{served}"
        )
    return gguf_of_checkpoint(local, stored, wanted) or Reason(
        f"model={weights.model} cannot be made as {wanted}"
    )


def gguf_of_checkpoint(
    source: Local | Published, stored: str, wanted: str
) -> FromCheckpoint | Converted | Quantized | None:
    """By way of a file in the precision that is stored, so that nothing is lost before the last step."""
    whole = FromCheckpoint(source, stored)
    return whole if stored == wanted else _from_gguf(whole, wanted)


def _local_gguf(path: Path, weights: Weights) -> Way | Reason:
    if path.suffix in _PICKLES:
        return Reason(
            f"model={weights.model}: a pickle can run code when it is loaded; bench takes safetensors and "
            "GGUF files"
        )
    quantization = file_quantization(path)
    if weights.file_format != "gguf":
        return Reason(f"model={weights.model} is a GGUF file; this engine takes a checkpoint's directory")
    if quantization is None:
        return Reason(f"model={weights.model}: the file does not say how it is quantized (general.file_type)")
    local, wanted = Local(path, quantization, gguf_facts(path)), weights.quantization
    if quantization == wanted:
        return local
    if quantization not in PLAIN_BITS:
        return Reason(
            f"model={weights.model} is {quantization}, not {wanted}; "
            "another is made of an F16, BF16 or F32 file only"
        )
    if gguf_metadata(path).get("split.count", 1) != 1:
        return Reason(
            f"model={weights.model} is one part of several; {wanted} is made of a file that is whole"
        )
    return _from_gguf(local, wanted) or Reason(f"model={weights.model} cannot be made as {wanted}")


def _from_gguf(source: Packaged | Local | FromCheckpoint, wanted: str) -> Converted | Quantized | None:
    if wanted in CONVERSIONS:
        return Converted(source, wanted)
    if wanted.startswith("gguf-") and wanted in QUANTIZATIONS:
        return Quantized(Converted(source, "fp16") if isinstance(source, Packaged) else source, wanted)
    return None
