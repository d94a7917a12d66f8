"""Find a model's shape without its weights: in bench's table, a config.json, a GGUF header or on the hub.

A program in engines/inside asks the hub: only it imports huggingface_hub and reads that package's variables.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPException
from importlib.util import find_spec
from math import prod
from pathlib import Path
from socket import gaierror
from typing import Any, Literal
from urllib.request import Request, urlopen

from serving_bench.engines.model.files import (
    check_shape,
    check_weights,
    config_of,
    facts_in,
    gguf_facts,
    gguf_header,
    read_config,
    split_parts,
)
from serving_bench.engines.model.models import MODELS, HubRepo
from serving_bench.engines.model.shape import facts_of, is_plain, is_rope_scaled, parameters_as_llama
from serving_bench.engines.places import INSIDE, LOCKS
from serving_bench.harness.contracts import InstallSpec, KnownFacts, ModelFacts, Reason, Workshop
from serving_bench.harness.errors import MissingError, UserError, expanded, see_list
from serving_bench.harness.foreign_files import json_of, read_text
from serving_bench.harness.whole_files import write_whole

HUB_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_UNTOLD = (
    "its config.json tells no shape that bench can read (model_type, num_hidden_layers, num_attention_heads, "
    "hidden_size, max_position_embeddings)"
)
HUB_PROGRAM = INSIDE / "hub.py"
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
HUB = InstallSpec(
    environment="tool-hub", lock=LOCKS / "tool-hub.txt", check="import huggingface_hub", size_bytes=55_000_000
)
# The program's exit code if the hub refuses, and the beginning of the line that says why.
REFUSED, REFUSAL = 4, "refused: "
INSTEAD = "or give a copy on this machine: model=/path"
_CONNECT_S = 10.0
# The limit for starting Python and for the program's two requests, each with its own limit.
_LIMIT_S = 90.0


def hub_repo(model: str) -> HubRepo:
    """Return the repository that `hf:organisation/name[@revision]` names. Raise UserError for other text."""
    match = HUB_NAME.fullmatch(model)
    if match is None or ".." in model:
        why = "{setting}: write hf:organisation/name or hf:organisation/name@revision"
        raise UserError(Reason(why, setting=f"model={model}"))
    return HubRepo(match["repo"], revision=match["revision"] or "main")


def hub_python(workshop: Workshop | None) -> str:
    """Return a Python with huggingface_hub: bench's own (`serving-bench[hub]`), else the workshop's."""
    if find_spec("huggingface_hub"):
        return sys.executable
    if workshop is None:
        raise MissingError(f"{HUB.environment} is not installed; run `bench install hub`")
    return str(workshop.tool(HUB) / "bin" / "python")


def known_facts(model: str, workshop: Workshop | None = None) -> KnownFacts:
    """Return the shape of the model that `model=` names: one of `bench list models`, a path, or hf:name.

    Only hf: asks the hub, which blocks and may need a tool. Raise UserError if the shape is not known, and
    MissingError if the hub gives nothing.
    """
    if model.startswith("hf:"):
        return _of_hub(model, workshop)
    if "/" in model or model.endswith((".gguf", ".json")):
        return _of_path(model, expanded("model", model).absolute())
    if model not in MODELS:
        raise UserError(
            f"model={model}: no such model; {see_list(model, MODELS, 'models')}, or give a path (a "
            "config.json, a checkpoint's directory, a .gguf file) or hf:organisation/name"
        )
    return KnownFacts(MODELS[model].facts, "bench's table of models", origin="table")


def most_context(model: str) -> int | None:
    """Return a model's longest context in tokens; None if only the hub knows it or RoPE is scaled."""
    if model.startswith("hf:"):
        return None
    try:
        facts = known_facts(model)
    except UserError:
        return None  # bench reports what is wrong when it looks for the weights
    return None if facts.is_stretched else facts.facts.context_length


def _of_path(model: str, path: Path) -> KnownFacts:
    if path.is_dir():
        inside = sorted(path.glob("*.gguf"))
        if inside and not (path / "config.json").is_file():
            raise UserError(f"model={model} is a directory; give a file in it, such as model={inside[0]}")
        config = config_of(path)
        try:
            check_weights(path)
        except UserError:  # the weights may be missing: only the shape is needed
            return _whole(model, config, facts_of(config), "its config.json")
        counted_by = "its files" if is_plain(config) else None
        return _whole(model, config, facts_in(path, config), "its config.json", counted_by, "weights")
    if not path.is_file():
        raise UserError(
            f"model={model}: no such file or directory; give a config.json, a checkpoint's directory, a "
            ".gguf file, hf:organisation/name or a name of `bench list models`"
        )
    if path.suffix == ".json":
        config = read_config(path, f"model={model}")
        return _whole(model, config, facts_of(config), "its config.json")
    return _of_gguf(model, path)


def _of_hub(model: str, workshop: Workshop | None) -> KnownFacts:
    repo = hub_repo(model)
    page = ask_hub(repo, workshop)
    if isinstance(page, Reason):
        raise MissingError(f"model=hf:{repo.repo}: {page}; model=/path/config.json needs no hub")
    if page.config is None:
        raise MissingError(
            f"model=hf:{repo.repo}: it has no config.json that can be read; for a GGUF file on this machine "
            "give model=/path/FILE.gguf"
        )
    check_shape(f"model={model}: config.json on the hub", page.config)
    # For a quantized checkpoint the hub counts packed numbers.
    parameters = page.parameters if is_plain(page.config) else None
    facts, counted_by = facts_of(page.config, parameters), "the hub" if parameters else None
    return _whole(model, page.config, facts, "config.json on the hub", counted_by, "hub")


def _whole(
    model: str,
    config: Mapping[str, Any],
    facts: ModelFacts | None,
    source: str,
    counted_by: str | None = None,
    origin: Literal["hub", "weights", "shape"] = "shape",
) -> KnownFacts:
    if facts is None:
        raise UserError(f"model={model}: {_UNTOLD}")
    how, is_estimated = f"counted by {counted_by}" if counted_by else "computed from the shape", False
    if not facts.parameters:
        facts = replace(facts, parameters=parameters_as_llama(config))
        how, is_estimated = "estimated as if it were built like Llama", True
    if not facts.parameters:
        raise UserError(f"model={model}: {_UNTOLD}")
    return KnownFacts(facts, f"{source}, parameters {how}", is_estimated, origin, is_rope_scaled(config))


def _of_gguf(model: str, path: Path) -> KnownFacts:
    header = gguf_header(path)
    facts = gguf_facts(header)
    if facts is None:
        raise UserError(f"model={model}: its header does not tell the model's shape; give its config.json")
    facts = replace(facts, parameters=facts.parameters or _parameters_of_parts(model, path))
    return KnownFacts(facts, "the GGUF file's header", origin="weights", is_stretched=header.is_stretched)


def _parameters_of_parts(model: str, path: Path) -> int:
    parts = split_parts(path)
    here = sum(part.is_file() for part in parts)
    if here != len(parts):
        raise UserError(f"model={model}: {here} of its {len(parts)} parts are there")
    total = sum(prod(shape) for part in parts for shape in gguf_header(part).tensors.values())
    if not total:
        raise UserError(f"model={model}: has no tensors; give the model's config.json")
    return total


@dataclass(frozen=True)
class HubFile:
    """One file of a repository. The hub has a hash only for large ones."""

    name: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class HubPage:
    """The hub's facts on a repository, as of the ISO date `seen`.

    `parameters`: how many numbers its safetensors store. A field is None if the hub does not have it.
    """

    commit: str
    files: tuple[HubFile, ...]
    parameters: int | None
    config: Mapping[str, Any] | None
    seen: str


def ask_hub(repo: HubRepo, workshop: Workshop | None) -> HubPage | Reason:
    """Return the hub's page, or a clause on why there is none. Blocks, and fetches a few kilobytes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Reason("HF_HUB_OFFLINE forbids asking the hub")
    if workshop and not find_spec("huggingface_hub") and (why := _why_unreachable()):
        return why  # before the tool is installed
    argv = [hub_python(workshop), "-P", str(HUB_PROGRAM), "ask", repo.repo, repo.revision]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Reason(f"the hub does not answer within {_LIMIT_S:.0f} s")
    if done.returncode == REFUSED:
        return Reason(done.stdout.rpartition(REFUSAL)[2].strip())
    if done.returncode != 0:
        raise RuntimeError(f"{HUB_PROGRAM.name} failed: {done.stderr.strip()}")
    return _page({**json.loads(done.stdout), "seen": datetime.now(UTC).date().isoformat()})


def _why_unreachable() -> Reason | None:
    """Return why no hub can be reached from here; None if something answers, whatever it is."""
    named = os.environ.get("HF_ENDPOINT")
    try:
        urlopen(Request(named or "https://huggingface.co", method="HEAD"), timeout=_CONNECT_S).close()
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)  # a text or another error, such as one of TLS
        if isinstance(why, ConnectionError | TimeoutError | gaierror):
            return Reason(
                f"{named or 'the hub'} cannot be reached from here ({why.strerror or why}); connect this "
                "machine or set HF_ENDPOINT to a mirror, then run the same command again"
            )
    return None


def _page(answer: Mapping[str, Any]) -> HubPage:
    return HubPage(**{**answer, "files": tuple(HubFile(**each) for each in answer["files"])})


def refresh(repo: HubRepo, cache: Path, workshop: Workshop) -> None:
    """Ask the hub and store its page. Raise MissingError if it gives none."""
    page = ask_hub(repo, workshop)
    if isinstance(page, Reason):
        raise MissingError(f"{repo.repo} could not be downloaded: {page}; {INSTEAD}")
    path = _page_path(repo, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(page)).encode())


def kept_page(repo: HubRepo, cache: Path) -> HubPage | None:
    """Return the hub's page from the last time this repository was prepared; None if it never was."""
    try:
        return _page(json_of(read_text(_page_path(repo, cache), "page"), "page", is_finite=False))
    except (UserError, KeyError, TypeError):
        return None


def _page_path(repo: HubRepo, cache: Path) -> Path:
    return cache / "weights" / "hub" / f"{mark(repo)}.json"


def mark(repo: HubRepo) -> str:
    return f"{repo.repo}@{repo.revision}".replace("/", "--")
