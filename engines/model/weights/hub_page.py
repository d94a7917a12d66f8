"""Asks the Hugging Face hub for a model's config.json and its count of parameters, and for nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MissingError

_SCRIPT = Path(__file__).parents[2] / "inside" / "hub_page.py"
_REFUSED = 4
# Of its two requests, which bound themselves, and of starting a Python.
_LIMIT_S = 90.0


@dataclass(frozen=True)
class HubPage:
    """`parameters`: numbers stored in its safetensors; None where the hub has not counted them."""

    config: Mapping[str, Any]
    parameters: int | None


def fetch_page(repo: str, revision: str) -> HubPage:
    """Kilobytes, of which nothing is kept; blocks. Raises MissingError with a line on why it is not had."""
    asked = f"model=hf:{repo}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise MissingError(f"{asked}: HF_HUB_OFFLINE forbids to ask the hub; give model=/path/config.json")
    argv = [sys.executable, "-P", str(_SCRIPT), repo, revision]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise MissingError(
            f"{asked}: the hub does not answer within {_LIMIT_S:.0f} s; give model=/path/config.json"
        ) from None
    if done.returncode == _REFUSED:
        raise MissingError(f"{asked}: {done.stdout.strip()}")
    if done.returncode != 0:
        raise RuntimeError(f"{_SCRIPT.name} failed: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    if not isinstance(said["config"], dict):
        raise MissingError(f"{asked}: its config.json is not an object")
    return HubPage(said["config"], said["parameters"])
