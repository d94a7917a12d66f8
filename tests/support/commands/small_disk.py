"""Runs a command with a small disk at one folder: a file system in memory that no other process sees."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

_UNSHARED = ["unshare", "--user", "--map-root-user", "--mount"]


def run_on_small_disk(
    folder: Path, size: str, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command for which `folder` is an empty disk of this size (500k, 300m), or skip the test."""
    can = (
        shutil.which("unshare") and subprocess.run([*_UNSHARED, "true"], capture_output=True).returncode == 0
    )
    if not can:
        pytest.skip("this machine makes no mount namespace for a user")
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["sh", "-c", 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"', size, folder]
    return subprocess.run([*_UNSHARED, *mount, *argv], env=environment, capture_output=True, text=True)
