"""What the Hugging Face hub says of a repository: its files, its config.json, its count of parameters.

The hub is asked by a program of engines/inside, so that what huggingface_hub reads from the environment holds
for that process alone. Knows no engine and no way to make weights.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines.model.models import HubRepo
from engines.places import INSIDE
from harness.contracts import Reason
from harness.errors import MissingError
from harness.whole_files import write_whole

PROGRAM = INSIDE / "hub.py"
# How the program ends where the hub gives nothing: its exit code, and how the line that says why begins.
REFUSED, REFUSAL = 4, "refused: "
INSTEAD = "a copy of it on this machine is model=/path"
# For its two requests, each of which has a limit of its own, and for starting a Python.
_LIMIT_S = 90.0


@dataclass(frozen=True)
class HubFile:
    """One file of a repository. The hub knows the hash of large ones."""

    name: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class HubPage:
    """What the hub said of a repository on a day (`seen`, an ISO date).

    `parameters`: numbers stored in its safetensors; None where the hub has not counted them. `config`: its
    config.json; None where it has none that can be read.
    """

    commit: str
    files: tuple[HubFile, ...]
    parameters: int | None
    config: Mapping[str, Any] | None
    seen: str


def ask(repo: HubRepo) -> HubPage | Reason:
    """Return the page, or a clause on why it is not had. Blocks; a few kilobytes are fetched."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Reason("HF_HUB_OFFLINE forbids to ask the hub")
    argv = [sys.executable, "-P", str(PROGRAM), "ask", repo.repo, repo.revision]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Reason(f"the hub does not answer within {_LIMIT_S:.0f} s")
    if done.returncode == REFUSED:
        return Reason(done.stdout.rpartition(REFUSAL)[2].strip())
    if done.returncode != 0:
        raise RuntimeError(f"{PROGRAM.name} failed: {done.stderr.strip()}")
    return _page({**json.loads(done.stdout), "seen": datetime.now(UTC).date().isoformat()})


def _page(said: Mapping[str, Any]) -> HubPage:
    return HubPage(**{**said, "files": tuple(HubFile(**each) for each in said["files"])})


def refresh(repo: HubRepo, cache: Path) -> None:
    """Ask the hub and keep its page. Raise MissingError where it gives none."""
    page = ask(repo)
    if isinstance(page, Reason):
        raise MissingError(f"{repo.repo} could not be downloaded: {page.text}; {INSTEAD}")
    path = page_path(repo, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(page)).encode())


def kept_page(repo: HubRepo, cache: Path) -> HubPage | None:
    """Return what the hub said when it was last asked to prepare this repository; None where it was not."""
    try:
        return _page(json.loads(page_path(repo, cache).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def page_path(repo: HubRepo, cache: Path) -> Path:
    """Return where the page of a repository is kept."""
    return cache / "weights" / "hub" / f"{mark(repo)}.json"


def mark(repo: HubRepo) -> str:
    """Return a name for files and folders of this revision."""
    return f"{repo.repo}@{repo.revision}".replace("/", "--")
